//! What people see of volumes and of the pods that have them: `list` and `status`.

use crate::harness::{Test, tests};
use crate::node::mounter::Mounter;
use crate::node::two_pods::{self, DRIVER, FLEX, PLAIN};
use crate::node::{NODE_BIN, TestNode};
use hostmount::observe::events;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        pods_have_names_without_an_api_server.needs(&["bindfs"]).quick(),
        what_is_shown_of_a_helper_is_what_it_is.needs(&["bindfs"]).quick(),
        a_list_reads_one_mount_table.needs(&["bindfs"]).quick(),
        top_shows_what_helpers_use.needs(&["bindfs"]).quick(),
    ]
}

fn start() -> (TestNode, Mounter) {
    let (test, mounter) = two_pods::start(&["flexvolume", "kubelet"]);
    test.node.sh_ok("mount -t tmpfs log /var/log");
    (test, mounter)
}

fn show(test: &TestNode, arguments: &str) -> Value {
    serde_json::from_str(&test.node.sh_ok(&format!("{NODE_BIN}/hostmount {arguments} --output json"))).unwrap()
}

fn pods(test: &TestNode) -> Vec<Value> {
    show(test, "list").as_array().unwrap().iter().map(|volume| volume["pods"].clone()).collect()
}

fn pods_have_names_without_an_api_server() {
    let (test, mut mounter) = start();
    let said = two_pods::of_the_first();
    let done = test.node.run(DRIVER, &["mount", FLEX, &said.to_string()]);
    assert!(done.stdout.contains("Success"), "{done:?}");
    test.kubelets_mount(&["-t", "fuse.bindfs", "/tmp/source", PLAIN]).ok("mount");
    let named = json!([{ "uid": "uid-1", "namespace": "shop", "name": "web-0" }]);
    assert_eq!(pods(&test), [named.clone(), json!([{ "uid": "uid-2" }])]);

    // Pods that collect logs may write there: a link is not followed, and nobody waits for where it leads.
    test.node.sh_ok("mkdir -p /tmp/forged/bad_name_uid-2 && ln -s /tmp/forged /var/log/pods");
    assert_eq!(pods(&test)[1], json!([{ "uid": "uid-2" }]));
    // Kubelet's own directory, and what else may be beside it.
    test.node.sh_ok("rm /var/log/pods && mkdir -p /var/log/pods/data_db-0_uid-2 /var/log/pods/other");
    let both = [named, json!([{ "uid": "uid-2", "namespace": "data", "name": "db-0" }])];
    assert_eq!(pods(&test), both);
    // The next mounter has what the caller said from the record.
    mounter.signal(Signal::SIGKILL);
    mounter.wait();
    let mounter = test.start_mounter(&[], &[]);
    assert_eq!(pods(&test), both);

    let list = |arguments: &str| test.node.sh_ok(&format!("{NODE_BIN}/hostmount list {arguments}"));
    let table = list("");
    assert!(table.starts_with("NAMESPACE  POD    TYPE "), "{table}");
    assert!(
        table.lines().nth(1).unwrap().starts_with("shop       web-0  bindfs       /tmp/source  mounted  "),
        "{table}"
    );
    for (arguments, targets) in [
        ("--pod web-0", vec![FLEX]),
        ("--pod data/db-0", vec![PLAIN]),
        ("--pod uid-2", vec![PLAIN]),
        ("-n shop", vec![FLEX]),
        ("--pod web-0 -n data", vec![]),
        ("-t fuse.bindfs", vec![FLEX, PLAIN]),
        ("-t sshfs", vec![]),
        ("--state mounted,dead", vec![FLEX, PLAIN]),
        ("--state dead", vec![]),
    ] {
        assert_eq!(list(&format!("-o name {arguments}")).lines().collect::<Vec<_>>(), targets, "{arguments}");
    }
    let watched = test.node.sh(&format!("{NODE_BIN}/hostmount list -o name --watch=1 | head -1"));
    assert_eq!(watched.stdout, format!("{FLEX}\n"), "it ends when its reader has gone");
    // Of one that is over the pod is still known.
    test.umount(&[FLEX]).ok("umount");
    mounter.wait_for(events::UNMOUNTED, 1);
    let ended = show(&test, &format!("status {FLEX}"));
    assert_eq!((&ended["state"], &ended["pods"][0]["uid"]), (&json!("ended"), &json!("uid-1")));
}

