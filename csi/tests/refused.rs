//! What the specification wants to be refused, and with which code; and what has come of nothing.

use crate::driver::{Driver, Volume, fails};
use crate::harness::{Test, tests};
use crate::node::failures::make_addresses;
use hostmount_csi::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use hostmount_csi::csi::{
    NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest, VolumeCapability,
};
use std::time::Duration;
use tonic::Code;
use tonic::Code::{AlreadyExists, FailedPrecondition, InvalidArgument, NotFound};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        the_specifications_errors.needs(&["bindfs"]).quick(),
        a_helpers_own_words_are_in_the_error.quick(),
        the_cause_comes_first.needs(&["sshfs", "mount.glusterfs", "ip"]),
        a_call_that_is_given_up_leaves_nothing.quick(),
        a_mount_that_takes_too_long_says_what_the_helper_said.quick(),
        the_mounter_is_away_and_back.needs(&["bindfs"]).quick(),
    ]
}

fn the_specifications_errors() {
    let driver = Driver::start();
    let volume = Volume::bindfs("v");
    driver.stage(&volume).unwrap();
    driver.publish(&volume, "p").unwrap();
    driver.test.node.sh_ok(&format!("mkdir -p {}", Volume::bindfs("other").staged()));
    let before = driver.test.node.mountinfo();

    let stage = |change: fn(&mut NodeStageVolumeRequest), code: Code, words: &str| {
        let mut request = Volume::bindfs("other").to_stage();
        change(&mut request);
        fails(driver.node(|mut node| async move { node.node_stage_volume(request).await }), code, words);
    };
    stage(|request| request.volume_id.clear(), InvalidArgument, "volume_id is missing");
    stage(|request| request.staging_target_path.clear(), InvalidArgument, "staging_target_path is missing");
    stage(|request| request.volume_capability = None, InvalidArgument, "volume_capability is missing");
    stage(|request| request.staging_target_path = "/etc".into(), InvalidArgument, "below /var/lib/kubelet");
    stage(|request| request.staging_target_path.push_str("/../../x"), InvalidArgument, "without '..'");
    stage(|request| request.staging_target_path = "/var/lib/kubelet/x".into(), Code::PermissionDenied, "CSI volumes");
    stage(|request| _ = request.volume_context.remove("type"), InvalidArgument, "'type' is missing");
    stage(
        |request| _ = request.volume_context.insert("server".into(), "h".into()),
        InvalidArgument,
        "attribute 'server'",
    );
    stage(
        |request| _ = request.volume_context.insert("type".into(), "nosuch".into()),
        Code::Internal,
        "unknown filesystem",
    );
    stage(
        |request| _ = request.volume_context.insert("options".into(), "suid".into()),
        Code::PermissionDenied,
        "'suid'",
    );
    stage(
        |request| {
            let access_type = Some(AccessType::Block(BlockVolume {}));
            let access_mode = Some(AccessMode { mode: 1 });
            request.volume_capability = Some(VolumeCapability { access_mode, access_type });
        },
        InvalidArgument,
        "no block devices",
    );
    stage(
        |request| {
            let access_type = Some(AccessType::Mount(MountVolume::default()));
            request.volume_capability = Some(VolumeCapability { access_mode: None, access_type });
        },
        InvalidArgument,
        "no access mode",
    );
    // The same place, another volume.
    stage(
        |request| {
            request.staging_target_path = Volume::bindfs("v").staged();
            request.volume_context.insert("source".into(), "/srv/other".into());
        },
        AlreadyExists,
        "something else is mounted",
    );

    let publish = |change: fn(&mut NodePublishVolumeRequest), code: Code, words: &str| {
        let mut request = Volume::bindfs("v").to_publish("p");
        change(&mut request);
        fails(driver.node(|mut node| async move { node.node_publish_volume(request).await }), code, words);
    };
    publish(|request| request.volume_id.clear(), InvalidArgument, "volume_id is missing");
    publish(|request| request.target_path.clear(), InvalidArgument, "target_path is missing");
    publish(|request| request.volume_capability = None, InvalidArgument, "volume_capability is missing");
    publish(|request| request.staging_target_path.clear(), FailedPrecondition, "must be staged first");
    publish(|request| request.staging_target_path.push('x'), FailedPrecondition, "not staged");
    publish(|request| request.target_path = "/etc".into(), InvalidArgument, "below /var/lib/kubelet");
    publish(|request| request.target_path.push_str("/../../../x"), InvalidArgument, "without '..'");
    publish(|request| request.readonly = true, AlreadyExists, "already, and not read-only");
    // The mounter's own door keeps to it, whatever the driver lets through.
    publish(|request| request.target_path = "/var/lib/kubelet/pods/p/x".into(), Code::PermissionDenied, "CSI volumes");

    let unpublish = |volume_id: &str, target: &str, code: Code, words: &str| {
        let request = NodeUnpublishVolumeRequest { volume_id: volume_id.into(), target_path: target.into() };
        fails(driver.node(|mut node| async move { node.node_unpublish_volume(request).await }), code, words);
    };
    unpublish("", &volume.target("p"), InvalidArgument, "volume_id is missing");
    unpublish("v", "", InvalidArgument, "target_path is missing");
    unpublish("v", "/etc", InvalidArgument, "below /var/lib/kubelet");
    let unstage = |volume_id: &str, path: &str, words: &str| {
        let request = NodeUnstageVolumeRequest { volume_id: volume_id.into(), staging_target_path: path.into() };
        fails(driver.node(|mut node| async move { node.node_unstage_volume(request).await }), InvalidArgument, words);
    };
    unstage("", &volume.staged(), "volume_id is missing");
    unstage("v", "", "staging_target_path is missing");
    let stats = |volume_id: &str, path: &str, code: Code| {
        let (volume_id, volume_path) = (volume_id.into(), path.into());
        let request = NodeGetVolumeStatsRequest { volume_id, volume_path, ..Default::default() };
        fails(driver.node(|mut node| async move { node.node_get_volume_stats(request).await }), code, "");
    };
    stats("", &volume.target("p"), InvalidArgument);
    stats("v", "", InvalidArgument);
    stats("v", "some/path", NotFound);
    stats("v", &volume.target("none"), NotFound);

    // What never was is gone.
    driver.unpublish(&Volume::bindfs("none"), "p").unwrap();
    driver.unstage(&Volume::bindfs("none")).unwrap();
    assert_eq!(driver.test.node.mountinfo(), before);
    // A call that is not served at all.
    fails(
        driver.call(crate::driver::CALLS, |channel| async move {
            let mut client = tonic::client::Grpc::new(channel);
            client.ready().await.unwrap();
            let path = "/csi.v1.Controller/ListVolumes".parse().unwrap();
            let codec = tonic_prost::ProstCodec::<NodeUnstageVolumeRequest, NodeUnstageVolumeRequest>::default();
            client.unary(tonic::Request::new(Default::default()), path, codec).await
        }),
        Code::Unimplemented,
        "",
    );
}

