//! Volumes that are made for claims and deleted again: a directory in a filesystem that a StorageClass names.

use crate::driver::{CALLS, Driver, REGISTRATION, Volume, fails, strings};
use crate::harness::{Test, tests};
use hostmount::observe::events;
use hostmount_csi::csi::controller_client::ControllerClient;
use hostmount_csi::csi::volume_capability::{AccessType, BlockVolume};
use hostmount_csi::csi::{
    self, CapacityRange, CreateVolumeRequest, DeleteVolumeRequest, GetCapacityRequest,
    ValidateVolumeCapabilitiesRequest, VolumeContentSource,
};
use std::collections::HashMap;
use tonic::{Code, Status};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_claim_gets_a_directory_that_pods_of_many_uids_write.needs(&["bindfs"]).quick(),
        what_becomes_of_it_when_it_is_deleted.needs(&["bindfs"]).quick(),
        a_provisioners_secrets_reach_the_helper.quick(),
        a_controller_serves_at_its_own_socket_and_is_not_registered.needs(&["bindfs"]).quick(),
        the_specifications_errors_of_a_controller.needs(&["bindfs"]).quick(),
        made_and_deleted_again_and_again_while_all_is_killed.needs(&["bindfs"]).alone(),
    ]
}

/// What external-provisioner says of a claim `team/data`.
pub(crate) fn create(name: &str, class: &[(&str, &str)]) -> CreateVolumeRequest {
    let mut parameters = strings(&[("type", "bindfs"), ("source", "/srv/source")]);
    parameters.extend(strings(&[
        ("csi.storage.k8s.io/pvc/name", "data"),
        ("csi.storage.k8s.io/pvc/namespace", "team"),
        ("csi.storage.k8s.io/pv/name", name),
    ]));
    parameters.extend(strings(class));
    let capacity_range = Some(CapacityRange { required_bytes: 1 << 20, limit_bytes: 0 });
    let volume_capabilities = vec![Volume::bindfs("v").capability().unwrap()];
    CreateVolumeRequest { name: name.into(), capacity_range, volume_capabilities, parameters, ..Default::default() }
}

impl Driver {
    pub(crate) fn create(&self, request: CreateVolumeRequest) -> Result<csi::Volume, Status> {
        let made = self.controller(|mut controller| async move { controller.create_volume(request).await });
        made.map(|made| made.volume.unwrap())
    }

    pub(crate) fn delete(&self, volume_id: &str) -> Result<(), Status> {
        let request = DeleteVolumeRequest { volume_id: volume_id.into(), ..Default::default() };
        self.controller(|mut controller| async move { controller.delete_volume(request).await }).map(drop)
    }

    pub(crate) fn validate(
        &self,
        volume_id: &str,
        change: fn(&mut ValidateVolumeCapabilitiesRequest),
    ) -> Result<bool, Status> {
        let volume_capabilities = vec![Volume::bindfs("v").capability().unwrap()];
        let volume_id = volume_id.into();
        let mut request = ValidateVolumeCapabilitiesRequest { volume_id, volume_capabilities, ..Default::default() };
        change(&mut request);
        let answer =
            self.controller(|mut controller| async move { controller.validate_volume_capabilities(request).await })?;
        assert_ne!(answer.confirmed.is_some(), !answer.message.is_empty());
        Ok(answer.confirmed.is_some())
    }

    fn capacity(&self, parameters: HashMap<String, String>) -> Result<i64, Status> {
        let request = GetCapacityRequest { parameters, ..Default::default() };
        let answer = self.controller(|mut controller| async move { controller.get_capacity(request).await });
        answer.map(|answer| answer.available_capacity)
    }

    /// What the storage has.
    pub(crate) fn stored(&self) -> String {
        self.test.container.sh_ok("cd /srv/source && find . -mindepth 1 ! -name f | sort")
    }
}