fn what_is_shown_of_a_helper_is_what_it_is() {
    let (test, mut mounter) = start();
    test.mount(&["-t", "fuse.bindfs", "-o", "ro,password=hunter2", "/tmp/source", PLAIN]);
    test.mount(&["-t", "fuse.bindfs", "-o", "ro,fsname=shown", "/tmp/source", PLAIN]).ok("mount");
    let status = || show(&test, &format!("status {PLAIN}"));
    let first = status();
    let [pid] = test.pids_of("bindfs")[..] else { panic!("{:?}", test.processes()) };
    let process = &first["process"];
    assert_eq!((&process["pid"], &process["processes"]), (&json!(pid), &json!(1)), "{first}");
    let uid: u64 = test.node.sh_ok(&format!("stat -c %u /proc/{pid}")).trim().parse().unwrap();
    assert_eq!(process["uid"], json!(uid));
    assert!(process["program"].as_str().unwrap().ends_with("bindfs"), "{first}");
    let version = test.container.sh_ok("dpkg-query --show --showformat '${Package} ${Version}' bindfs");
    assert_eq!(process["package"], json!(version));
    let descriptors = test.descriptors(pid).len() as u64;
    assert_eq!(process["descriptors"], json!(descriptors));
    assert!(process["memory"].as_u64().unwrap() > 10_000, "{first}");
    assert_eq!((&first["origin"], &first["places"]), (&json!("operator"), &json!([PLAIN])));
    assert_eq!(first["options"]["asked"], "ro,fsname=shown");
    assert!(first["options"]["flags"].as_array().unwrap().contains(&json!("nodev")), "{first}");
    assert!(first["since"].as_str().unwrap().ends_with('Z'), "{first}");

    test.node.sh_ok(&format!("{NODE_BIN}/hostmount swap {PLAIN}"));
    mounter.wait_for(events::DRAINED, 1);
    test.node.sh_ok("kill -9 $(pidof bindfs)");
    mounter.wait_for(events::HEALED, 1);
    let counts = |status: &Value| ["heals", "swaps", "hangs"].map(|name| status[name].as_u64().unwrap());
    let second = status();
    assert_eq!((counts(&second), &second["since"]), ([1, 1, 0], &first["since"]));
    assert_ne!(second["process"]["pid"], json!(pid));
    mounter.signal(Signal::SIGKILL);
    mounter.wait();
    let _mounter = test.start_mounter(&[], &[]);
    let third = status();
    assert_eq!((counts(&third), &third["origin"]), ([1, 1, 0], &json!("operator")), "the next mounter knows it");
    let words = test.node.sh_ok(&format!("{NODE_BIN}/hostmount status {PLAIN}"));
    for line in
        ["\nAsked by    operator\n", "\nSo far      1 heal, 1 swap, 0 hangs\n", "\nShows at    /var/lib/kubelet"]
    {
        assert!(words.contains(line), "{words}");
    }
}

fn top_shows_what_helpers_use() {
    let (test, _mounter) = start();
    test.node.sh_ok("mkdir /mnt/idle");
    for target in [PLAIN, "/mnt/idle"] {
        test.mount(&["-t", "fuse.bindfs", "/tmp/source", target]).ok("mount");
    }
    let top = |arguments: &str| test.node.sh_ok(&format!("{NODE_BIN}/hostmount top {arguments}"));
    let cells = |text: &str, target: &str| -> Vec<String> {
        let line = text.lines().rfind(|line| line.ends_with(target)).unwrap_or_else(|| panic!("{text}"));
        line.split_whitespace().map(str::to_owned).collect()
    };
    let first = top("--once");
    assert!(first.lines().next().unwrap().contains(", 2 volumes; memory "), "{first}");
    let [_, _, fstype, source, state, _, memory, share, _, waiting, _] = cells(&first, PLAIN).try_into().unwrap();
    assert_eq!([fstype, source, state, share, waiting], ["fuse.bindfs", "/tmp/source", "mounted", "-", "0"]);
    assert!(memory.ends_with("Mi") || memory.ends_with("Ki"), "{first}");
    // One works until its processor time shows, which is counted in hundredths of a second.
    let time = |text: &str, target: &str| cells(text, target)[8].replace([':', '.'], "").parse::<u64>().unwrap();
    while time(&top("--once"), PLAIN) < 5 {
        test.node
            .sh_ok(&format!("for n in $(seq 300); do echo $n >{PLAIN}/written; cat {PLAIN}/written >/dev/null; done"));
    }
    assert!(time(&top("--once"), "/mnt/idle") < time(&top("--once"), PLAIN));
    let by_time = top("--once --sort time");
    assert!(by_time.lines().nth(2).unwrap().ends_with(PLAIN), "{by_time}");
    // From the second round on there is a share; it ends when its reader has gone.
    let rounds = test.node.sh_ok(&format!("{NODE_BIN}/hostmount top --interval 1 | head -9"));
    assert!(cells(&rounds, PLAIN)[7].ends_with('%'), "{rounds}");
    assert!(!rounds.contains('\u{1b}'), "{rounds}");
    // Of one that stands still a request waits.
    test.node.sh_ok(&format!("kill -STOP $(pidof bindfs); (stat {PLAIN}/new >/dev/null 2>&1 &)"));
    while cells(&top("--once"), PLAIN)[9] != "1" {
        std::thread::yield_now();
    }
    test.node.sh_ok("kill -CONT $(pidof bindfs)");
}

/// What is read for it is counted: with a mount table for each volume it would be the square of their number.
fn a_list_reads_one_mount_table() {
    let (test, mounter) = start();
    let volumes = 60;
    test.node.sh_ok(&format!(
        "cd /var/lib/kubelet/pods; for n in $(seq {volumes}); do mkdir -p p$n/volumes/v &&
         {NODE_BIN}/hostmount mount -t fuse.bindfs /tmp/source $PWD/p$n/volumes/v || exit 1; done"
    ));
    let pid = mounter.pid();
    let read = || {
        let text = test.node.sh_ok(&format!("cat /proc/{pid}/io"));
        text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse::<usize>().unwrap()
    };
    let table = test.node.sh_ok("cat /proc/1/mountinfo").len();
    let before = read();
    let list = show(&test, "list");
    let bytes = read() - before;
    assert_eq!(list.as_array().unwrap().len(), volumes);
    // Beside it small numbers: how many requests wait, and the memory of each helper.
    assert!(bytes < table + volumes * 100 + 4096, "{bytes} bytes are read for a list, the table has {table}");
}