fn a_helpers_own_words_are_in_the_error() {
    let driver = Driver::start();
    driver.test.container.helper("s3fs", "echo 's3fs: bucket nosuch does not exist' >&2; exit 1");
    let volume = Volume::of("v", &[("type", "s3fs"), ("source", "nosuch")]);
    fails(driver.stage(&volume), Code::Internal, "s3fs: bucket nosuch does not exist");
    // Once the server has it, the pod starts.
    driver.test.container.helper("s3fs", "exec /usr/sbin/mount.memfs \"$1\" \"$2\"");
    driver.stage(&volume).unwrap();
}

/// With real helpers: kubelet shows the message in the pod's event.
fn the_cause_comes_first() {
    let mut driver = Driver::start();
    make_addresses(&driver.test);
    driver.start_csi_with(&["--mount-timeout", "10"]);
    for (fstype, source, words) in [
        ("sshfs", "me@10.77.0.1:/x", "ssh: connect to host 10.77.0.1 port 22: Connection refused"),
        ("sshfs", "me@10.78.0.1:/x", "it is trying to connect to 10.78.0.1:22, which does not answer"),
        ("glusterfs", "10.79.0.1:/gv0", "connection attempt on  failed, (No route to host)"),
        ("glusterfs", "10.78.0.1:/gv0", "it is trying to connect to 10.78.0.1:24007, which does not answer"),
    ] {
        let error = driver.stage(&Volume::of("v", &[("type", fstype), ("source", source)])).unwrap_err();
        let first: String = error.message().chars().take(300).collect();
        assert!(error.code() == Code::Internal && first.contains(&format!("could not mount {source}: ")), "{error:?}");
        assert!(first.contains(words), "{words}: {error:?}");
        assert!(error.message().len() < 4200, "{error:?}");
    }
}

