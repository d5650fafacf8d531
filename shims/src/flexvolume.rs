//! The FlexVolume driver `hostmount~fuse/fuse`: kubelet's calls, answered with one JSON object on standard output.
//!
//! Runs on the node as kubelet's child. Nothing is written to standard error: kubelet reads both as one, and anything
//! beside the object breaks it. The call's format: Kubernetes' docs/devel/flexvolume.md.

use crate::umount8::unmount_volume;
use api::client::Client;
use api::exit::chain;
use api::message::Mount;
use api::options::{MountOptions, OptionsError};
use api::origin::Origin;
use api::pod::PodName;
use api::request::{Request, Switches};
use api::secret::{NotBase64, Secret, Secrets};
use linux::statx::device_at;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::path::Path;

/// Kubelet's own keys; everything else in a volume's options is the user's.
const KUBELETS: &str = "kubernetes.io/";
const POD_NAME: &str = "kubernetes.io/pod.name";
const POD_NAMESPACE: &str = "kubernetes.io/pod.namespace";
const SECRETS: &str = "kubernetes.io/secret/";

/// The exit status of a call that failed.
const FAILURE: u8 = 1;

/// What a call comes to.
#[derive(Debug)]
enum Answer {
    Success,
    Capabilities,
    Failure(String),
    NotSupported,
}

