//! Service-account tokens: a helper has that of its pod, and a fresh one when kubelet has one.
//!
//! Runs in the test's process.

use crate::host::wait;
use crate::load::looks;
use crate::objects::{AUDIENCE, WAIT};
use crate::provisioner::DRIVER;
use crate::steps::{SOURCE, Story};
use serde_json::json;

/// The pod whose helper has one.
pub(crate) const POD: &str = "token";
/// A type whose helper has a token, and bindfs otherwise.
const TYPE: &str = "tokenfs";

/// What an administrator adds for that type.
pub(crate) fn config() -> String {
    format!(
        "\n[filesystem.{TYPE}]\ncommand = ['bindfs', '{{source}}', '{{target}}', '-o', '{{options}}']\n\
         [filesystem.{TYPE}.files.token]\ncontent = '{{token:{AUDIENCE}}}'\n[policy.csi.filesystem.{TYPE}]\nsources = ['{SOURCE}']\n"
    )
}

/// The token that the pod's helper has, and its helper.
fn token(story: &Story) -> Option<(String, u32)> {
    let processes = story.cluster.node.processes();
    let file = |pid: u32| format!("cat /proc/{pid}/root/run/hostmount/files/token");
    let helpers = processes.into_iter().filter(|(_, line)| line.contains("bindfs"));
    let mut with_token =
        helpers.map(|(pid, _)| (story.cluster.node.sh(&file(pid)), pid)).filter(|(done, _)| done.code == Some(0));
    let (done, pid) = with_token.next()?;
    assert!(with_token.next().is_none(), "one helper has a token");
    Some((done.stdout, pid))
}

/// How often kubelet has asked the driver to mount something in a pod, as it counts.
fn publications(story: &Story) -> u64 {
    let metrics =
        "python3 -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1:10255/metrics\").read().decode())'";
    let metrics = story.cluster.node.sh_ok(metrics);
    let counts = metrics.lines().filter(|line| {
        line.starts_with("storage_operation_duration_seconds_count")
            && line.contains("volume_mount")
            && line.contains("csi:")
    });
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

pub(crate) fn a_helper_has_its_pods_token(story: &Story) -> String {
    let attributes = json!({ "type": TYPE, "source": SOURCE });
    story.start(POD, 1000, WAIT, json!({ "csi": { "driver": DRIVER, "volumeAttributes": attributes } }));
    let (token, helper) = token(story).expect("its helper has a token");
    // Kubelet repeats its call all the time, with the same token.
    let published = || publications(story);
    let before = published();
    wait("kubelet repeats its call", || published() > before + 2);
    assert_eq!(self::token(story), Some((token.clone(), helper)));
    assert!(looks(story, POD));
    let claims = token.split('.').nth(1).unwrap();
    let claims = story.cluster.node.sh(&format!("echo {claims} | tr _- /+ | base64 --decode")).stdout;
    for word in [AUDIENCE, "system:serviceaccount:default:default", &format!("\"name\":\"{POD}\"")] {
        assert!(claims.contains(word), "{word}: {claims}");
    }
    "the helper has the pod's own, for its audience; kubelet repeats its call, and nothing is mounted again".to_owned()
}

/// What must come once kubelet has forgotten the tokens that it had.
pub(crate) struct Fresh(String, u32);

/// The token as it is.
pub(crate) fn before(story: &Story) -> Fresh {
    let (token, helper) = token(story).expect("its helper has a token");
    Fresh(token, helper)
}

impl Fresh {
    /// The same helper has another one.
    pub(crate) fn wait(&self, story: &Story) {
        let fresh = || token(story).filter(|(token, _)| *token != self.0);
        let (_, helper) = wait("the helper has a fresh token", fresh);
        assert_eq!(helper, self.1);
        assert!(looks(story, POD));
    }
}
