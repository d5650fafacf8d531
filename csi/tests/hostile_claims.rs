//! Claims whose storage, whose names or whose ids are hostile: no name leads out of the class's parent, and a storage that never answers
//! keeps nothing.

use crate::controller::create;
use crate::driver::{Driver, Volume, fails};
use crate::harness::{Test, tests};
use crate::node::fault::hostile;
use hostmount_csi::csi::controller_client::ControllerClient;
use hostmount_csi::csi::{CreateVolumeRequest, DeleteVolumeRequest};
use hostmount_csi::volume_id::VolumeId;
use nix::sys::signal::Signal;
use std::future::Future;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        no_name_leads_out_of_the_parent.needs(&["bindfs"]).quick(),
        a_storage_that_never_answers_keeps_no_call_and_no_helper.needs(&["perl"]),
        a_controllers_call_that_is_given_up_leaves_nothing.needs(&["perl"]),
    ]
}

impl Driver {
    /// Makes a call and gives it up when its helper has started `sleep infinity`; `first` comes before that.
    fn give_up<T, F>(&self, first: impl FnOnce(), call: impl FnOnce(ControllerClient<Channel>) -> F)
    where
        T: std::fmt::Debug,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let said = async {
            while !self.test.node.processes().values().any(|line| line.contains("sleep infinity")) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            first();
        };
        self.controller(|controller| async {
            tokio::select! {
                done = call(controller) => panic!("{done:?}"),
                () = said => Ok(Response::new(())),
            }
        })
        .unwrap();
    }
}

fn no_name_leads_out_of_the_parent() {
    let driver = Driver::start();
    let storage = |lines: &str| driver.test.container.sh_ok(&format!("cd /srv && {lines}"));
    storage(
        "mkdir -p other/team source/real && touch other/team/precious && ln -s ../other/team source/team && ln -s real source/in",
    );
    storage("chmod -R a+rwX . && ln -s / source/root && ln -s ../other source/pvc-9");
    let before = storage("find . | sort");
    // A client of the storage has made a link of the directory above, or of the volume's own.
    let below = |directory: &str| [("subDir", directory.to_owned())];
    for directory in ["team/${pv.name}", "root/srv/other/${pv.name}", "in/${pv.name}"] {
        let class = below(directory);
        let refused = driver.create(create("pvc-1", &[(class[0].0, &class[0].1)]));
        fails(refused, Code::Internal, "in the filesystem");
    }
    fails(driver.create(create("pvc-9", &[])), Code::Internal, "cannot make pvc-9");
    // The names of a request are names.
    for name in ["..", ".", "a/b", "../other", "a,suid", "a\0"] {
        fails(driver.create(create(name, &[])), Code::InvalidArgument, "no name of a directory");
    }
    for (key, value) in [("csi.storage.k8s.io/pvc/name", ".."), ("csi.storage.k8s.io/pvc/namespace", "../other")] {
        let class = [(key, value), ("subDir", "${pvc.namespace}/${pvc.name}/${pv.name}")];
        fails(driver.create(create("pvc-1", &class)), Code::InvalidArgument, "no name of a directory");
    }
    // An id may be anybody's.
    let id = |directory: &str| format!("1#bindfs#/srv/source#{directory}#delete##");
    for forged in ["..", "../other", "real/../../other", "/srv/other", "", ".", "%2E%2E/other", "team/../../other"] {
        driver.delete(&id(forged)).unwrap();
        fails(driver.validate(&id(forged), |_| {}), Code::NotFound, "no such volume");
    }
    for linked in ["team/precious", "root/srv/other/team", "pvc-9/team", "team", "root"] {
        fails(driver.delete(&id(linked)), Code::Internal, "cannot open");
    }
    for archived in ["../other#archive##", "team/x#archive##"] {
        let forged = format!("1#bindfs#/srv/source#{archived}");
        let _ = driver.delete(&forged);
    }
    // What policy does not open to whoever writes volumes is not opened by an id.
    for refused in
        ["1#bindfs#/etc#x#delete##", "1#s3fs#b#x#delete#passwd_file=/etc/shadow#", "1#gocryptfs#/srv#x#delete##"]
    {
        assert!(VolumeId::read(refused).is_some());
        fails(driver.delete(refused), Code::PermissionDenied, "policy");
    }
    // Nor is a volume's directory a link on the node.
    for linked in ["team", "root/etc", "in"] {
        let volume = Volume::of("v", &[("type", "bindfs"), ("source", "/srv/source"), ("subDir", linked)]);
        fails(driver.stage(&volume), Code::Internal, "X-mount.subdir");
    }
    assert_eq!(storage("find . | sort"), before);
    driver.wait_until_nothing_is_left("bindfs");
}

