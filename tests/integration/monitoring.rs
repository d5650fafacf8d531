//! What `deploy/monitoring` ships, with a real Prometheus: the alerts by promtool, and each query of the dashboard on what a real
//! mounter says.

use crate::harness::{Test, tests};
use crate::node::{NODE_BIN, TestNode};
use hostmount::observe::events;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use testbed::machine::Room;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        the_alerts_are_what_prometheus_takes.needs(&["promtool"]).anywhere(),
        each_query_of_the_dashboard_has_an_answer.needs(&["prometheus", "bindfs", "curl"]),
    ]
}

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";

fn directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/monitoring"))
}

fn the_alerts_are_what_prometheus_takes() {
    for arguments in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts-test.yaml"]] {
        let done = Command::new("promtool").args(arguments).current_dir(directory()).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

/// The queries of all panels, with their titles.
fn queries() -> Vec<(String, String)> {
    let text = fs::read_to_string(directory().join("dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let of_panel = |panel: &Value| -> Vec<_> {
        let title = panel["title"].as_str().unwrap();
        let targets = panel["targets"].as_array().unwrap().iter();
        targets.map(|target| (title.to_owned(), target["expr"].as_str().unwrap().to_owned())).collect()
    };
    panels.flat_map(of_panel).collect()
}

/// A volume is mounted, healed, swapped and unmounted, a mount fails: then every query has an answer, none of them NaN for want of
/// events.
fn each_query_of_the_dashboard_has_an_answer() {
    let test = TestNode::start();
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    test.container.sh_ok("mkdir /tmp/source && echo served >/tmp/source/f");
    let mounter = test.start_mounter(&["--metrics", "127.0.0.1:9464"], &[]);
    // In the network of both.
    test.container.visit(|| {
        let config = "global: { scrape_interval: 200ms, scrape_timeout: 200ms }\n\
                      scrape_configs: [{ job_name: hostmount, static_configs: [{ targets: ['127.0.0.1:9464'] }] }]\n";
        fs::write("/tmp/prometheus.yaml", config).unwrap();
    });
    let mut command = Room::command("prometheus");
    command.args(["--config.file=/tmp/prometheus.yaml", "--storage.tsdb.path=/tmp/data"]);
    command
        .args(["--web.listen-address=127.0.0.1:9090", "--log.level=error"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let _prometheus = test.container.spawn(command);
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
    // Rates need counters that were seen before they grew.
    let ask = |query: &str| {
        let ask = "curl -sG http://127.0.0.1:9090/api/v1/query --data-urlencode";
        let answer = test.container.sh(&format!("{ask} 'query={query}'")).stdout;
        serde_json::from_str::<Value>(&answer).unwrap_or_default()
    };
    let has_answer = |query: &str| {
        let answer = ask(query);
        let results = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        let is_number = |result: &Value| result["value"][1].as_str().is_some_and(|value| value != "NaN");
        assert_ne!(answer["status"], "error", "{query}: {answer}");
        results.iter().any(is_number)
    };
    let wait_for = |what: &str, query: &str| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !has_answer(query) {
            assert!(Instant::now() < deadline, "{what}: {query}: {}", ask(query));
            thread::sleep(Duration::from_millis(100));
        }
    };
    wait_for("the first scrape", "hostmount_volume_up == 1");
    let hostmount = |arguments: &str| test.node.sh(&format!("{NODE_BIN}/hostmount {arguments}"));
    for time in 1..=2 {
        hostmount(&format!("swap {TARGET}")).ok("swap");
        mounter.wait_for(events::DRAINED, time);
        test.node.sh_ok("kill -9 $(pidof bindfs)");
        mounter.wait_for(events::HEALED, time);
        test.mount(&["-t", "fuse.bindfs", "/none", "/mnt"]);
        test.mount(&["-t", "fuse.bindfs", "/tmp/source", "/mnt"]).ok("mount");
        test.umount(&["/mnt"]).ok("umount");
        // Each has been scraped before there are more.
        let failed = format!("hostmount_failures_total{{operation=\"mount\", reason=\"helper-failed\"}} == {time}");
        wait_for("a failure", &failed);
    }
    for (title, query) in queries() {
        wait_for(&title, &query.replace("$instance", ".*"));
    }
}