/// As Kubernetes uses what was made.
fn used(made: &csi::Volume) -> Volume {
    let id = made.volume_id.replace(['/', '#', '%'], "_");
    Volume { context: made.volume_context.clone(), ..Volume::bindfs(&id) }
}

fn a_claim_gets_a_directory_that_pods_of_many_uids_write() {
    let driver =
        Driver::with_config("[filesystem.bindfs]\ncapabilities = ['CAP_CHOWN', 'CAP_FOWNER', 'CAP_DAC_OVERRIDE']");
    let class = [
        ("subDir", "${pvc.namespace}/${pvc.name}-${pv.name}"),
        ("directoryPerms", "0770"),
        ("uid", "3000"),
        ("gid", "4000"),
    ];
    let made = driver.create(create("pvc-1", &class)).unwrap();
    assert_eq!(driver.create(create("pvc-1", &class)).unwrap(), made, "every call may come twice");
    assert_eq!((made.capacity_bytes, driver.stored().as_str()), (1 << 20, "./team\n./team/data-pvc-1\n"));
    assert_eq!(driver.test.container.sh_ok("stat -c '%a %u %g' /srv/source/team/data-pvc-1"), "770 3000 4000\n");
    assert!(driver.validate(&made.volume_id, |_| {}).unwrap());
    driver.wait_until_nothing_is_left("bindfs");

    let volume = used(&made);
    driver.stage(&volume).unwrap();
    for (pod, uid) in [("p", 1001), ("q", 1002)] {
        driver.publish(&volume, pod).unwrap();
        let write = format!("setpriv --reuid {uid} --regid 4000 --clear-groups touch {}/by-{uid}", volume.target(pod));
        // Pods reach it by mounts of their own.
        driver.test.node.sh_ok(&format!("chmod a+x /var/lib/kubelet /var/lib/kubelet/pods; umask 002; {write}"));
    }
    assert_eq!(driver.test.node.sh_ok(&format!("ls {}", volume.target("p"))), "by-1001\nby-1002\n");
    driver.test.container.sh_ok("test -e /srv/source/team/data-pvc-1/by-1002");
    // A fresh helper shows the same directory.
    let helper = driver.test.pids_of("bindfs")[0];
    driver.test.node.sh_ok(&format!("kill -9 {helper}"));
    driver.mounter().wait_for(events::HEALED, 1);
    for pod in ["p", "q"] {
        assert_eq!(driver.test.node.sh_ok(&format!("ls {}", volume.target(pod))), "by-1001\nby-1002\n");
    }
    driver.stage(&volume).unwrap();
    ["p", "q"].iter().for_each(|pod| driver.unpublish(&volume, pod).unwrap());
    driver.unstage(&volume).unwrap();
    // Without a mode it is anybody's, and any uid may write.
    let open = driver.create(create("pvc-2", &[])).unwrap();
    assert_eq!(driver.test.container.sh_ok("stat -c %a /srv/source/pvc-2"), "777\n");
    for id in [&made.volume_id, &open.volume_id, &made.volume_id] {
        driver.delete(id).unwrap();
    }
    assert_eq!(driver.stored(), "./team\n");
    assert!(driver.capacity(strings(&[("type", "bindfs"), ("source", "/srv/source")])).unwrap() > 0);
    assert_eq!(driver.capacity(HashMap::new()).unwrap(), 0);
    driver.wait_until_nothing_is_left("bindfs");
}

