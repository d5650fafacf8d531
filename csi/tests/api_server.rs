//! The API server, as far as the driver's account may ask it: one that answers as the test says. A real one is in `cluster`.

use crate::driver::{Driver, Volume, strings};
use crate::harness::{Test, tests};
use crate::node::Place;
use hostmount::observe::events;
use hostmount_csi::csi::{ControllerGetCapabilitiesRequest, ListVolumesRequest, ListVolumesResponse};
use hostmount_csi::pluginregistration::RegistrationStatus;
use serde_json::{Value, json};
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};
use testbed::machine::{Process, Room};
use tonic::Code;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        the_startup_taint_goes_when_the_driver_is_registered.needs(&["openssl"]),
        pods_get_events_of_their_volumes.needs(&["openssl"]),
        an_api_server_that_is_away_or_hostile_costs_nothing.needs(&["openssl"]),
        volumes_are_listed_page_by_page.needs(&["openssl"]),
        without_access_nothing_is_asked.needs(&["openssl"]),
    ]
}

const ANSWERS: &str = "/tmp/api";
/// In the driver's room.
const ACCOUNT: &str = "/run/secrets/kubernetes.io/serviceaccount";
const CERTIFICATE: &str = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
const CSINODE: &str = "/apis/storage.k8s.io/v1/csinodes/node-1";
const NODE: &str = "/api/v1/nodes/node-1";
const EVENTS: &str = "/api/v1/namespaces/team/events";

/// The server, on the node's own address.
struct Fake {
    place: Place,
    _server: Process,
}

impl Fake {
    /// Starts it, and gives the driver an account.
    fn start(driver: &Driver) -> Self {
        let place = driver.test.container.clone();
        place.sh_ok(&format!(
            "mkdir {ANSWERS} && cd {ANSWERS} && {CERTIFICATE} -keyout ca.key -out ca.crt -subj /CN=ca && {CERTIFICATE} -CA ca.crt -CAkey ca.key \
             -keyout key -out certificate -subj /CN=fake -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=CA:FALSE && \
             cat certificate key >both"
        ));
        let certificate = place.sh_ok(&format!("cat {ANSWERS}/ca.crt"));
        driver.room.visit(|| {
            fs::create_dir_all(ACCOUNT).unwrap();
            fs::write(format!("{ACCOUNT}/ca.crt"), certificate).unwrap();
            fs::write(format!("{ACCOUNT}/token"), "t0ken\n").unwrap();
        });
        place.visit(|| fs::write(format!("{ANSWERS}/fake.py"), include_str!("api_server/fake.py")).unwrap());
        Self { _server: Self::serve(&place), place }
    }

    fn serve(place: &Place) -> Process {
        place.sh_ok(&format!("rm -f {ANSWERS}/ready"));
        let mut command = Room::command("python3");
        command.args([&format!("{ANSWERS}/fake.py"), ANSWERS, &format!("{ANSWERS}/both")]);
        command.stderr(Stdio::null());
        let server = place.spawn(command);
        wait("the server listens", || place.visit(|| fs::exists(format!("{ANSWERS}/ready")).unwrap()));
        server
    }

    /// What it answers from now on.
    fn answers(&self, method: &str, path: &str, status: u16, body: &Value) {
        let (file, text) = (format!("{ANSWERS}/{method}{path}"), format!("{status}\n{body}"));
        self.place.visit(|| {
            fs::create_dir_all(file.rsplit_once('/').unwrap().0).unwrap();
            fs::write(format!("{file}.new"), text).unwrap();
            fs::rename(format!("{file}.new"), &file).unwrap();
        });
    }

    /// What it was asked with a method.
    fn asked(&self, method: &str) -> Vec<Value> {
        let text = self.place.visit(|| fs::read_to_string(format!("{ANSWERS}/asked")).unwrap_or_default());
        let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.filter(|asked| asked["method"] == method).collect()
    }
}

#[track_caller]
fn wait(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "it is not so that {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Driver {
    fn start_csi_with_access(&mut self, access: &str) {
        let server = [("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", "6443")];
        self.start_csi_in(&["--api-access", access], &server);
    }

    /// As kubelet says it when CSINode has the driver.
    fn register(&self) {
        let status = RegistrationStatus { plugin_registered: true, error: String::new() };
        self.registration(|mut kubelet| async move { kubelet.notify_registration_status(status).await }).unwrap();
    }

    fn csi(&self) -> &crate::node::mounter::Mounter {
        self.csi.as_ref().unwrap()
    }
}

