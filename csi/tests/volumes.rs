//! A volume's way through the node service.

use crate::driver::{Driver, Volume, fails, strings};
use crate::harness::{Test, tests};
use crate::node::NODE_BIN;
use crate::node::mapped_container::MappedContainer;
use api::pod::PodName;
use api::volume::VolumeView;
use hostmount::observe::events;
use hostmount_csi::csi::volume_capability::MountVolume;
use hostmount_csi::csi::volume_capability::access_mode::Mode;
use hostmount_csi::csi::volume_usage::Unit;
use hostmount_csi::csi::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest};
use tonic::Code;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        staged_once_and_shown_in_each_pod.needs(&["bindfs"]).quick(),
        each_pod_has_a_helper.needs(&["bindfs"]).quick(),
        in_the_pods_own_specification.needs(&["bindfs"]).quick(),
        one_pod_alone.needs(&["bindfs"]).quick(),
        for_pods_with_a_user_namespace.needs(&["bindfs", "crun", "busybox"]).needs_linux(6, 12),
        what_kubelet_says_reaches_the_helper.quick(),
        a_group_that_the_type_has_no_option_for.quick(),
        beside_volumes_of_flexvolume.needs(&["bindfs"]).quick(),
        a_volume_that_hangs_or_is_dead_says_so_and_nobody_waits,
        a_republish_does_nothing_whatever_happens.needs(&["bindfs"]),
    ]
}

fn read_only(volume: &Volume, pod: &str) -> NodePublishVolumeRequest {
    NodePublishVolumeRequest { readonly: true, ..volume.to_publish(pod) }
}

fn staged_once_and_shown_in_each_pod() {
    let driver = Driver::start();
    let (node, volume) = (&driver.test.node, Volume::bindfs("v"));
    fails(driver.publish(&volume, "p"), Code::FailedPrecondition, "the volume is not staged");
    // Every call may come twice.
    for _ in 0..2 {
        driver.stage(&volume).unwrap();
        driver.publish(&volume, "p").unwrap();
        driver.publish_as(read_only(&volume, "q")).unwrap();
    }
    assert_eq!(driver.test.pids_of("bindfs").len(), 1);
    node.sh_ok(&format!("echo x >{}/x && cat {}/x", volume.target("p"), volume.target("q")));
    let refused = node.sh(&format!("echo y >{}/y", volume.target("q")));
    assert!(refused.stderr.contains("Read-only file system"), "{}", refused.stderr);
    fails(driver.publish(&volume, "q"), Code::AlreadyExists, "already, and read-only");
    fails(driver.publish_as(read_only(&volume, "p")), Code::AlreadyExists, "already, and not read-only");

    // Kubelet says which pod it is for.
    let mut named = volume.to_publish("r");
    named
        .volume_context
        .extend(strings(&[("csi.storage.k8s.io/pod.name", "web-0"), ("csi.storage.k8s.io/pod.namespace", "shop")]));
    driver.publish_as(named).unwrap();
    let [VolumeView { pods, .. }] = &driver.list()[..] else { panic!("{:?}", driver.list()) };
    let pods: Vec<_> = pods.iter().map(|pod| (&*pod.uid, pod.name.as_ref().map(PodName::path))).collect();
    assert_eq!(pods, [("p", None), ("q", None), ("r", Some("shop/web-0".to_owned()))]);
    driver.unpublish(&volume, "r").unwrap();

    let stats = driver.stats(&volume, "q").unwrap();
    assert!(!stats.volume_condition.unwrap().abnormal);
    let bytes = stats.usage.iter().find(|usage| usage.unit() == Unit::Bytes).unwrap();
    assert!(bytes.total > 0 && bytes.available <= bytes.total, "{bytes:?}");

    for _ in 0..2 {
        driver.unpublish(&volume, "p").unwrap();
    }
    assert_ne!(node.sh(&format!("test -e {}", volume.target("p"))).code, Some(0), "its target is removed");
    node.sh_ok(&format!("cat {}/f", volume.target("q")));
    fails(driver.stats(&volume, "p"), Code::NotFound, "no volume is mounted");
    driver.unpublish(&volume, "q").unwrap();
    for _ in 0..2 {
        driver.unstage(&volume).unwrap();
    }
    node.sh_ok(&format!("rmdir {}", volume.staged()));
    driver.wait_until_nothing_is_left("bindfs");
    // What happened to the volume that it shared happened to the pod, too, which is gone.
    let happened = node.sh_ok(&format!("{NODE_BIN}/hostmount events --pod shop/web-0"));
    let mut words: Vec<_> = happened.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    // Its helper's end and the answer to the last request come in any order.
    words.sort_unstable();
    assert_eq!(words, ["mounted", "shown", "taken-away", "taken-away", "unmounted"], "{happened}");
}