fn fault(name: &str) -> CreateVolumeRequest {
    create(name, &[("type", "fuse.fault"), ("source", "x"), ("subDir", "sub/${pv.name}")])
}

/// Lookups, making, opening, reading and removing directories, renaming.
const UNANSWERED: [(&str, &str); 4] = [
    ("the name is never looked up", "$op == 1 && $name ne 'sub'"),
    ("nothing is ever made", "$op == 9"),
    ("no directory is ever opened", "$op == 27"),
    ("nothing is ever removed", "$op == 10 || $op == 11 || $op == 12 || $op == 45 || $op == 28"),
];

fn a_storage_that_never_answers_keeps_no_call_and_no_helper() {
    let mut driver = Driver::start();
    driver.start_csi_with(&["--mount-timeout", "3"]);
    for (what, unanswered) in UNANSWERED {
        driver.test.container.helper("fuse.fault", &hostile(unanswered, "exit 0;"));
        let made = driver.create(fault("pvc-1")).map(drop);
        let ended = ["delete", "archive"].map(|on_delete| driver.delete(&format!("1#fuse.fault#x#sub#{on_delete}##")));
        let codes = [made].into_iter().chain(ended).map(|done| done.unwrap_err().code());
        let codes: Vec<_> = codes.collect();
        assert!(codes.contains(&Code::Unavailable), "{what}: {codes:?}");
        driver.test.wait_for_processes("perl", 0);
        assert_eq!(driver.test.node.fuse_mounts(), [""; 0]);
    }
    assert!(driver.ready());
}

fn a_controllers_call_that_is_given_up_leaves_nothing() {
    let driver = Driver::start();
    let before = driver.test.node.mountinfo();
    let ended = || {
        ["sleep infinity", "perl"].iter().for_each(|word| driver.test.wait_for_processes(word, 0));
        assert_eq!(driver.test.node.mountinfo(), before);
    };
    // It says so when it is asked, and does not answer.
    let silent = |asked: &str| hostile(&format!("({asked}) && (fork || exec 'sleep', 'infinity')"), "exit 0;");
    // Before the filesystem is up, and while it is worked in.
    driver.test.container.helper("fuse.fault", "exec sleep infinity");
    driver.give_up(|| (), |mut controller| async move { controller.create_volume(fault("pvc-1")).await });
    ended();
    driver.test.container.helper("fuse.fault", &silent("$op == 9"));
    driver.give_up(|| (), |mut controller| async move { controller.create_volume(fault("pvc-2")).await });
    ended();
    driver.test.container.helper("fuse.fault", &silent("$op == 28"));
    let volume_id = "1#fuse.fault#x#sub#delete##".to_owned();
    let request = DeleteVolumeRequest { volume_id, ..Default::default() };
    driver.give_up(|| (), |mut controller| async move { controller.delete_volume(request).await });
    ended();
    // What a mounter that is killed leaves behind the next one ends.
    driver.test.container.helper("fuse.fault", &silent("$op == 9"));
    let kill = || driver.mounter().signal(Signal::SIGKILL);
    driver.give_up(kill, |mut controller| async move { controller.create_volume(fault("pvc-3")).await });
    let mut driver = driver;
    driver.start_mounter();
    driver.test.wait_for_processes("sleep infinity", 0);
    driver.wait_until_nothing_is_left("perl");
}
