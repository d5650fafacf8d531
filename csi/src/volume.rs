//! From kubelet's words to a request for the mounter.
//!
//! Pure. A volume's attributes (`volumeAttributes`, `volume_context`) are `type`, `source`, `subDir`, `options`, `mode`, `fsGroup` and `hostUsers`; those of a
//! volume with `mode: program` are in [`of_program`](crate::of_program). What is not known is an error, as a misspelt attribute must not be
//! ignored silently.

use crate::csi::VolumeCapability;
use crate::csi::volume_capability::AccessType;
use crate::csi::volume_capability::access_mode::Mode;
use crate::group;
use crate::volume_id::is_below_root;
use api::options::{MountOptions, OptionsError};
use api::pod::PodName;
use api::request::{Request, Switches};
use api::secret::{Secret, Secrets, TOKEN};
use serde::Deserialize;
use std::collections::HashMap;
use zeroize::Zeroizing;

/// What kubelet says of a token beside it.
#[derive(Deserialize)]
struct Token {
    token: String,
}

/// Attributes that Kubernetes adds.
const KUBERNETES: [&str; 2] = ["csi.storage.k8s.io/", "storage.kubernetes.io/"];
/// The one that says that a volume is a pod's own.
pub(crate) const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";
/// The pod.
const POD_NAME: &str = "csi.storage.k8s.io/pod.name";
const POD_NAMESPACE: &str = "csi.storage.k8s.io/pod.namespace";
/// Service-account tokens, which come as an attribute or as a secret.
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// mount(8)'s option for a directory of the filesystem.
const SUBDIR: &str = "X-mount.subdir";
/// Ours for pods with a user namespace.
const HOST_USERS: &str = "x-hostmount.host-users";

/// A volume as it is wanted.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    fstype: String,
    source: String,
    options: MountOptions,
    /// Who has a helper of its own.
    pub helper: Helper,
    /// Nobody writes, whatever pod it is.
    pub read_only: bool,
    /// One pod alone may use it.
    pub alone: bool,
    /// Service-account tokens, as kubelet gives them.
    tokens: Option<String>,
}

/// Who has a helper of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Helper {
    /// The volume: it is staged once, and shown in each pod.
    OfVolume,
    /// Each pod.
    OfPod,
}

/// Why it cannot be had. No value is named, as it may be a password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadVolume {
    /// No capability at all.
    #[error("volume_capability is missing")]
    NoCapability,
    /// A disk.
    #[error("this driver has filesystems, no block devices: use volumeMode: Filesystem")]
    Block,
    /// An access mode that is none.
    #[error("volume_capability has no access mode that is known")]
    AccessMode,
    /// An attribute.
    #[error(
        "the volume's attribute '{0}' is missing; known are type, source, subDir, options, mode, fsGroup and hostUsers"
    )]
    Missing(&'static str),
    /// Another attribute.
    #[error(
        "unknown attribute '{0}' of the volume; known are type, source, subDir, options, mode, fsGroup and hostUsers"
    )]
    Unknown(String),
    /// `mode`.
    #[error(
        "the volume's attribute 'mode' must be 'volume' (one helper for all pods), 'pod' (one for each) or 'program' (a program of \
         the pod's own)"
    )]
    Mode,
    /// What the pod's program decides.
    #[error(
        "with mode 'program' the volume has no attribute '{0}': the pod's program knows; known are mode, emptyDir, name and hostUsers"
    )]
    Programs(String),
    /// `emptyDir`.
    #[error("with mode 'program' the volume's attribute 'emptyDir' must name an emptyDir volume of the same pod's")]
    EmptyDir,
    /// They would not see each other.
    #[error("with access mode ReadWriteOncePod the volume's attribute 'mode' cannot be 'pod'")]
    PodAlone,
    /// `subDir`.
    #[error(
        "the volume's attribute 'subDir' must be a path in the filesystem, without '..', commas, quotes and backslashes"
    )]
    SubDir,
    /// `fsGroup`.
    #[error("the volume's attribute 'fsGroup' can be 'ignore' alone")]
    FsGroup,
    /// `hostUsers`.
    #[error("the volume's attribute 'hostUsers' must be 'true' or 'false', as in the pods' specification")]
    HostUsers,
    /// A group is a number.
    #[error("volume_mount_group is not a number")]
    Group,
    /// Options that are none.
    #[error(transparent)]
    Options(#[from] OptionsError),
}

/// The attribute `hostUsers`.
pub(crate) fn host_users(said: &str) -> Result<bool, BadVolume> {
    match said {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(BadVolume::HostUsers),
    }
}

/// An attribute that Kubernetes adds.
pub(crate) fn is_of_kubernetes(key: &str) -> bool {
    KUBERNETES.iter().any(|theirs| key.starts_with(theirs))
}