fn each_pod_has_a_helper() {
    let driver = Driver::start();
    let volume = Volume::of("v", &[("type", "bindfs"), ("source", "/srv/source"), ("mode", "pod")]);
    driver.stage(&volume).unwrap();
    assert_eq!(driver.test.node.fuse_mounts(), [""; 0]);
    for pod in ["p", "q", "p"] {
        driver.publish(&volume, pod).unwrap();
    }
    assert_eq!(driver.test.pids_of("bindfs").len(), 2);
    fails(driver.publish_as(read_only(&volume, "p")), Code::AlreadyExists, "with other options");
    for pod in ["p", "q", "q"] {
        driver.unpublish(&volume, pod).unwrap();
    }
    driver.unstage(&volume).unwrap();
    driver.wait_until_nothing_is_left("bindfs");
}

fn in_the_pods_own_specification() {
    let driver = Driver::start();
    let volume = Volume::bindfs("v").ephemeral();
    for _ in 0..2 {
        driver.publish_as(read_only(&volume, "p")).unwrap();
    }
    let refused = driver.test.node.sh(&format!("cat {0}/f && echo y >{0}/y", volume.target("p")));
    assert!(refused.stderr.contains("Read-only file system") && refused.stdout == "content\n", "{refused:?}");
    assert_eq!(driver.test.pids_of("bindfs").len(), 1);
    driver.unpublish(&volume, "p").unwrap();
    driver.wait_until_nothing_is_left("bindfs");
    // What its author has not said is an error.
    fails(driver.publish(&Volume::of("w", &[("type", "x")]).ephemeral(), "p"), Code::InvalidArgument, "'source'");
}

fn one_pod_alone() {
    let driver = Driver::start();
    let volume = Volume { mode: Mode::SingleNodeSingleWriter, ..Volume::bindfs("v") };
    driver.stage(&volume).unwrap();
    driver.publish(&volume, "p").unwrap();
    driver.publish(&volume, "p").unwrap();
    fails(driver.publish(&volume, "q"), Code::FailedPrecondition, "at one place alone");
    driver.unpublish(&volume, "p").unwrap();
    driver.publish(&volume, "q").unwrap();
    driver.unpublish(&volume, "q").unwrap();
    driver.unstage(&volume).unwrap();
    driver.wait_until_nothing_is_left("bindfs");
}

fn for_pods_with_a_user_namespace() {
    let driver = Driver::start();
    let node = &driver.test.node;
    let of = |more: &[(&str, &str)]| {
        let all = [("type", "bindfs"), ("source", "/srv/source"), ("hostUsers", "false")];
        Volume::of("v", &all.iter().chain(more).copied().collect::<Vec<_>>())
    };
    let volumes = [of(&[]), of(&[("mode", "pod")]), of(&[]).ephemeral()];
    let expected = driver.test.container.sh_ok("cat /srv/source/f");
    for (volume, staged) in volumes.iter().zip([true, true, false]) {
        for _ in 0..2 {
            if staged {
                driver.stage(volume).unwrap();
            }
            driver.publish(volume, "p").unwrap();
        }
        let target = volume.target("p");
        assert!(node.mount_at(&target).unwrap().contains(" fuse.placeholder "));
        let container = MappedContainer::start(&driver.test, &[(&target, "/data")], "/");
        assert_eq!(container.sh("cat /data/f"), expected);
        // Kubelet asks again while the pod runs.
        driver.publish(volume, "p").unwrap();
        let stats = driver.stats(volume, "p").unwrap();
        assert!(!stats.volume_condition.unwrap().abnormal);
        assert!(stats.usage.iter().any(|usage| usage.unit() == Unit::Bytes && usage.total > 0));
        drop(container);
        driver.unpublish(volume, "p").unwrap();
        if staged {
            driver.unstage(volume).unwrap();
        }
        driver.wait_until_nothing_is_left("bindfs");
        driver.test.wait_for_processes("serve-placeholder", 0);
    }
}