fn volumes_are_listed_page_by_page() {
    let mut driver = Driver::start();
    let server = Fake::start(&driver);
    driver.start_csi_with_access("volumes");
    let list = |max_entries: i32, token: &str| {
        let request = ListVolumesRequest { max_entries, starting_token: token.to_owned() };
        driver.controller(|mut controller| async move { controller.list_volumes(request).await })
    };
    let capabilities = driver.controller(|mut controller| async move {
        controller.controller_get_capabilities(ControllerGetCapabilitiesRequest {}).await
    });
    assert!(format!("{:?}", capabilities.unwrap()).contains("ListVolumes"));
    let of = |driver: &str, handle: &str| json!({ "spec": { "csi": { "driver": driver, "volumeHandle": handle, "volumeAttributes": { "type": "s3fs" } } } });
    let page = |items: Vec<Value>, next: &str| json!({ "metadata": { "continue": next }, "items": items });
    let path = |query: &str| format!("/api/v1/persistentvolumes?{query}");
    server.answers(
        "GET",
        &path("limit=2"),
        200,
        &page(vec![of("hostmount.csi", "one"), of("other", "x")], "to-ken.1="),
    );
    // A page of others' alone is no end, and the local volumes of a node have no driver.
    let others = vec![of("other", "y"), json!({ "spec": { "local": {} } })];
    server.answers("GET", &path("limit=2&continue=to-ken.1="), 200, &page(others, "2"));
    server.answers("GET", &path("limit=2&continue=2"), 200, &page(vec![of("hostmount.csi", "two")], ""));
    let handles = |listed: &ListVolumesResponse| -> Vec<String> {
        listed.entries.iter().map(|entry| entry.volume.as_ref().unwrap().volume_id.clone()).collect()
    };
    let first = list(2, "").unwrap();
    assert_eq!((handles(&first), &*first.next_token), (vec!["one".to_owned()], "to-ken.1="));
    assert_eq!(first.entries[0].volume.as_ref().unwrap().volume_context["type"], "s3fs");
    let second = list(2, &first.next_token).unwrap();
    assert_eq!((handles(&second), &*second.next_token), (vec!["two".to_owned()], ""));
    // All at once.
    server.answers(
        "GET",
        &path("limit=100"),
        200,
        &page(vec![of("hostmount.csi", "one"), of("hostmount.csi", "two")], ""),
    );
    assert_eq!(handles(&list(0, "").unwrap()), ["one", "two"]);
    // What is wrong, and what the API server says.
    assert_eq!(list(-1, "").unwrap_err().code(), Code::InvalidArgument);
    let before = server.asked("GET").len();
    assert_eq!(list(0, "x&limit=9").unwrap_err().code(), Code::Aborted);
    assert_eq!(server.asked("GET").len(), before, "nothing is asked with it");
    server.answers(
        "GET",
        &path("limit=100&continue=old"),
        410,
        &json!({ "message": "The provided continue parameter is too old" }),
    );
    let old = list(0, "old").unwrap_err();
    assert!(old.code() == Code::Aborted && old.message().contains("too old"), "{old:?}");
    server.answers("GET", &path("limit=100"), 403, &json!({ "message": "persistentvolumes is forbidden" }));
    let forbidden = list(0, "").unwrap_err();
    assert!(forbidden.code() == Code::Unavailable && forbidden.message().contains("is forbidden"), "{forbidden:?}");
}

fn listed() -> Value {
    json!({ "spec": { "drivers": [{ "name": "other" }, { "name": "hostmount.csi" }] } })
}

fn tainted(key: &str) -> Value {
    json!({ "spec": { "taints": [{ "key": "other", "effect": "NoSchedule" }, { "key": key, "effect": "NoExecute" }] } })
}