fn a_call_that_is_given_up_leaves_nothing() {
    let driver = Driver::start();
    // A server that does not answer.
    driver.test.container.helper("s3fs", "echo waiting >&2; exec sleep infinity");
    let volumes = [
        Volume::of("v", &[("type", "s3fs"), ("source", "b")]),
        Volume::of("w", &[("type", "s3fs"), ("source", "b")]).ephemeral(),
    ];
    let before = driver.test.node.mountinfo();
    for (number, volume) in volumes.iter().enumerate() {
        driver.test.node.sh_ok(&format!("mkdir -p {} $(dirname {})", volume.staged(), volume.target("p")));
        let (stage, publish) = (volume.to_stage(), volume.to_publish("p"));
        let given_up = driver.node(|mut node| async move {
            let call = async {
                match number {
                    0 => node.node_stage_volume(stage).await.map(|_| ()),
                    _ => node.node_publish_volume(publish).await.map(|_| ()),
                }
            };
            // Kubelet's own bound is two minutes.
            match tokio::time::timeout(Duration::from_secs(1), call).await {
                Err(_) => Ok(tonic::Response::new(())),
                Ok(done) => panic!("{done:?}"),
            }
        });
        given_up.unwrap();
        driver.mounter().wait_for_helper("waiting", number + 1);
        driver.test.wait_for_processes("sleep infinity", 0);
    }
    assert_eq!(driver.test.node.mountinfo(), before);
    // Kubelet tries again, and cleans up.
    driver.test.container.helper("s3fs", "exec /usr/sbin/mount.memfs \"$1\" \"$2\"");
    let again = |call: &dyn Fn() -> Result<(), tonic::Status>| {
        // What was given up may be on its way out still.
        while let Err(error) = call() {
            assert_eq!(error.code(), Code::Aborted, "{error:?}");
        }
    };
    again(&|| driver.stage(&volumes[0]));
    again(&|| driver.publish(&volumes[1], "p"));
    driver.unpublish(&volumes[1], "p").unwrap();
    driver.unstage(&volumes[0]).unwrap();
    driver.wait_until_nothing_is_left("memfs");
}

fn a_mount_that_takes_too_long_says_what_the_helper_said() {
    let mut driver = Driver::start();
    driver.start_csi_with(&["--mount-timeout", "1"]);
    driver.test.container.helper("s3fs", "echo 'no route to host' >&2; exec sleep infinity");
    let volume = Volume::of("v", &[("type", "s3fs"), ("source", "b")]);
    let before = driver.test.node.mountinfo();
    fails(driver.stage(&volume), Code::Internal, "no route to host");
    driver.test.wait_for_processes("sleep infinity", 0);
    assert_eq!(driver.test.node.mountinfo(), before);
}

fn the_mounter_is_away_and_back() {
    let mut driver = Driver::start();
    let volume = Volume::bindfs("v");
    driver.stage(&volume).unwrap();
    driver.publish(&volume, "p").unwrap();
    assert!(driver.ready());
    driver.mounter = None;
    assert!(!driver.ready());
    let away = "the mounter is not running";
    fails(driver.stage(&volume), Code::Unavailable, away);
    fails(driver.publish(&volume, "p"), Code::Unavailable, away);
    fails(driver.stats(&volume, "p"), Code::Unavailable, away);
    fails(driver.unpublish(&volume, "p"), Code::Unavailable, away);
    fails(driver.unstage(&volume), Code::Unavailable, away);
    driver.test.node.sh_ok(&format!("cat {}/f", volume.target("p")));
    driver.start_mounter();
    assert!(driver.ready());
    driver.stage(&volume).unwrap();
    driver.publish(&volume, "p").unwrap();
    driver.unpublish(&volume, "p").unwrap();
    driver.unstage(&volume).unwrap();
    driver.wait_until_nothing_is_left("bindfs");
}
