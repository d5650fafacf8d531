//! Hundreds of volumes on one node: what happens to many of them at once costs what it costs for each, and not its square.
//!
//! Nothing here is judged by the clock: searches of the mount tables, the tables that they read, and the mounter's memory are
//! counted. With `VOLUMES=1000 DEATHS=100` or `VOLUMES=900 PODS=300` it is run larger.

use crate::harness::{Test, running_linux, tests};
use crate::node::setting::Setting;
use crate::node::{NODE_BIN, notes::note};
use hostmount::observe::events;
use std::env;
use std::time::Instant;
use testbed::machine::Propagation;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_third_of_them_die_at_once.needs(&["bindfs"]).needs_cgroups().alone(),
        twenty_are_swapped_at_a_time.needs(&["bindfs"]).needs_cgroups().alone(),
    ]
}

/// What the mounter may have had of memory at any time, in KiB.
const MEMORY: u64 = 30_000;
/// How many volumes a pod has.
const IN_A_POD: u64 = 3;

/// `NAME` of the environment, or this.
fn number(name: &str, usual: u64) -> u64 {
    env::var(name).ok().map_or(usual, |value| value.parse().unwrap())
}

/// So many volumes at `/var/lib/kubelet/v1` and so on, with a file `f`, and what else is done on such a node.
struct Node {
    setting: Setting,
    volumes: u64,
    pods: Vec<testbed::machine::Process>,
}

impl Node {
    fn with(volumes: u64) -> Self {
        let setting = Setting::start();
        setting.test.container.sh_ok("echo seen >/tmp/source/f");
        setting.test.node.sh_ok(&format!(
            "cd /var/lib/kubelet; for n in $(seq {volumes}); do mkdir v$n && {NODE_BIN}/hostmount mount -t fuse.bindfs \
             /tmp/source $PWD/v$n || exit 1; done"
        ));
        let pods = (0..number("PODS", 10).min(volumes / IN_A_POD)).map(|pod| {
            let shown: Vec<_> = (1..=IN_A_POD)
                .map(|n| (format!("/var/lib/kubelet/v{}", pod * IN_A_POD + n), format!("/{n}")))
                .collect();
            let shown: Vec<_> = shown.iter().map(|(volume, at)| (&**volume, &**at)).collect();
            setting.test.pod(&shown, Propagation::None).live()
        });
        Self { pods: pods.collect(), setting, volumes }
    }

    fn all_are_served(&self) {
        let each = format!("for n in $(seq {}); do grep -q seen /var/lib/kubelet/v$n/f || exit 1; done", self.volumes);
        self.setting.test.node.sh_ok(&each);
    }

    /// Searches of the mount tables so far, and the tables that were read.
    fn searched(&self) -> [u64; 2] {
        let text = self.setting.test.node.sh_ok(&format!("{NODE_BIN}/hostmount metrics"));
        ["mount_searches", "mount_tables_read"].map(|name| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("hostmount_{name}_total ")));
            line.unwrap().parse().unwrap()
        })
    }

    /// The most memory that the mounter has had, in KiB.
    fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.setting.mounter.pid());
        let line = self.setting.test.node.sh_ok(&format!("grep VmHWM {path}"));
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// `operations` are carried out by `begin`: each needs a search for its places and one that finds nothing more; the deaths
    /// before, and changes of the node's table, are searched for together.
    #[track_caller]
    fn costs_no_more_than(&self, operations: u64, begin: impl FnOnce(&Setting)) {
        let [searches, tables] = self.searched();
        let started = Instant::now();
        begin(&self.setting);
        let took = started.elapsed();
        let now = self.searched();
        let (searches, tables) = (now[0] - searches, now[1] - tables);
        let (volumes, pods, memory) = (self.volumes, self.pods.len() as u64, self.memory());
        note(format!(
            "{volumes} volumes in {pods} pods, {operations} operations: {searches} searches, {tables} tables, {memory} KiB, {took:?}"
        ));
        assert!(searches <= 2 * operations + operations / 2, "{searches} searches");
        // Where the kernel says what a namespace shows: the node's, and those of the pods that have one of the volumes. Elsewhere also all other
        // pods', the container's, the mounter's own and a few programs' of the moment, but no helper's.
        let most = if running_linux() >= (6, 12) { 2 * searches + 2 * operations } else { searches * (pods + 10) };
        assert!(tables <= most, "{tables} tables were read in {searches} searches");
        assert!(memory < MEMORY, "{memory} KiB");
        self.all_are_served();
    }
}

fn a_third_of_them_die_at_once() {
    let (volumes, deaths) = (number("VOLUMES", 150), number("DEATHS", 50));
    let node = Node::with(volumes);
    node.costs_no_more_than(deaths, |setting| {
        setting.test.container.sh_ok(&format!("kill -9 $(pgrep -x bindfs | shuf -n {deaths})"));
        setting.mounter.wait_for(events::HEALED, deaths as usize);
    });
}

fn twenty_are_swapped_at_a_time() {
    let volumes = number("VOLUMES", 60);
    let node = Node::with(volumes);
    node.costs_no_more_than(volumes, |setting| {
        let swap = format!("seq {volumes} | xargs -P 20 -I N {NODE_BIN}/hostmount swap /var/lib/kubelet/vN");
        setting.test.node.sh_ok(&swap);
    });
}