fn the_startup_taint_goes_when_the_driver_is_registered() {
    let mut driver = Driver::start();
    let server = Fake::start(&driver);
    driver.start_csi_with_access("taint");
    // Kubelet says so before the API server does; somebody changes the node's taints at the same time; the account may not yet.
    server.answers("GET", CSINODE, 200, &json!({ "spec": { "drivers": null } }));
    server.answers("GET", NODE, 200, &tainted("hostmount.csi/agent-not-ready"));
    server.answers("PATCH", NODE, 422, &json!({ "message": "the test failed" }));
    driver.register();
    driver.csi().wait_for("csi.taint-left", 1);
    assert!(driver.csi().said().contains("does not list the driver") && server.asked("PATCH").is_empty());
    server.answers("GET", CSINODE, 200, &listed());
    driver.csi().wait_for("csi.taint-left", 2);
    assert!(driver.csi().said().contains("422 Unprocessable Entity: the test failed"));
    server.answers("PATCH", NODE, 200, &json!({}));
    driver.csi().wait_for("csi.taint-removed", 1);
    let patched = server.asked("PATCH");
    let taints = &tainted("hostmount.csi/agent-not-ready")["spec"]["taints"];
    assert_eq!(
        patched.last().unwrap(),
        &json!({
            "method": "PATCH", "path": NODE, "Authorization": "Bearer t0ken", "Content-Type": "application/json-patch+json",
            "body": [
                { "op": "test", "path": "/spec/taints", "value": taints },
                { "op": "replace", "path": "/spec/taints", "value": [taints[0]] },
            ],
        })
    );
    // Kubelet restarts: it is looked for again, by a token that is a fresh one, and is not there.
    server.answers("GET", NODE, 200, &tainted("another.csi/agent-not-ready"));
    driver.room.visit(|| fs::write(format!("{ACCOUNT}/token"), "t1ken\n").unwrap());
    let before = server.asked("GET").len();
    driver.register();
    wait("the node is looked at again", || server.asked("GET").len() == before + 2);
    assert_eq!(server.asked("GET").last().unwrap()["Authorization"], "Bearer t1ken");
    // And once more, with it.
    server.answers("GET", NODE, 200, &tainted("hostmount.csi/agent-not-ready"));
    driver.register();
    driver.csi().wait_for("csi.taint-removed", 2);
    assert_eq!(server.asked("PATCH").len(), patched.len() + 1);
    assert!(!driver.csi().said().contains("ken\""), "{}", driver.csi().said());
}

/// A pod's own volume, as kubelet names its pod.
fn of_pod() -> Volume {
    let mut volume = Volume::of("v", &[("type", "memfs"), ("source", "x")]).ephemeral();
    volume.context.extend(strings(&[("csi.storage.k8s.io/pod.namespace", "team")]));
    volume
}

fn pods_get_events_of_their_volumes() {
    let mut driver = Driver::with_config("hang_seconds = 1");
    let server = Fake::start(&driver);
    driver.start_csi_with_access("events");
    server.answers("POST", EVENTS, 201, &json!({}));
    let volume = of_pod();
    driver.publish(&volume, "uid-1").unwrap();
    let looked_at = || driver.stats(&volume, "uid-1").unwrap();
    assert!(!looked_at().volume_condition.unwrap().abnormal);
    looked_at();
    // Healed between two looks.
    let helper = || driver.test.pids_of("memfs")[0];
    driver.test.node.sh_ok(&format!("kill -KILL {}", helper()));
    driver.mounter().wait_for(events::HEALED, 1);
    looked_at();
    wait("there is an event", || server.asked("POST").len() == 1);
    let event = &server.asked("POST")[0];
    assert_eq!((&event["path"], &event["Content-Type"]), (&json!(EVENTS), &json!("application/json")));
    let body = &event["body"];
    assert_eq!(
        body["involvedObject"],
        json!({ "apiVersion": "v1", "kind": "Pod", "namespace": "team", "name": "p", "uid": "uid-1" })
    );
    assert_eq!((&body["type"], &body["reason"]), (&json!("Normal"), &json!("VolumeHealed")), "{body}");
    assert_eq!(body["source"], json!({ "component": "hostmount.csi", "host": "node-1" }));
    // It hangs, and answers again; asked twice it is one event.
    let helper = helper();
    driver.test.node.sh_ok(&format!("kill -STOP {helper}"));
    let user = driver.test.node.spawn({
        let mut command = Room::command("ls");
        command.arg(format!("{}/asked", volume.target("uid-1"))).stderr(Stdio::null());
        command
    });
    driver.mounter().wait_for(events::HUNG, 1);
    looked_at();
    looked_at();
    wait("there is an event", || server.asked("POST").len() == 2);
    driver.test.node.sh_ok(&format!("kill -CONT {helper}"));
    driver.mounter().wait_for(events::ANSWERS, 1);
    looked_at();
    looked_at();
    wait("there is an event", || server.asked("POST").len() == 3);
    drop(user);
    let reasons: Vec<_> = server.asked("POST").iter().map(|event| event["body"]["reason"].clone()).collect();
    assert_eq!(reasons, ["VolumeHealed", "VolumeHung", "VolumeServedAgain"]);
    assert_eq!(server.asked("POST")[1]["body"]["type"], "Warning");
    assert_eq!(server.asked("GET"), [""; 0], "nothing else is asked");
    driver.unpublish(&volume, "uid-1").unwrap();
    driver.wait_until_nothing_is_left("memfs");
}

