//! Service-account tokens: kubelet repeats NodePublishVolume with fresh ones, and the helper finds them in a file.

use crate::driver::{Driver, Volume, fails, strings};
use crate::harness::{Test, tests};
use hostmount::observe::events;
use std::sync::atomic::{AtomicBool, Ordering};
use tonic::Code;

pub(crate) fn tests() -> Vec<Test> {
    tests![a_pods_token_is_a_file_that_is_replaced.needs(&["nsenter"]), a_fresh_token_never_makes_a_call_fail.quick(),]
}

const CONFIG: &str = "[filesystem.recorder.files.token]\ncontent = \"{token:https://sts}\"\noption = \"token\"";
const HELPER: &str = "exec /usr/sbin/mount.memfs \"$1\" \"$2\"";
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

fn start() -> Driver {
    let driver = Driver::with_config(CONFIG);
    driver.test.container.helper("recorder", HELPER);
    driver
}

fn said_by_kubelet(token: &str) -> String {
    format!(
        "{{\"https://sts\": {{\"token\": \"{token}\", \"expirationTimestamp\": \"2026-11-28T00:00:00Z\"}}, \"x\": {{\"token\": \"other\"}}}}"
    )
}

/// As kubelet publishes it, with this token among the attributes, or (Kubernetes 1.36) among the secrets.
fn with_token(token: &str, in_secrets: bool) -> Volume {
    let mut volume = Volume::of("v", &[("type", "recorder"), ("source", "x")]).ephemeral();
    let place = if in_secrets { &mut volume.secrets } else { &mut volume.context };
    place.extend(strings(&[(TOKENS, &said_by_kubelet(token))]));
    volume
}

impl Driver {
    /// The file as the one helper finds it, and its helper.
    fn token(&self) -> (String, u32) {
        let [helper] = self.test.pids_of("memfs").try_into().unwrap();
        let file = format!("/proc/{helper}/root/run/hostmount/files/token");
        (self.test.node.sh_ok(&format!("cat {file}")), helper)
    }
}

fn a_pods_token_is_a_file_that_is_replaced() {
    let mut driver = start();
    driver.publish(&with_token("t0ken-1", false), "p").unwrap();
    let (token, helper) = driver.token();
    assert_eq!(token, "t0ken-1");
    let about = || {
        let file = format!("/proc/{helper}/root/run/hostmount/files");
        driver.test.node.sh_ok(&format!("ls {file}; stat -c '%a %u %g' {file}/token; stat -c %u /proc/{helper}"))
    };
    let (before, mounts) = (about(), driver.test.node.mountinfo());
    for (number, in_secrets) in [(2, true), (2, true), (3, false), (3, false)] {
        let token = format!("t0ken-{number}");
        driver.publish(&with_token(&token, in_secrets), "p").unwrap();
        assert_eq!(driver.token(), (token, helper));
    }
    assert_eq!(driver.mounter().count(events::TOKENS_RENEWED), 2, "the same token is no news");
    assert_eq!((about(), driver.test.node.mountinfo()), (before, mounts));
    // It is the helper's to read, and nobody's to write.
    let write = format!("nsenter --target {helper} --mount sh -c 'echo >>/run/hostmount/files/token'");
    assert!(driver.test.node.sh(&write).stderr.contains("Read-only file system"));

    // However often it is replaced, a reader finds a whole one.
    let (file, done) = (format!("/proc/{helper}/root/run/hostmount/files/token"), AtomicBool::new(false));
    let read = || driver.test.node.visit(|| std::fs::read(&file).unwrap());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let found = read();
                let one = found.first().filter(|first| found.iter().all(|byte| byte == *first));
                assert!(found == b"t0ken-3" || one.is_some() && found.len() == 9000, "{} bytes", found.len());
            }
        });
        for letter in ["a", "b"].repeat(20) {
            driver.publish(&with_token(&letter.repeat(9000), false), "p").unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });

    // The next helper has the latest, and so has one that a mounter healed which has not mounted it.
    driver.test.node.sh_ok(&format!("kill -9 {helper}"));
    driver.mounter().wait_for(events::HEALED, 1);
    assert_eq!(driver.token().0, "b".repeat(9000));
    driver.start_mounter();
    driver.publish(&with_token("t0ken-4", false), "p").unwrap();
    let (token, helper) = driver.token();
    assert_eq!(token, "t0ken-4");
    driver.test.node.sh_ok(&format!("kill -9 {helper}"));
    driver.mounter().wait_for(events::HEALED, 1);
    assert_eq!(driver.token().0, "t0ken-4");
    for said in [driver.csi.as_ref().unwrap().said(), driver.mounter().said()] {
        assert!(!said.contains("t0ken"), "{said}");
    }
    driver.unpublish(&with_token("", false), "p").unwrap();
    driver.wait_until_nothing_is_left("memfs");
}

fn a_fresh_token_never_makes_a_call_fail() {
    let driver = start();
    let without = Volume::of("v", &[("type", "recorder"), ("source", "x")]).ephemeral();
    fails(
        driver.publish(&without, "p"),
        Code::InvalidArgument,
        "no service-account token for the audience 'https://sts'",
    );
    // A helper of all pods has none.
    let staged = Volume {
        context: strings(&[("type", "recorder"), ("source", "x"), (TOKENS, &said_by_kubelet("t"))]),
        ..without.clone()
    };
    fails(driver.stage(&Volume { id: "w".into(), ..staged }), Code::InvalidArgument, "mode: pod");
    driver.publish(&with_token("first", false), "p").unwrap();
    let mounts = driver.test.node.mountinfo();
    let nonsense = |text: &str| {
        let mut volume = without.clone();
        volume.context.extend(strings(&[(TOKENS, text)]));
        volume
    };
    let (_, helper) = driver.token();
    for volume in [nonsense("nonsense"), nonsense("{}"), without.clone()] {
        driver.publish(&volume, "p").unwrap();
    }
    let mut more = with_token("second", false);
    more.secrets.insert("unknown".into(), "x".into());
    driver.publish(&more, "p").unwrap();
    assert_eq!(driver.token(), ("first".to_owned(), helper));
    assert_eq!(driver.mounter().count(events::TOKENS_NOT_RENEWED), 4);
    // A helper that hangs is not waited for.
    driver.test.node.sh_ok(&format!("kill -STOP {helper}"));
    driver.publish(&with_token("third", false), "p").unwrap();
    driver.test.node.sh_ok(&format!("kill -CONT {helper}"));
    assert_eq!(driver.token(), ("third".to_owned(), helper));
    // Another type has the same tokens, and no use for them.
    let mut other = Volume { id: "o".into(), ..with_token("t", false) };
    other.context.insert("type".into(), "bindfs".into());
    other.context.insert("source".into(), "/srv/source".into());
    driver.publish(&other, "q").unwrap();
    driver.unpublish(&other, "q").unwrap();
    driver.test.wait_for_processes("bindfs", 0);
    assert_eq!(driver.test.node.mountinfo(), mounts);
}
