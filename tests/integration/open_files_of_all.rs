//! A file that is open for reading when the helper dies, with every filesystem of `node::filesystems` and its real server: it is read on, and
//! what is read is right, or it fails as it did; the list says which.
//!
//! Each prints a row of docs/open-files.md: `cargo test open_files_of_all:: -- --nocapture | grep '^|'`.

use crate::harness::Test;
use crate::node::filesystems::{self, Access, Filesystem};
use crate::node::job::TARGET;
use crate::node::notes::note;
use crate::node::open_files::User;
use crate::node::{NODE_BIN, TestNode};
use hostmount::observe::events;
use testbed::machine::{Network, Propagation};

/// Nothing says that it is the same file.
const OTHERWISE: &str = "the next helper says otherwise of the file: it has another number, or another time";

/// Those whose files are not certain, and why.
const NOT: &[(&str, &str)] = &[
    ("rclone_webdav", OTHERWISE),
    ("rclone_webdav_in_the_foreground", OTHERWISE),
    ("rclone_s3", OTHERWISE),
    ("rclone_s3_in_the_foreground", OTHERWISE),
    ("archivemount", OTHERWISE),
    ("davfs2", OTHERWISE),
    ("ofs", OTHERWISE),
    ("fuse_zip", "what was written is in the archive when it is unmounted, and lost with a helper that is killed"),
];

pub(crate) fn tests() -> Vec<Test> {
    let row = |filesystem: &'static Filesystem| {
        let test = Test::new(filesystem.name, || read_on(filesystem)).needs(filesystem.programs);
        test.needs(&["make", "python3"]).needs_linux(6, 9)
    };
    // A cryfs that follows one that was killed takes longer to come up than any test waits.
    filesystems::all().filter(|filesystem| filesystem.name != "cryfs").map(row).collect()
}

fn read_on(filesystem: &Filesystem) {
    let test = TestNode::start_in(&Network::new().unwrap());
    test.configure(&format!("hold_seconds = 60\n{}", filesystem.config));
    let volume = (filesystem.prepare)(&test);
    test.node.sh_ok(&format!("mkdir -p {TARGET} && echo {} >{NODE_BIN}/served-types", volume.fstype));
    let mounter = test.start_mounter(&[], &[]);
    let before = test.processes();
    test.mount(&["-t", volume.fstype, "-o", &volume.options, &volume.source, TARGET]).ok("mount");
    if filesystem.access == Access::Full {
        // Not so young that a time in whole seconds says nothing.
        // rclone has no way to set a time without its cache.
        test.node
            .sh_ok(&format!("seq 20000 >{TARGET}/f && {{ touch -d '1 hour ago' {TARGET}/f; chmod 644 {TARGET}/f; }}"));
    }
    let pod = test.pod(&[(TARGET, "/data")], Propagation::None);
    let mut user = User::start(&pod);
    user.ok("open f /data/f O_RDONLY");
    let content = user.ok("content f");
    let killed: Vec<_> = test
        .processes()
        .into_iter()
        .filter(|(pid, line)| !before.contains_key(pid) && line.contains(filesystem.helper))
        .map(|(pid, _)| pid.to_string())
        .collect();
    test.node.sh_ok(&format!("kill -9 {}", killed.join(" ")));
    mounter.wait_for(events::HEALED, 1);
    let said = user.does("content f");
    let why = NOT.iter().find_map(|(name, why)| (*name == filesystem.name).then_some(*why));
    note(format!("| {} | {said} | {} |", filesystem.name, why.unwrap_or_default()));
    match why {
        None => assert_eq!(said, format!("ok {content}")),
        Some(_) => assert!(["Transport endpoint is not connected", "Stale file handle"].contains(&&*said), "{said}"),
    }
}