fn what_kubelet_says_reaches_the_helper() {
    let driver =
        Driver::with_config("[filesystem.s3fs.files.passwd]\ncontent = \"{secret:key}\"\noption = \"passwd_file\"");
    let recorder = "printf '%s\\n' \"$@\" >&2\nexec /usr/sbin/mount.memfs \"$1\" \"$2\"";
    driver.test.container.helper("s3fs", recorder);
    let volume = Volume {
        mount: MountVolume {
            fs_type: "ext4".into(),
            mount_flags: vec!["umask=007".into(), "context=\"system_u:object_r:t:s0:c1,c2\"".into()],
            volume_mount_group: "2000".into(),
        },
        secrets: strings(&[("key", "hunter2"), ("csi.storage.k8s.io/serviceAccount.tokens", "t0ken")]),
        ..Volume::of("v", &[("type", "s3fs"), ("source", "bucket"), ("options", "url=https://s3")])
    };
    driver.stage(&volume).unwrap();
    driver.publish(&volume, "p").unwrap();
    let said = driver.mounter().said();
    for word in ["bucket", "url=https://s3", "umask=007", "gid=2000", "passwd_file="] {
        assert!(said.contains(word), "{word} is not in {said}");
    }
    assert!(said.contains("c1,c2"), "{said}");
    for secret in ["hunter2", "t0ken"] {
        assert!(!said.contains(secret) && !driver.csi.as_ref().unwrap().said().contains(secret), "{secret} is logged");
    }
    // Whoever may only read has it mounted so.
    let reader = Volume { id: "r".into(), mode: Mode::MultiNodeReaderOnly, ..Volume::bindfs("r") };
    driver.stage(&reader).unwrap();
    assert!(driver.test.node.mount_at(&reader.staged()).unwrap().contains(" ro,"));
    driver.publish(&reader, "p").unwrap();
}

/// Some clusters give a group to every pod.
fn a_group_that_the_type_has_no_option_for() {
    let driver = Driver::start();
    driver.test.container.helper("recorder", "printf '%s\\n' \"$@\" >&2\nexec /usr/sbin/mount.memfs \"$1\" \"$2\"");
    let mount = MountVolume { volume_mount_group: "2000".into(), ..MountVolume::default() };
    let of = |id: &str| Volume { mount: mount.clone(), ..Volume::of(id, &[("type", "recorder"), ("source", "x")]) };
    driver.stage(&of("v")).unwrap();
    driver.publish(&of("v"), "p").unwrap();
    driver.publish(&of("w").ephemeral(), "q").unwrap();
    driver.test.node.sh_ok(&format!("touch {}/f", of("v").target("p")));
    let said = driver.mounter().said();
    assert!(said.contains("/globalmount") && !said.contains("2000"), "{said}");
}

/// On the way from FlexVolume to CSI a node has both, of the same source too, and neither touches the other's.
fn beside_volumes_of_flexvolume() {
    let driver = Driver::with_config("[policy.flexvolume.filesystem.bindfs]\nsources = ['/srv/**']");
    let (node, volume) = (&driver.test.node, Volume::bindfs("v"));
    let flex = "/var/lib/kubelet/pods/f/volumes/hostmount~fuse/v";
    let options = r#"{"fstype": "fuse.bindfs", "source": "/srv/source", "kubernetes.io/readwrite": "rw"}"#;
    node.sh_ok(&format!("mkdir -p {flex} && {NODE_BIN}/hostmount flexvolume mount {flex} '{options}'"));
    driver.stage(&volume).unwrap();
    driver.publish(&volume, "p").unwrap();
    let target = volume.target("p");
    node.sh_ok(&format!("echo x >{flex}/x && cat {target}/x && echo y >{target}/y && cat {flex}/y"));
    node.sh_ok(&format!("{NODE_BIN}/hostmount swap --all && cat {flex}/y {target}/x"));
    // The driver's door knows nothing of the other.
    let foreign = NodeUnpublishVolumeRequest { volume_id: "v".into(), target_path: flex.into() };
    let refused = driver.node(|mut node| async move { node.node_unpublish_volume(foreign).await });
    fails(refused, Code::PermissionDenied, "CSI volumes");
    driver.unpublish(&volume, "p").unwrap();
    driver.unstage(&volume).unwrap();
    node.sh_ok(&format!("cat {flex}/y"));
    driver.publish(&volume.clone().ephemeral(), "q").unwrap();
    node.sh_ok(&format!("{NODE_BIN}/hostmount flexvolume unmount {flex} && cat {}/x", volume.target("q")));
    driver.unpublish(&volume, "q").unwrap();
    driver.wait_until_nothing_is_left("bindfs");
}