fn what_becomes_of_it_when_it_is_deleted() {
    let driver = Driver::start();
    let storage = |lines: &str| driver.test.container.sh_ok(&format!("cd /srv/source && {lines}"));
    let retained = driver.create(create("a", &[("onDelete", "retain"), ("subDir", "all")])).unwrap();
    let other = driver.create(create("b", &[("onDelete", "retain"), ("subDir", "all")])).unwrap();
    assert_ne!(retained.volume_id, other.volume_id, "they are two volumes in one directory");
    let archived = driver.create(create("c", &[("onDelete", "archive"), ("subDir", "x/${pv.name}")])).unwrap();
    let deleted = driver.create(create("d", &[])).unwrap();
    storage(
        "touch all/f x/c/f && mkdir -p d/one/two 'd/a b' && touch d/one/two/f && ln -s ../../all d/one/link && ln -s / d/root",
    );
    for made in [&retained, &archived, &deleted] {
        driver.delete(&made.volume_id).unwrap();
        driver.delete(&made.volume_id).unwrap();
    }
    assert_eq!(driver.stored(), "./all\n./x\n./x/archived-c\n");
    storage("test -e all/f && test -e x/archived-c/f && test -e f");
    // An archive is not replaced by another one.
    storage("mkdir x/c && touch x/c/later");
    fails(driver.delete(&archived.volume_id), Code::Internal, "cannot rename x/c");
    storage("test -e x/c/later && test -e x/archived-c/f");
    // What was never made by this driver is gone.
    driver.delete("bucket").unwrap();
    driver.wait_until_nothing_is_left("bindfs");
}

fn a_provisioners_secrets_reach_the_helper() {
    let driver = Driver::with_config("[filesystem.recorder.files.key]\ncontent = \"{secret:key}\"\noption = \"key\"");
    let lines = "echo \"$@\" >&2; sed 's/^/the key is /; s/hunter2/right/' /run/hostmount/files/key >&2\nexec /usr/sbin/mount.memfs \"$1\" \"$2\"";
    driver.test.container.helper("recorder", lines);
    let class = [("type", "recorder"), ("source", "x"), ("options", "url=y")];
    let request = || CreateVolumeRequest { secrets: strings(&[("key", "hunter2")]), ..create("pvc-1", &class) };
    let made = driver.create(request()).unwrap();
    driver.mounter().wait_for_helper("the key is right", 1);
    fails(driver.create(create("pvc-1", &class)), Code::InvalidArgument, "no secret 'key'");
    fails(driver.delete(&made.volume_id), Code::InvalidArgument, "no secret 'key'");
    let delete = DeleteVolumeRequest { volume_id: made.volume_id, secrets: strings(&[("key", "hunter2")]) };
    driver.controller(|mut controller| async move { controller.delete_volume(delete).await }).unwrap();
    driver.mounter().wait_for_helper("the key is right", 2);
    for said in [driver.csi.as_ref().unwrap().said(), driver.mounter().said()] {
        assert!(!said.contains("hunter2"), "{said}");
    }
    driver.wait_until_nothing_is_left("memfs");
}

fn a_controller_serves_at_its_own_socket_and_is_not_registered() {
    let mut driver = Driver::start();
    driver.csi = None;
    let socket = "/var/lib/kubelet/plugins/hostmount.csi/controller.sock";
    driver.test.node.sh_ok(&format!("rm {CALLS} {REGISTRATION}"));
    driver.start_csi_with(&["--endpoint", socket]);
    let request = create("pvc-1", &[]);
    let made =
        driver.call(socket, |channel| async move { ControllerClient::new(channel).create_volume(request).await });
    assert_eq!(made.unwrap().volume.unwrap().volume_context["subDir"], "pvc-1");
    assert_eq!(driver.stored(), "./pvc-1\n");
    assert_ne!(driver.test.node.sh(&format!("test -e {CALLS} || test -e {REGISTRATION}")).code, Some(0));
    // It takes calls of its own user, as external-provisioner's container is, and of root.
    assert_eq!(driver.test.node.sh_ok(&format!("stat -c '%a %u' {socket}")), "600 65532\n");
}

