//! The metrics: on the command line and over HTTP, as a scraper reads them.

use crate::harness::{Test, tests};
use crate::node::{NODE_BIN, TestNode};
use hostmount::observe::events;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn tests() -> Vec<Test> {
    tests![what_happens_is_counted_and_shown.needs(&["bindfs", "bash"]).quick()]
}

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/a \"b\"";

/// Every sample by its name and labels, as they are written. Anything that is not in the format panics.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let body = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no end: {text}"));
    let mut described = BTreeSet::new();
    let mut samples = BTreeMap::new();
    for line in body.lines() {
        match line.split_once(' ') {
            Some(("#", words)) => {
                let [kind, name, rest] = words.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
                assert!(
                    ["HELP", "TYPE", "UNIT"].contains(&kind) && name.starts_with("hostmount_") && !rest.is_empty(),
                    "{line}"
                );
                described.insert((kind.to_owned(), name.to_owned()));
            }
            _ => {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
                assert!(labels.ends_with('}'), "{line}");
                let ends = ["_total", "_bucket", "_sum", "_count", "_info"];
                let family = ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
                for kind in ["HELP", "TYPE"] {
                    assert!(described.contains(&(kind.to_owned(), family.to_owned())), "{line}");
                }
                assert_eq!(samples.insert(series.to_owned(), value.parse().unwrap()), None, "twice: {line}");
            }
        }
    }
    samples
}

fn what_happens_is_counted_and_shown() {
    let test = TestNode::start();
    test.node.sh_ok(&format!("mkdir -p '{TARGET}'"));
    test.container.sh_ok("mkdir /tmp/source && echo served >/tmp/source/f");
    let mounter = test.start_mounter(&["--metrics", "127.0.0.1:9464"], &[]);
    let hostmount = |arguments: &str| test.node.sh(&format!("{NODE_BIN}/hostmount {arguments}"));
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
    test.mount(&["-t", "fuse.bindfs", "/none", "/mnt"]);
    hostmount(&format!("swap '{TARGET}'")).ok("swap");
    mounter.wait_for(events::DRAINED, 1);
    test.node.sh_ok("kill -9 $(pidof bindfs)");
    mounter.wait_for(events::HEALED, 1);
    test.container.sh_ok("mv /usr/bin/bindfs /usr/bin/away");
    assert_eq!(hostmount(&format!("swap '{TARGET}'")).code, Some(32));

    let samples = parse(&hostmount("metrics").ok("metrics"));
    let of_volume = r#"{target="/var/lib/kubelet/pods/p/volumes/a \"b\"",type="fuse.bindfs"}"#;
    for (name, value) in [
        (r#"operations_total{operation="mount",result="done"}"#, 1.0),
        (r#"operations_total{operation="mount",result="failed"}"#, 1.0),
        (r#"operations_total{operation="swap",result="done"}"#, 1.0),
        (r#"operations_total{operation="swap",result="failed"}"#, 1.0),
        (r#"operations_total{operation="heal",result="done"}"#, 1.0),
        (r#"failures_total{operation="mount",reason="helper-failed"}"#, 1.0),
        (r#"failures_total{operation="swap",reason="no-helper"}"#, 1.0),
        (r#"operation_duration_seconds_count{operation="mount"}"#, 1.0),
        (r#"step_duration_seconds_count{step="graft"}"#, 1.0),
        (r#"step_duration_seconds_count{step="intercept"}"#, 3.0),
        (&format!("volume_heals_total{of_volume}"), 1.0),
        (&format!("volume_swaps_total{of_volume}"), 1.0),
        (&format!("volume_helper_processes{of_volume}"), 1.0),
        (&format!("build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0),
        ("hangs_total", 0.0),
        (r#"volumes{state="mounted"}"#, 1.0),
        (r#"volumes{state="dead"}"#, 0.0),
        (r#"volumes{state="hung"}"#, 0.0),
        (&format!("volume_up{of_volume}"), 1.0),
        (&format!("volume_waiting_requests{of_volume}"), 0.0),
    ] {
        assert_eq!(samples.get(&format!("hostmount_{name}")), Some(&value), "{name}: {samples:#?}");
    }
    assert!(samples[&format!("hostmount_volume_mounted_timestamp_seconds{of_volume}")] > 1.7e9);

    // The same over HTTP, and nothing else.
    let get = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\\r\\nHost: x\\r\\nAccept: */*\\r\\n\\r\\n");
        let ask = format!("exec 3<>/dev/tcp/127.0.0.1/9464; printf '{request}' >&3; cat <&3");
        let answer = test.node.run("/bin/bash", &["-c", &ask]).ok("ask");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    };
    let (head, body) = get("/metrics");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    // What the mounter and helpers use may have changed since.
    let same = |samples: &BTreeMap<String, f64>| -> Vec<(String, f64)> {
        let used = ["_memory_bytes", "open_descriptors", "cpu_seconds"];
        let value = |(name, value): (&String, &f64)| {
            (name.clone(), if used.iter().any(|used| name.contains(used)) { 0.0 } else { *value })
        };
        samples.iter().map(value).collect()
    };
    assert_eq!(same(&parse(&body)), same(&samples));
    assert!(get("/").0.starts_with("HTTP/1.1 404 "));

    // Dead, and not healed: alarm.
    test.node.sh_ok("kill -9 $(pidof bindfs)");
    mounter.wait_for(events::HEAL_FAILED, 1);
    let samples = parse(&get("/metrics").1);
    assert_eq!(samples[&format!("hostmount_volume_up{of_volume}")], 0.0);
    assert_eq!(samples[r#"hostmount_volumes{state="dead"}"#], 1.0);
    assert!(samples[r#"hostmount_operations_total{operation="heal",result="failed"}"#] >= 1.0);
    assert!(!body.contains("/tmp/source"), "sources are not shown");
}
