//! Kubelet: how it gets to know the driver, and the very calls that one made.

use crate::driver::{CALLS, DIRECTORIES, Driver, REGISTRATION};
use crate::harness::{Test, tests};
use hostmount_csi::csi::node_service_capability::Type;
use hostmount_csi::csi::node_service_capability::rpc::Type as Can;
use hostmount_csi::csi::plugin_capability::{self, Service, service};
use hostmount_csi::csi::volume_capability::{AccessMode, AccessType, MountVolume};
use hostmount_csi::csi::{
    GetPluginCapabilitiesRequest, GetPluginInfoRequest, NodeGetCapabilitiesRequest, NodeGetInfoRequest,
    NodePublishVolumeRequest, NodeUnpublishVolumeRequest, PluginCapability, VolumeCapability,
};
use hostmount_csi::pluginregistration::{InfoRequest, RegistrationStatus};
use serde_json::Value;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use tonic::{Code, Status};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        kubelet_gets_to_know_the_driver.quick(),
        a_socket_that_is_removed_is_there_again.quick(),
        the_calls_of_a_real_kubelet.quick(),
        nobody_but_root_may_call.quick(),
        the_sockets_path_is_taken_as_an_authority.quick(),
    ]
}

fn kubelet_gets_to_know_the_driver() {
    let driver = Driver::start();
    let info = driver.registration(|mut kubelet| async move { kubelet.get_info(InfoRequest {}).await }).unwrap();
    assert_eq!(
        (info.r#type.as_str(), info.name.as_str(), info.endpoint.as_str()),
        ("CSIPlugin", "hostmount.csi", CALLS)
    );
    assert_eq!(info.supported_versions, ["1.0.0"]);
    let node = driver.node(|mut node| async move { node.node_get_info(NodeGetInfoRequest {}).await }).unwrap();
    assert_eq!((node.node_id.as_str(), node.max_volumes_per_node), ("node-1", 0));
    for (plugin_registered, event) in [(true, "csi.registered"), (false, "csi.not-registered")] {
        let status = RegistrationStatus { plugin_registered, error: "why".into() };
        driver.registration(|mut kubelet| async move { kubelet.notify_registration_status(status).await }).unwrap();
        driver.csi.as_ref().unwrap().wait_for(event, 1);
    }
    let plugin = driver.identity(|mut csi| async move { csi.get_plugin_info(GetPluginInfoRequest {}).await }).unwrap();
    assert_eq!((plugin.name.as_str(), plugin.vendor_version.is_empty()), ("hostmount.csi", false));
    // What it does not have it does not say it has.
    let request = GetPluginCapabilitiesRequest {};
    let all = driver.identity(|mut csi| async move { csi.get_plugin_capabilities(request).await }).unwrap();
    let service = Service { r#type: service::Type::ControllerService.into() };
    assert_eq!(all.capabilities, [PluginCapability { r#type: Some(plugin_capability::Type::Service(service)) }]);
    let request = NodeGetCapabilitiesRequest {};
    let can = driver.node(|mut node| async move { node.node_get_capabilities(request).await }).unwrap();
    let can = can.capabilities.into_iter().map(|one| match one.r#type {
        Some(Type::Rpc(rpc)) => rpc.r#type(),
        None => Can::Unknown,
    });
    let can: Vec<_> = can.collect();
    for needed in [Can::StageUnstageVolume, Can::GetVolumeStats, Can::VolumeMountGroup, Can::SingleNodeMultiWriter] {
        assert!(can.contains(&needed), "{can:?}");
    }
    assert!(!can.contains(&Can::ExpandVolume) && !can.contains(&Can::Unknown));
    // It is small.
    let pid = driver.csi.as_ref().unwrap().outer_pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim();
    let kilobytes: u64 = memory.trim_end_matches(" kB").parse().unwrap();
    crate::node::notes::note(format!("memory of the driver: {memory}"));
    assert!(kilobytes < 15 << 10, "{memory}");
}

fn a_socket_that_is_removed_is_there_again() {
    let driver = Driver::start();
    let csi = driver.csi.as_ref().unwrap();
    let works = || {
        driver.registration(|mut kubelet| async move { kubelet.get_info(InfoRequest {}).await }).unwrap();
        driver.node(|mut node| async move { node.node_get_info(NodeGetInfoRequest {}).await }).unwrap();
    };
    for (times, how) in [
        (1, format!("rm {REGISTRATION}")),
        (2, format!("rm {CALLS}")),
        (3, format!("mv {REGISTRATION} {REGISTRATION}.old")),
        (4, format!("touch {0}.new && mv {0}.new {0}", CALLS)),
    ] {
        driver.test.node.sh_ok(&how);
        csi.wait_for("csi.listens-again", times);
        works();
        assert_eq!(
            driver.test.node.sh_ok(&format!("stat -c '%a %u %F' {CALLS} {REGISTRATION} | sort -u")),
            "600 65532 socket\n"
        );
    }
    // Other files there are nobody's business.
    driver.test.node.sh_ok(&format!("touch {0}/x {1}/x && rm {0}/x {1}/x", DIRECTORIES[0], DIRECTORIES[1]));
    works();
    assert_eq!(csi.count("csi.listens-again"), 4);
}

/// The driver that they were captured with had other attributes: those are refused, and what never was mounted is unmounted.
fn the_calls_of_a_real_kubelet() {
    let secrets = "environment = { PASS = \"{secret:pass}\", USER = \"{secret:user}\" }";
    let driver = Driver::with_config(&format!("[filesystem.recorder]\n{secrets}"));
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/captured/v1.36.2-csi.jsonl");
    let mut seen = HashMap::new();
    for line in std::fs::read_to_string(file).unwrap().lines() {
        let call: Value = serde_json::from_str(line).unwrap();
        let method = call["method"].as_str().unwrap();
        replay(&driver, method, &call["request"]);
        *seen.entry(method.to_owned()).or_insert(0) += 1;
    }
    assert_eq!((seen.len(), seen["/csi.v1.Node/NodePublishVolume"]), (6, 2));
    let said = driver.csi.as_ref().unwrap().said();
    assert!(!said.contains("s3cret"), "{said}");
    assert_eq!(driver.test.node.fuse_mounts(), [""; 0]);
}

fn replay(driver: &Driver, method: &str, request: &Value) {
    let text = |field: &str| request[field].as_str().unwrap_or_default().to_owned();
    match method {
        "/pluginregistration.Registration/GetInfo" => {
            driver.registration(|mut kubelet| async move { kubelet.get_info(InfoRequest {}).await }).map(drop)
        }
        "/pluginregistration.Registration/NotifyRegistrationStatus" => {
            let plugin_registered = request["plugin_registered"].as_bool().unwrap();
            let status = RegistrationStatus { plugin_registered, error: text("error") };
            driver.registration(|mut kubelet| async move { kubelet.notify_registration_status(status).await }).map(drop)
        }
        "/csi.v1.Node/NodeGetInfo" => {
            driver.node(|mut node| async move { node.node_get_info(NodeGetInfoRequest {}).await }).map(drop)
        }
        "/csi.v1.Node/NodeGetCapabilities" => {
            let request = NodeGetCapabilitiesRequest {};
            driver.node(|mut node| async move { node.node_get_capabilities(request).await }).map(drop)
        }
        "/csi.v1.Node/NodeUnpublishVolume" => {
            let request = NodeUnpublishVolumeRequest { volume_id: text("volume_id"), target_path: text("target_path") };
            driver.node(|mut node| async move { node.node_unpublish_volume(request).await }).map(drop)
        }
        "/csi.v1.Node/NodePublishVolume" => {
            refuses_then_publishes(driver, request);
            Ok(())
        }
        other => panic!("a call that the test does not know: {other}"),
    }
    .unwrap();
}

/// As it was captured, and then with attributes of our own.
fn refuses_then_publishes(driver: &Driver, captured: &Value) {
    let words =
        |value: &Value| -> HashMap<String, String> { serde_json::from_value(value.clone()).unwrap_or_default() };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mount = &captured["volume_capability"]["AccessType"]["Mount"];
    let flags = mount["mount_flags"].as_array().into_iter().flatten().map(text).collect();
    let access_type = Some(AccessType::Mount(MountVolume { mount_flags: flags, ..Default::default() }));
    let mode = captured["volume_capability"]["access_mode"]["mode"].as_i64().unwrap();
    let access_mode = Some(AccessMode { mode: mode.try_into().unwrap() });
    let mut request = NodePublishVolumeRequest {
        volume_id: text(&captured["volume_id"]),
        target_path: text(&captured["target_path"]),
        readonly: captured["readonly"].as_bool().unwrap_or_default(),
        volume_capability: Some(VolumeCapability { access_mode, access_type }),
        secrets: words(&captured["secrets"]),
        volume_context: words(&captured["volume_context"]),
        ..Default::default()
    };
    let refused: Status = driver.publish_as(request.clone()).unwrap_err();
    assert!(refused.code() == Code::InvalidArgument && refused.message().contains("unknown attribute"), "{refused:?}");
    request.volume_context.retain(|key, _| key.contains('/'));
    request.volume_context.extend(crate::driver::strings(&[("type", "recorder"), ("source", "x")]));
    // That kubelet's driver did not stage: each pod had its own.
    request.volume_context.insert("mode".into(), "pod".into());
    driver.test.container.helper("recorder", "printf '%s\\n' \"$@\" >&2\nexec /usr/sbin/mount.memfs \"$1\" \"$2\"");
    driver.publish_as(request.clone()).unwrap();
    let mounted = driver.test.node.mount_at(&request.target_path).unwrap();
    assert_eq!(mounted.contains(" ro,"), request.readonly, "{mounted}");
    let unpublish = NodeUnpublishVolumeRequest { volume_id: request.volume_id, target_path: request.target_path };
    driver.node(|mut node| async move { node.node_unpublish_volume(unpublish).await }).unwrap();
}

fn nobody_but_root_may_call() {
    let driver = Driver::start();
    // The mode keeps others out, and if it did not, the driver would.
    driver.test.node.sh_ok(&format!("chmod 666 {CALLS} && chmod a+x /var/lib/kubelet /var/lib/kubelet/plugins"));
    let connect = format!(
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('{CALLS}'); s.send(b'PRI'); print(len(s.recv(9)))"
    );
    let done = driver.test.node.sh(&format!("setpriv --reuid 1000 --clear-groups python3 -c \"{connect}\""));
    driver.csi.as_ref().unwrap().wait_for("csi.caller-refused", 1);
    assert!(done.stdout.trim() == "0" || done.code != Some(0), "{done:?}");
    driver.node(|mut node| async move { node.node_get_info(NodeGetInfoRequest {}).await }).unwrap();
}

/// As kubelets before 1.26 send it: without a library that would refuse to.
fn the_sockets_path_is_taken_as_an_authority() {
    let driver = Driver::start();
    for path in [REGISTRATION, "%2Frun%2Fcsi.sock", "localhost"] {
        let mut fields = vec![0x83, 0x86];
        for (name, value) in
            [(0x44, "/pluginregistration.Registration/GetInfo"), (0x41, path), (0x5f, "application/grpc")]
        {
            fields.extend([name, u8::try_from(value.len()).unwrap()]);
            fields.extend(value.as_bytes());
        }
        fields.extend(b"\x40\x02te\x08trailers");
        let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
            let length = u8::try_from(payload.len()).unwrap();
            [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
        };
        let asked = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(4, 0, 0, &[]),
            // HEADERS with END_HEADERS, DATA of an empty message with END_STREAM.
            frame(1, 4, 1, &fields),
            frame(0, 1, 1, &[0; 5]),
        ];
        let mut stream = driver.test.node.visit(|| UnixStream::connect(REGISTRATION)).unwrap();
        stream.write_all(&asked.concat()).unwrap();
        let mut answer: Vec<u8> = Vec::new();
        let (mut bytes, name) = ([0; 4096], b"hostmount.csi");
        while !answer.windows(name.len()).any(|words| words == name) {
            let length = stream.read(&mut bytes).unwrap();
            answer.extend(&bytes[..length]);
            // RST_STREAM, of four bytes.
            let reset = answer.windows(9).any(|head| head == [0, 0, 4, 3, 0, 0, 0, 0, 1]);
            assert!(length > 0 && !reset, "{path}: {answer:?}");
        }
    }
}