fn a_volume_that_hangs_or_is_dead_says_so_and_nobody_waits() {
    let driver = Driver::with_config("hang_seconds = 1\n[filesystem.memfs]\nheal = false");
    let volume = Volume::of("v", &[("type", "memfs"), ("source", "x")]);
    driver.stage(&volume).unwrap();
    driver.publish(&volume, "p").unwrap();
    assert!(!driver.stats(&volume, "p").unwrap().usage.is_empty());
    let [helper] = driver.test.pids_of("memfs")[..] else { panic!("one helper") };
    driver.test.node.sh_ok(&format!("kill -STOP {helper}"));
    let user = driver.test.node.spawn({
        let mut command = testbed::machine::Room::command("ls");
        command.arg(format!("{}/asked", volume.target("p"))).stderr(std::process::Stdio::null());
        command
    });
    driver.mounter().wait_for(events::HUNG, 1);
    for _ in 0..50 {
        let stats = driver.stats(&volume, "p").unwrap();
        let condition = stats.volume_condition.unwrap();
        assert!(condition.abnormal && condition.message.contains("does not answer"), "{condition:?}");
        assert!(!stats.usage.is_empty(), "what it said before it hung");
    }
    // Such a volume goes as any other does.
    driver.publish(&volume, "q").unwrap();
    driver.test.node.sh_ok(&format!("kill -KILL {helper}"));
    driver.mounter().wait_for(events::DEAD, 1);
    drop(user);
    let condition = driver.stats(&volume, "q").unwrap().volume_condition.unwrap();
    assert!(condition.abnormal && condition.message.contains("the helper has ended"), "{condition:?}");
    driver.publish(&volume, "q").unwrap();
    for pod in ["p", "q"] {
        driver.unpublish(&volume, pod).unwrap();
    }
    driver.unstage(&volume).unwrap();
    driver.wait_until_nothing_is_left("memfs");
}

/// Kubelet repeats it for new tokens, and an error would cost the pod its directory.
fn a_republish_does_nothing_whatever_happens() {
    let mut driver = Driver::start();
    let volumes = [Volume::bindfs("v"), Volume::bindfs("w").ephemeral()];
    driver.stage(&volumes[0]).unwrap();
    volumes.iter().for_each(|volume| driver.publish(volume, "p").unwrap());
    let publish = |driver: &Driver| {
        for (volume, token) in volumes.iter().zip(["a", "b"]) {
            let mut again = volume.to_publish("p");
            again.volume_context.insert("csi.storage.k8s.io/serviceAccount.tokens".into(), token.into());
            driver.publish_as(again).unwrap();
        }
    };
    for round in 1..=5 {
        publish(&driver);
        // While both are healed, and before and after.
        for helper in driver.test.pids_of("bindfs") {
            driver.test.node.sh(&format!("kill -KILL {helper}"));
            publish(&driver);
        }
        while driver.mounter().count(events::HEALED) < 2 * round {
            publish(&driver);
        }
    }
    driver.start_mounter();
    publish(&driver);
    driver.start_csi();
    publish(&driver);
    assert_eq!(driver.mounter().count(events::MOUNTED), 0);
    assert_eq!(driver.test.node.fuse_mounts().len(), 3);
    volumes.iter().for_each(|volume| driver.unpublish(volume, "p").unwrap());
    driver.unstage(&volumes[0]).unwrap();
    driver.wait_until_nothing_is_left("bindfs");
}