fn an_api_server_that_is_away_or_hostile_costs_nothing() {
    let mut driver = Driver::start();
    let server = Fake::start(&driver);
    driver.start_csi_with_access("taint,events");
    let csi = driver.csi();
    // An answer without an end.
    server.answers("GET", CSINODE, 0, &json!({}));
    driver.register();
    csi.wait_for("csi.taint-left", 1);
    assert!(csi.said().contains("cannot read the API server's answer"), "{}", csi.said());
    // Words that would do something to a terminal.
    server.answers("GET", CSINODE, 403, &json!({ "message": format!("no\u{1b}[2J{}", "x".repeat(5000)) }));
    csi.wait_for("csi.taint-left", 2);
    assert!(csi.said().contains("403 Forbidden: no\\\\u{1b}[2Jxxx") && !csi.said().contains(&"x".repeat(600)));
    // Another server, which has no certificate of the cluster's: it does not see the token.
    let asked = server.asked("GET").len();
    driver.room.sh_ok(&format!("{CERTIFICATE} -keyout /tmp/k -out {ACCOUNT}/ca.crt -subj /CN=other"));
    csi.wait_for("csi.taint-left", 3);
    assert!(csi.said().contains("invalid peer certificate"), "{}", csi.said());
    assert_eq!(server.asked("GET").len(), asked);
    // It is away; kubelet's calls do not notice, and more events than there is room for are lost.
    drop(server);
    let mut volume = of_pod();
    volume.context.remove("csi.storage.k8s.io/ephemeral");
    driver.stage(&volume).unwrap();
    let pods: Vec<_> = (0..80).map(|number| format!("uid-{number}")).collect();
    let look = || pods.iter().for_each(|pod| drop(driver.stats(&volume, pod).unwrap()));
    pods.iter().for_each(|pod| driver.publish(&volume, pod).unwrap());
    look();
    driver.test.node.sh_ok(&format!("kill -KILL {}", driver.test.pids_of("memfs")[0]));
    driver.mounter().wait_for(events::HEALED, 1);
    look();
    csi.wait_for("csi.event-lost", 10);
    assert!(driver.ready());
    let status = fs::read_to_string(format!("/proc/{}/status", csi.outer_pid())).unwrap();
    let most: u64 =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok()).unwrap();
    assert!(most < 15 << 10, "{most} KiB");
    assert!(!csi.said().contains("t0ken"));
}

fn without_access_nothing_is_asked() {
    let mut driver = Driver::start();
    let server = Fake::start(&driver);
    driver.start_csi();
    driver.register();
    let volume = of_pod();
    driver.publish(&volume, "uid-1").unwrap();
    driver.test.node.sh_ok(&format!("kill -KILL {}", driver.test.pids_of("memfs")[0]));
    driver.mounter().wait_for(events::HEALED, 1);
    driver.stats(&volume, "uid-1").unwrap();
    assert_eq!((server.asked("GET"), server.asked("POST"), server.asked("PATCH")), (vec![], vec![], vec![]));
    // What was asked for and cannot be is an error at once.
    let done =
        driver.room.sh("env -u KUBERNETES_SERVICE_HOST /usr/local/bin/hostmount-csi --node-id n --api-access events");
    assert!(done.code == Some(2) && done.stderr.contains("KUBERNETES_SERVICE_HOST"), "{done:?}");
}