fn the_specifications_errors_of_a_controller() {
    let mut driver = Driver::start();
    let wrong = |change: fn(&mut CreateVolumeRequest), code: Code, words: &str| {
        let mut request = create("pvc-1", &[]);
        change(&mut request);
        fails(driver.create(request), code, words);
    };
    let bad = Code::InvalidArgument;
    wrong(|request| request.name.clear(), bad, "name is missing");
    wrong(|request| request.volume_capabilities.clear(), bad, "volume_capability is missing");
    wrong(|request| request.volume_capabilities[0].access_mode = None, bad, "no access mode");
    wrong(
        |request| request.volume_capabilities[0].access_type = Some(AccessType::Block(BlockVolume {})),
        bad,
        "no block devices",
    );
    wrong(|request| request.volume_content_source = Some(VolumeContentSource {}), bad, "cannot copy");
    wrong(
        |request| request.capacity_range = Some(CapacityRange { required_bytes: 2, limit_bytes: 1 }),
        Code::OutOfRange,
        "less than required_bytes",
    );
    wrong(|request| _ = request.parameters.remove("source"), bad, "'source' is missing");
    wrong(|request| _ = request.parameters.insert("server".into(), "x".into()), bad, "unknown parameter 'server'");
    wrong(|request| _ = request.parameters.insert("subDir".into(), "${pvc.name}".into()), bad, "${pv.name}");
    wrong(|request| _ = request.parameters.insert("options".into(), "=".into()), bad, "no name");
    wrong(|request| _ = request.parameters.insert("source".into(), "/etc".into()), Code::PermissionDenied, "policy");
    fails(driver.delete(""), bad, "volume_id is missing");
    fails(driver.validate("", |_| {}), bad, "volume_id is missing");
    fails(driver.validate("x", |request| request.volume_capabilities.clear()), bad, "volume_capability is missing");
    fails(driver.validate("none", |_| {}), Code::NotFound, "no such volume");
    fails(driver.validate("1#bindfs#/srv/source#none#delete##", |_| {}), Code::NotFound, "no such volume");
    let made = driver.create(create("pvc-1", &[])).unwrap();
    let block = |request: &mut ValidateVolumeCapabilitiesRequest| {
        request.volume_capabilities[0].access_type = Some(AccessType::Block(BlockVolume {}));
    };
    assert!(!driver.validate(&made.volume_id, block).unwrap());
    driver.test.container.helper("nosuch", "echo 'the server has no such thing' >&2; exit 1");
    fails(driver.create(create("x", &[("type", "nosuch")])), Code::Internal, "the server has no such thing");
    driver.mounter = None;
    fails(driver.create(create("pvc-1", &[])), Code::Unavailable, "the mounter is not running");
    driver.start_mounter();
    driver.delete(&made.volume_id).unwrap();
    driver.wait_until_nothing_is_left("bindfs");
}

/// Four provisioners, while the mounter, the driver and helpers are killed: each is told the truth, and in the end there is what
/// they have made and not deleted.
fn made_and_deleted_again_and_again_while_all_is_killed() {
    let driver = &mut Driver::start();
    for round in 0..6 {
        std::thread::scope(|scope| {
            for provisioner in 0..4 {
                let driver = &*driver;
                scope.spawn(move || {
                    for number in 0..3 {
                        let name = format!("pvc-{provisioner}-{number}");
                        let Ok(made) = driver.create(create(&name, &[])) else { continue };
                        let _ = driver.create(create(&name, &[]));
                        if number > 0 {
                            let _ = driver.delete(&made.volume_id);
                        }
                    }
                });
            }
            driver.test.node.sh("pkill -9 bindfs");
        });
        if round % 2 == 0 {
            driver.start_mounter();
        }
        driver.start_csi();
    }
    for (provisioner, number) in (0..4).flat_map(|provisioner| (0..3).map(move |number| (provisioner, number))) {
        let made = driver.create(create(&format!("pvc-{provisioner}-{number}"), &[])).unwrap();
        if number > 0 {
            driver.delete(&made.volume_id).unwrap();
        }
    }
    assert_eq!(driver.stored(), "./pvc-0-0\n./pvc-1-0\n./pvc-2-0\n./pvc-3-0\n");
    driver.wait_until_nothing_is_left("bindfs");
}