/// Why a volume's options are not a request. It names keys and no values, which may be secrets.
#[derive(Debug, thiserror::Error)]
pub enum BadOptions {
    /// Something else.
    #[error("the volume's options are not a JSON object of strings")]
    Json,
    /// A key that must be there.
    #[error("the volume's option '{0}' is missing; known are fstype, source and options")]
    Missing(&'static str),
    /// A key that is neither kubelet's nor ours.
    #[error("unknown option '{0}' of the volume; known are fstype, source and options")]
    Unknown(String),
    /// Kubelet writes secrets in base64.
    #[error("the volume's secret '{key}' cannot be read")]
    Secret {
        /// Its key in the secret.
        key: String,
        /// What is wrong with it.
        source: NotBase64,
    },
    /// The mount options among them.
    #[error(transparent)]
    Options(#[from] OptionsError),
}

/// Runs one call, and returns the exit status; `arguments` are those after the program's name.
pub fn main(arguments: &[OsString]) -> u8 {
    let words: Option<Vec<&str>> = arguments.iter().map(|word| word.to_str()).collect();
    let answer = match words.as_deref() {
        Some(["init"]) => Answer::Capabilities,
        Some(["mount", target, options]) => mount(target, options),
        Some(["unmount", target]) => unmount(Path::new(target)),
        Some(["mount" | "unmount" | "init", ..]) => Answer::Failure("wrong number of arguments".to_owned()),
        Some([]) => Answer::Failure("no call is named; kubelet calls init, mount and unmount".to_owned()),
        Some(_) => Answer::NotSupported,
        None => Answer::Failure("an argument is not valid UTF-8".to_owned()),
    };
    linux::say!("{}", answer.to_json());
    match answer {
        Answer::Success | Answer::Capabilities => 0,
        Answer::Failure(_) | Answer::NotSupported => FAILURE,
    }
}

impl Answer {
    fn to_json(&self) -> Value {
        match self {
            Self::Success => json!({ "status": "Success" }),
            // attach: there is no controller to attach anything. fsGroup and selinuxRelabel: kubelet would change
            // owners and labels of every file on a remote filesystem that other nodes use too.
            Self::Capabilities => json!({
                "status": "Success",
                "capabilities": {
                    "attach": false,
                    "selinuxRelabel": false,
                    "fsGroup": false,
                    "requiresFSResize": false,
                    "supportsMetrics": false,
                },
            }),
            Self::Failure(message) => json!({ "status": "Failure", "message": message }),
            Self::NotSupported => json!({ "status": "Not supported", "message": "hostmount does not serve this call" }),
        }
    }
}

fn mount(target: &str, options: &str) -> Answer {
    let asked = match asked(target, options) {
        Ok(asked) => asked,
        Err(error) => return Answer::Failure(chain(&error)),
    };
    // A call may come twice. The directory is the volume's own, so what is mounted there is the volume.
    if let Ok(Some(_)) = device_at(Path::new(target)) {
        return Answer::Success;
    }
    match Client::from_environment(Origin::FlexVolume).mount(asked) {
        Ok(_) => Answer::Success,
        Err(error) => Answer::Failure(error.into_failure().in_an_event("\n")),
    }
}

/// Turns a volume's options into what is asked of the mounter. A user's key may have the name of one of kubelet's and replace it:
/// kubelet's keys about the pod are therefore shown, and used for nothing else.
fn asked(target: &str, options: &str) -> Result<Mount, BadOptions> {
    let request = request(target, options)?;
    let given: Map<String, Value> = serde_json::from_str(options).map_err(|_| BadOptions::Json)?;
    let word = |key: &str| given.get(key)?.as_str();
    let pod = word(POD_NAMESPACE).zip(word(POD_NAME)).and_then(|(namespace, name)| PodName::new(namespace, name));
    Ok(Mount { pod, ..request.into() })
}

/// Turns a volume's options into a request.
pub fn request(target: &str, options: &str) -> Result<Request, BadOptions> {
    let given: Map<String, Value> = serde_json::from_str(options).map_err(|_| BadOptions::Json)?;
    let mut fstype = None;
    let mut source = None;
    let mut mount_options = MountOptions::default();
    let mut secrets = Secrets::new();
    let mut read_only = false;
    for (key, value) in &given {
        let value = value.as_str().ok_or(BadOptions::Json)?;
        match key.as_str() {
            "fstype" => fstype = Some(value),
            "source" => source = Some(value),
            "options" => mount_options = MountOptions::parse(value)?,
            "kubernetes.io/fsType" if !value.is_empty() => fstype = fstype.or(Some(value)),
            "kubernetes.io/readwrite" => read_only = value == "ro",
            key if let Some(key) = key.strip_prefix(SECRETS) => {
                let key = key.to_owned();
                match Secret::from_base64(value) {
                    Ok(secret) => _ = secrets.insert(key, secret),
                    Err(source) => return Err(BadOptions::Secret { key, source }),
                }
            }
            key if key.starts_with(KUBELETS) => {}
            key => return Err(BadOptions::Unknown(key.to_owned())),
        }
    }
    if read_only {
        mount_options.push_flag("ro");
    }
    Ok(Request {
        fstype: fstype.ok_or(BadOptions::Missing("fstype"))?.to_owned(),
        source: source.ok_or(BadOptions::Missing("source"))?.to_owned(),
        target: target.to_owned(),
        options: mount_options,
        switches: Switches::default(),
        secrets,
    })
}

/// Unmounts what is there. Without a mount it succeeds, as a call may come twice, or before the mount.
fn unmount(target: &Path) -> Answer {
    match unmount_volume(target, UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Answer::Success,
        Err(errno) => Answer::Failure(format!("cannot unmount {}: {errno}", target.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelets_object_becomes_a_request() {
        let options = r#"{"kubernetes.io/fsType":"","kubernetes.io/pod.name":"p","kubernetes.io/readwrite":"ro",
            "fstype":"sshfs","source":"me@host:/x","options":"port=22,IdentityFile=\"/a,b\"","kubernetes.io/secret/a.b":"aHVudGVyMg=="}"#;
        let request = request("/t", options).unwrap();
        assert_eq!((request.fstype.as_str(), request.source.as_str()), ("sshfs", "me@host:/x"));
        assert_eq!(request.options.to_string(), "port=22,IdentityFile=\"/a,b\",ro");
        assert_eq!(request.secrets["a.b"].reveal(), b"hunter2");
    }

    #[test]
    fn what_is_not_understood_is_an_error_that_names_no_value() {
        let error = |options: &str| request("/t", options).unwrap_err().to_string();
        assert!(error("{").contains("not a JSON object"));
        assert!(error("[]").contains("not a JSON object"));
        assert!(error(r#"{"source":5}"#).contains("not a JSON object"));
        assert!(error(r#"{"source":"s"}"#).contains("'fstype' is missing"));
        assert!(error(r#"{"fstype":"s3fs"}"#).contains("'source' is missing"));
        assert!(error(r#"{"volume":"v"}"#).contains("unknown option 'volume'"));
        assert!(error(r#"{"options":"a=\"b"}"#).contains("'a' is never closed"));
        let secret = error(r#"{"kubernetes.io/secret/password":"aHVudGVyMg"}"#);
        assert!(secret.contains("'password'") && !secret.contains("aHVudGVy"), "{secret}");
    }
}