/// Whether nobody writes, and whether one pod alone may use it.
pub(crate) fn access(capability: &VolumeCapability) -> Result<(bool, bool), BadVolume> {
    match capability.access_mode.and_then(|mode| Mode::try_from(mode.mode).ok()) {
        None | Some(Mode::Unknown) => Err(BadVolume::AccessMode),
        Some(Mode::SingleNodeReaderOnly | Mode::MultiNodeReaderOnly) => Ok((true, false)),
        Some(Mode::SingleNodeSingleWriter) => Ok((false, true)),
        Some(_) => Ok((false, false)),
    }
}

/// Whether a volume is a pod's own, in its specification.
pub fn is_ephemeral(context: &HashMap<String, String>) -> bool {
    context.get(EPHEMERAL).is_some_and(|value| value == "true")
}

/// The pod that a volume is published for, as kubelet says it (podInfoOnMount).
pub fn pod_of(context: &HashMap<String, String>) -> Option<PodName> {
    PodName::new(context.get(POD_NAMESPACE)?, context.get(POD_NAME)?)
}

impl Wanted {
    /// What a capability and the volume's attributes ask for.
    pub fn new(capability: Option<VolumeCapability>, context: &HashMap<String, String>) -> Result<Self, BadVolume> {
        let capability = capability.ok_or(BadVolume::NoCapability)?;
        let access = access(&capability);
        let (fs_type, flags, group) = match capability.access_type {
            Some(AccessType::Mount(mount)) => (mount.fs_type, mount.mount_flags, mount.volume_mount_group),
            Some(AccessType::Block(_)) => return Err(BadVolume::Block),
            None => return Err(BadVolume::NoCapability),
        };
        let (read_only, alone) = access?;
        let (mut fstype, mut source, mut subdir, mut options, mut helper, mut no_group) =
            (None, None, None, MountOptions::default(), Helper::OfVolume, false);
        let mut users_of_host = true;
        for (key, value) in context {
            match (key.as_str(), value.as_str()) {
                ("type", value) => fstype = Some(value.to_owned()),
                ("source", value) => source = Some(value.to_owned()),
                ("subDir", value) if is_below_root(value) => subdir = Some(value.to_owned()),
                ("subDir", _) => return Err(BadVolume::SubDir),
                ("options", value) => options = MountOptions::parse(value)?,
                ("mode", "volume") => {}
                ("mode", "pod") => helper = Helper::OfPod,
                ("mode", _) => return Err(BadVolume::Mode),
                ("hostUsers", said) => users_of_host = host_users(said)?,
                ("fsGroup", "ignore") => no_group = true,
                ("fsGroup", _) => return Err(BadVolume::FsGroup),
                (key, _) if is_of_kubernetes(key) => {}
                (key, _) => return Err(BadVolume::Unknown(key.to_owned())),
            }
        }
        let fstype = fstype.or_else(|| Some(fs_type).filter(|named| !named.is_empty()));
        let fstype = fstype.ok_or(BadVolume::Missing("type"))?;
        for flag in flags {
            options.append(MountOptions::parse(&flag)?);
        }
        if !group.is_empty() && !no_group {
            let group: u32 = group.parse().map_err(|_| BadVolume::Group)?;
            // The volume's own counts, where it names one. A type without any has the groups that its server keeps: a pod with
            // another must start all the same, as some clusters give a group to every pod.
            if let Some(option) = group::option_of(&fstype).filter(|option| options.value(option).is_none()) {
                options.push_value(option, group);
            }
        }
        if !users_of_host {
            options.push_value(HOST_USERS, false);
        }
        // The last of them counts.
        if let Some(subdir) = subdir {
            options.push_value(SUBDIR, subdir);
        }
        if is_ephemeral(context) {
            helper = Helper::OfPod;
        } else if alone && helper == Helper::OfPod {
            return Err(BadVolume::PodAlone);
        }
        let tokens = context.get(TOKENS).cloned();
        Ok(Self {
            fstype,
            source: source.ok_or(BadVolume::Missing("source"))?,
            options,
            helper,
            read_only,
            alone,
            tokens,
        })
    }

    /// The request for it at a target. A pod's own helper gets the tokens of the pod's service account as well.
    pub fn request(self, target: String, read_only: bool, secrets: HashMap<String, String>) -> Request {
        let Self { fstype, source, mut options, helper, tokens, .. } = self;
        if read_only {
            options.push_flag("ro");
        }
        let mut given = tokens.filter(|_| helper == Helper::OfPod).map(to_tokens).unwrap_or_default();
        if let Some(tokens) = secrets.get(TOKENS).filter(|_| helper == Helper::OfPod) {
            given.extend(to_tokens(tokens.clone()));
        }
        given.extend(to_secrets(secrets));
        Request { fstype, source, target, options, switches: Switches::default(), secrets: given }
    }
}

/// The tokens that kubelet has for each audience. What is none is left out: the mounter says which one is missing.
fn to_tokens(text: String) -> Secrets {
    let tokens: HashMap<String, Token> = serde_json::from_str(&Zeroizing::new(text)).unwrap_or_default();
    let secret = |token: Token| Secret::new(token.token.into_bytes());
    tokens.into_iter().map(|(audience, token)| (format!("{TOKEN}{audience}"), secret(token))).collect()
}

/// What a helper may need.
pub fn to_secrets(secrets: HashMap<String, String>) -> Secrets {
    let known = secrets.into_iter().filter(|(key, _)| key != TOKENS);
    known.map(|(key, value)| (key, Secret::new(value.into_bytes()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csi::volume_capability::{AccessMode, BlockVolume, MountVolume};

    fn capability(mode: Mode, mount: MountVolume) -> Option<VolumeCapability> {
        let access_mode = Some(AccessMode { mode: mode.into() });
        Some(VolumeCapability { access_mode, access_type: Some(AccessType::Mount(mount)) })
    }

    fn context(of: &[(&str, &str)]) -> HashMap<String, String> {
        of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn wanted(mode: Mode, mount: MountVolume, of: &[(&str, &str)]) -> Result<Wanted, BadVolume> {
        Wanted::new(capability(mode, mount), &context(of))
    }

    #[test]
    fn attributes_flags_and_group_become_a_request() {
        let mount = MountVolume {
            fs_type: "ext4".into(),
            mount_flags: vec!["umask=007".into(), r#"context="a,b""#.into()],
            volume_mount_group: "2000".into(),
        };
        let of = [
            ("type", "s3fs"),
            ("source", "bucket"),
            ("options", "url=https://x,ro"),
            ("csi.storage.k8s.io/pod.name", "p"),
            ("storage.kubernetes.io/csiProvisionerIdentity", "i"),
        ];
        let wanted = wanted(Mode::MultiNodeMultiWriter, mount, &of).unwrap();
        assert_eq!((wanted.helper, wanted.read_only, wanted.alone), (Helper::OfVolume, false, false));
        let secrets = context(&[("key", "hunter2"), (TOKENS, "{}")]);
        let request = wanted.request("/t".into(), true, secrets);
        assert_eq!((request.fstype.as_str(), request.source.as_str()), ("s3fs", "bucket"));
        assert_eq!(request.options.to_string(), r#"url=https://x,ro,umask=007,context="a,b",gid=2000,ro"#);
        assert_eq!(request.secrets.len(), 1);
        assert_eq!(request.secrets["key"].reveal(), b"hunter2");
    }

    #[test]
    fn a_pods_own_helper_gets_the_pods_tokens() {
        let tokens = r#"{"a": {"token": "t1", "expirationTimestamp": "x"}, "https://b": {"token": "t2"}}"#;
        let of = |more: &[(&str, &str)], secrets: &[(&str, &str)]| {
            let all: Vec<_> = [("type", "x"), ("source", "s")].iter().chain(more).copied().collect();
            let wanted = wanted(Mode::SingleNodeMultiWriter, MountVolume::default(), &all).unwrap();
            let request = wanted.request("/t".into(), false, context(secrets));
            request.secrets.into_iter().map(|(key, secret)| (key, secret.reveal().to_vec())).collect::<Vec<_>>()
        };
        let both = vec![("token:a".to_owned(), b"t1".to_vec()), ("token:https://b".to_owned(), b"t2".to_vec())];
        assert_eq!(of(&[("mode", "pod"), (TOKENS, tokens)], &[]), both);
        assert_eq!(of(&[("mode", "pod")], &[(TOKENS, tokens)]), both, "as Kubernetes 1.36 does it");
        assert_eq!(of(&[(TOKENS, tokens)], &[(TOKENS, tokens)]), []);
        assert_eq!(of(&[("mode", "pod"), (TOKENS, "nonsense")], &[]), []);
    }

    #[test]
    fn access_modes() {
        let of = |mode| wanted(mode, MountVolume::default(), &[("type", "x"), ("source", "s")]);
        assert!(of(Mode::SingleNodeReaderOnly).unwrap().read_only && of(Mode::MultiNodeReaderOnly).unwrap().read_only);
        assert!(of(Mode::SingleNodeSingleWriter).unwrap().alone);
        for mode in [
            Mode::SingleNodeWriter,
            Mode::MultiNodeSingleWriter,
            Mode::MultiNodeMultiWriter,
            Mode::SingleNodeMultiWriter,
        ] {
            let wanted = of(mode).unwrap();
            assert!(!wanted.alone && !wanted.read_only);
        }
        assert_eq!(of(Mode::Unknown), Err(BadVolume::AccessMode));
    }

    #[test]
    fn who_has_a_helper() {
        let of = |mode, more: &[(&str, &str)]| {
            let all: Vec<_> = [("type", "x"), ("source", "s")].iter().chain(more).copied().collect();
            wanted(mode, MountVolume::default(), &all).map(|wanted| wanted.helper)
        };
        let many = Mode::SingleNodeMultiWriter;
        assert_eq!(of(many, &[]), Ok(Helper::OfVolume));
        assert_eq!(of(many, &[("mode", "volume")]), Ok(Helper::OfVolume));
        assert_eq!(of(many, &[("mode", "pod")]), Ok(Helper::OfPod));
        assert_eq!(of(many, &[(EPHEMERAL, "true")]), Ok(Helper::OfPod));
        assert_eq!(of(many, &[(EPHEMERAL, "false")]), Ok(Helper::OfVolume));
        assert_eq!(of(many, &[("mode", "x")]), Err(BadVolume::Mode));
        assert_eq!(of(Mode::SingleNodeSingleWriter, &[("mode", "pod")]), Err(BadVolume::PodAlone));
        assert_eq!(of(Mode::SingleNodeSingleWriter, &[(EPHEMERAL, "true")]), Ok(Helper::OfPod));
    }

    #[test]
    fn pods_with_a_user_namespace_are_an_option_of_the_volume() {
        let options = |of: &str| {
            let of = [("type", "x"), ("source", "s"), ("hostUsers", of)];
            let wanted = wanted(Mode::MultiNodeMultiWriter, MountVolume::default(), &of).unwrap();
            wanted.request("/t".into(), false, context(&[])).options.to_string()
        };
        assert_eq!((&*options("true"), &*options("false")), ("", "x-hostmount.host-users=false"));
    }

    #[test]
    fn what_is_not_understood_is_an_error_that_names_no_value() {
        let error = |mount, of: &[(&str, &str)]| wanted(Mode::SingleNodeWriter, mount, of).unwrap_err();
        let plain = MountVolume::default;
        assert_eq!(error(plain(), &[("source", "s")]), BadVolume::Missing("type"));
        assert_eq!(error(plain(), &[("type", "x")]), BadVolume::Missing("source"));
        assert_eq!(error(plain(), &[("server", "s")]), BadVolume::Unknown("server".into()));
        assert_eq!(error(plain(), &[("fsGroup", "5")]), BadVolume::FsGroup);
        assert_eq!(error(plain(), &[("hostUsers", "no")]), BadVolume::HostUsers);
        for bad in ["", "..", "/a", "a/../b", "a,suid"] {
            assert_eq!(error(plain(), &[("subDir", bad)]), BadVolume::SubDir, "{bad}");
        }
        let options = error(plain(), &[("options", "password=\"hunter2")]).to_string();
        assert!(options.contains("'password'") && !options.contains("hunter2"));
        let group = |group: &str| MountVolume { volume_mount_group: group.into(), ..plain() };
        assert_eq!(error(group("x"), &[("type", "s3fs"), ("source", "s")]), BadVolume::Group);
        let of = [("type", "glusterfs"), ("source", "s")];
        for (fstype, more, options) in
            [("glusterfs", &[][..], ""), ("s3fs", &[("fsGroup", "ignore")], ""), ("s3fs", &[], "gid=5")]
        {
            let all: Vec<_> = [("type", fstype), of[1]].iter().chain(more).copied().collect();
            let grouped = wanted(Mode::SingleNodeWriter, group("5"), &all).unwrap();
            assert_eq!(grouped.options.to_string(), options, "{fstype}");
        }
        let below =
            wanted(Mode::SingleNodeWriter, plain(), &[of[0], of[1], ("options", "a"), ("subDir", "x/y")]).unwrap();
        assert_eq!(below.options.to_string(), "a,X-mount.subdir=x/y");
        let own = wanted(Mode::SingleNodeWriter, group("5"), &[("type", "s3fs"), of[1], ("options", "gid=7")]).unwrap();
        assert_eq!(own.options.to_string(), "gid=7");
        assert_eq!(Wanted::new(None, &context(&of)), Err(BadVolume::NoCapability));
        let access_mode = Some(AccessMode { mode: Mode::SingleNodeWriter.into() });
        let block = VolumeCapability { access_mode, access_type: Some(AccessType::Block(BlockVolume {})) };
        assert_eq!(Wanted::new(Some(block), &context(&of)), Err(BadVolume::Block));
    }
}
