//! The plan: a request and its type's settings, understood once.
//!
//! Runs in the mounter; pure: it depends on the request and the settings only. Whether the target and a helper exist is
//! checked later, on the node and in the container. Whether the caller may have it is decided by
//! [`authorize`](super::authorize()).

use super::grant::{Grant, GrantedTypes};
use super::idmap::{self, IdMap};
use super::shown_options::source_without_secrets;
use crate::config::Config;
use crate::config::settings::Settings;
use api::message::Changes;
use api::mount_words::acts_on_existing_mounts;
use api::options::MountOptions;
use api::origin::Origin;
use api::request::Request;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// A request that can be served, with its grant and its type's settings.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The request, with the default and forced options of its type.
    pub request: Request,
    /// The options that the caller has given; the others are the administrator's.
    pub asked: MountOptions,
    /// Its target without `.` and doubled slashes.
    pub target: PathBuf,
    /// What the helper may do.
    pub grant: Grant,
    /// Which owners the volume shows for the stored ones, if not the same.
    pub idmap: Option<IdMap>,
    /// The directory of the filesystem that is shown, if not all of it: a path without `..` below its root.
    pub subdir: Option<PathBuf>,
    /// Whether the pod's users are the node's: without, what shows is a placeholder whose ids a container runtime can map.
    pub host_users: bool,
    /// The settings of its type.
    pub settings: Arc<Settings>,
}

/// The option that names the directory to be shown, as mount(8) has it.
pub(super) const SUBDIR: &str = "X-mount.subdir";

/// The option for pods with a user namespace: `false`, as in their `hostUsers`.
const HOST_USERS: &str = "x-hostmount.host-users";

/// Why a request is malformed, or cannot be served for any caller.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Kubelet always gives absolute targets; the mounter could not know what another one is relative to.
    #[error("the target must be an absolute path")]
    NotAbsolute,
    /// `..` in a target is never needed, and paths of pods are not trusted with it.
    #[error("the target must not contain '..'")]
    ParentComponent,
    /// Nothing is mounted over the node's root.
    #[error("the target must not be the node's root directory")]
    Root,
    /// A NUL byte ends a path for the kernel.
    #[error("the {0} holds a NUL byte")]
    Nul(&'static str),
    /// An empty or impossible type.
    #[error("'{0}' is not the name of a filesystem type")]
    BadType(String),
    /// An operation on existing mounts, which is left to the node's own mount program.
    #[error("option '{0}' changes existing mounts and is not served; use the node's own mount")]
    NotAMount(String),
    /// A malformed mapping of ids.
    #[error(
        "option 'X-mount.idmap' takes ranges as u:0:1000:1 or b:0:1000:65536 (users, groups or both; the first id stored, the \
         first id shown, how many), separated by spaces; the path of a user namespace is not served"
    )]
    IdMap,
    /// A directory that is none, or not one in the filesystem.
    #[error("option 'X-mount.subdir' takes the path of a directory below the filesystem's root, without '..'")]
    Subdir,
    /// Neither `true` nor `false`.
    #[error("option 'x-hostmount.host-users' takes true or false")]
    HostUsers,
    /// A mapping of the volume's own, and the pod's.
    #[error(
        "X-mount.idmap and x-hostmount.host-users=false exclude each other: the kernel maps the ids of a mount once"
    )]
    MappedTwice,
    /// What no placeholder is for.
    #[error("x-hostmount.host-users=false is served for FUSE filesystems, and '{0}' is the kernel's own")]
    KernelsUsers(String),
    /// An option that mount(8) carries out itself, around the mount. If it were dropped, that would be noticed much
    /// later.
    #[error("option '{0}' is not served: {1}")]
    Mount8s(String, &'static str),
}

/// Why a volume's request cannot be changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The new request cannot be served.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Flags and owners belong to each place where the volume is mounted, and a swap keeps them.
    #[error(
        "the new options change mount flags (ro, noexec, noatime and their like), X-mount.idmap, X-mount.subdir or x-hostmount.host-users, which a \
         swap leaves as they are: use mount -o remount, or unmount the volume and mount it again"
    )]
    Flags,
}

impl Plan {
    /// The plan for a request that has arrived from `origin`, with what is forced onto it.
    pub fn new(config: &Config, origin: Origin, request: Request) -> Result<Self, PlanError> {
        let settings = config.settings(&request);
        let asked = request.options.clone();
        let forced = config.policy.forced(origin, request.filesystem().0);
        let mut request = settings.complete(request);
        request.options.force(&forced);
        Ok(Self { asked, ..Self::of(settings, request)? })
    }

    /// The plan of a mounted volume: its options are the recorded ones, whatever defaults its type has by now.
    pub fn recorded(config: &Config, request: Request) -> Result<Self, PlanError> {
        Self::of(config.settings(&request), request)
    }

    /// The plan of a mounted volume whose request is not known, or is not understood any more: no fresh helper must be
    /// started for it. It has no options.
    pub fn of_lost_request(config: &Config, request: Request) -> Self {
        let request = Request { options: MountOptions::default(), ..request };
        Self {
            asked: MountOptions::default(),
            target: Path::new(&request.target).components().collect(),
            grant: Grant::of(&request.fstype, &request.options),
            idmap: None,
            subdir: None,
            host_users: true,
            settings: config.settings(&request),
            request,
        }
    }

    /// What is to be mounted, as people may see it: without secrets.
    pub fn source_shown(&self) -> String {
        source_without_secrets(&self.request.source)
    }

    /// The plan for a fresh helper, with these changes, which a caller from `origin` asks for.
    pub fn changed(&self, config: &Config, origin: Origin, changes: Changes) -> Result<Self, ChangeError> {
        let Changes { options, secrets } = changes;
        let mut request = self.request.clone();
        request.secrets.extend(secrets);
        let Some(options) = options else { return Ok(Self { request, ..self.clone() }) };
        let changed = Self::new(config, origin, Request { options, ..request })?;
        let shown = |plan: &Self| (plan.grant.flags, plan.idmap.clone(), plan.subdir.clone(), plan.host_users);
        let same = shown(&changed) == shown(self);
        if same { Ok(changed) } else { Err(ChangeError::Flags) }
    }

    fn of(settings: Arc<Settings>, request: Request) -> Result<Self, PlanError> {
        let target = normal(&request.target)?;
        if request.source.contains('\0') {
            return Err(PlanError::Nul("source"));
        }
        // The type becomes part of a program's name: `mount.TYPE`.
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
        if request.fstype.is_empty() || !request.fstype.chars().all(good) || request.fstype.starts_with(['.', '-']) {
            return Err(PlanError::BadType(request.fstype));
        }
        refuse_unserved(&request.options)?;
        let grant = Grant::of(&request.fstype, &request.options);
        let idmap = request.options.iter().rfind(|option| option.name == idmap::OPTION);
        let idmap = idmap.map(|option| option.value.as_deref().and_then(IdMap::parse).ok_or(PlanError::IdMap));
        let subdir = request.options.iter().rfind(|option| option.name == SUBDIR);
        let subdir = subdir.map(|option| option.value.as_deref().and_then(below_root).ok_or(PlanError::Subdir));
        let (idmap, subdir) = (idmap.transpose()?, subdir.transpose()?);
        let host_users = request.options.iter().rfind(|option| option.name == HOST_USERS);
        let host_users = match host_users.map(|option| option.value.as_deref()) {
            None | Some(Some("true")) => true,
            Some(Some("false")) => false,
            Some(_) => return Err(PlanError::HostUsers),
        };
        if !host_users && GrantedTypes::is_kernels(&request.fstype) {
            return Err(PlanError::KernelsUsers(request.fstype));
        }
        if !host_users && idmap.is_some() {
            return Err(PlanError::MappedTwice);
        }
        let asked = request.options.clone();
        Ok(Self { asked, target, grant, idmap, subdir, host_users, settings, request })
    }
}

/// A path below a filesystem's root: at least one name, and no `..`.
pub fn below_root(path: &str) -> Option<PathBuf> {
    let below = Path::new(path.trim_start_matches('/'));
    let names = below.components().all(|part| matches!(part, Component::Normal(_)));
    (names && !below.as_os_str().is_empty() && !path.contains('\0')).then(|| below.components().collect())
}

/// A path on the node without `.` and doubled slashes: absolute, without `..`, and not the root.
pub fn normal(target: &str) -> Result<PathBuf, PlanError> {
    if target.contains('\0') {
        return Err(PlanError::Nul("target"));
    }
    let path = Path::new(target);
    if !path.is_absolute() {
        return Err(PlanError::NotAbsolute);
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(PlanError::ParentComponent);
    }
    let target: PathBuf = path.components().collect();
    if target == Path::new("/") {
        return Err(PlanError::Root);
    }
    Ok(target)
}

/// Refuses options that neither the helper nor the grant carries out.
fn refuse_unserved(options: &MountOptions) -> Result<(), PlanError> {
    for option in options.iter() {
        if let Some(instead) = instead_of_mount8(&option.name) {
            return Err(PlanError::Mount8s(option.name.clone(), instead));
        }
        if option.value.is_none() && acts_on_existing_mounts(&option.name) {
            return Err(PlanError::NotAMount(option.name.clone()));
        }
    }
    Ok(())
}

/// The advice for an option that mount(8) carries out itself; `None`: any other option. Other `x-` and `X-` options are
/// comments, and have no effect on a mount.
fn instead_of_mount8(name: &str) -> Option<&'static str> {
    // mount(8) still knows the old `x-mount.mkdir`.
    let word = name.strip_prefix("X-mount.").or_else(|| name.strip_prefix("x-mount."))?;
    if [idmap::OPTION, SUBDIR].contains(&name) {
        return None;
    }
    Some(match word {
        "owner" | "group" | "mode" => {
            "use the helper's own options for owners, like uid=, gid= and umask=, or chown(1) and chmod(1) afterwards"
        }
        "mkdir" => "make the target before it is mounted",
        _ => "it is for mount(8) itself, which does not mount this volume",
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::policy::authorize;
    use api::request::Switches;

    pub(in crate::policy) fn request(fstype: &str, target: &str, options: &str) -> Request {
        Request {
            fstype: fstype.into(),
            source: "source".into(),
            target: target.into(),
            options: MountOptions::parse(options).unwrap(),
            switches: Switches::default(),
            secrets: Default::default(),
        }
    }

    fn plan(fstype: &str, target: &str, options: &str) -> Result<Plan, PlanError> {
        Plan::new(&Config::default(), Origin::Operator, request(fstype, target, options))
    }

    #[test]
    fn targets_are_absolute_and_normal() {
        assert_eq!(plan("glusterfs", "/a//b/./c/", "").unwrap().target, Path::new("/a/b/c"));
        for bad in ["a/b", "", "/a/../b", "/", "//", "/a\0b"] {
            assert!(plan("glusterfs", bad, "").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn types_name_programs_and_nothing_else() {
        assert!(plan("fuse.s3fs", "/a", "").is_ok());
        for bad in ["", "../x", "a/b", "-o", ".x", "a b"] {
            assert_eq!(plan(bad, "/a", "").err(), Some(PlanError::BadType(bad.into())));
        }
    }

    #[test]
    fn what_acts_on_existing_mounts_is_not_served() {
        for word in ["remount,ro", "bind", "rbind", "move", "shared", "rslave", "private", "runbindable"] {
            assert!(matches!(plan("x", "/a", word), Err(PlanError::NotAMount(_))), "{word}");
        }
    }

    #[test]
    fn what_mount8_carries_out_itself_is_not_dropped() {
        for word in ["ro,X-mount.owner=5", "X-mount.mkdir", "x-mount.mkdir=0700", "X-mount.new"] {
            assert!(matches!(plan("x", "/a", word), Err(PlanError::Mount8s(..))), "{word}");
        }
        for comment in ["x-systemd.automount", "X-other", "x-mount", "X-mounted.by=me"] {
            assert!(plan("x", "/a", comment).is_ok(), "{comment}");
        }
    }

    #[test]
    fn a_mapping_of_ids_is_one_or_an_error() {
        assert_eq!(plan("x", "/a", "X-mount.idmap=u:0:5:1").unwrap().idmap.unwrap().users, "0 5 1\n");
        assert_eq!(plan("x", "/a", "").unwrap().idmap, None);
        for bad in ["X-mount.idmap", "X-mount.idmap=", "X-mount.idmap=u:5", "X-mount.idmap=/proc/1/ns/user"] {
            assert_eq!(plan("x", "/a", bad).err(), Some(PlanError::IdMap), "{bad}");
        }
    }

    #[test]
    fn users_are_the_nodes_unless_it_is_said_otherwise() {
        let of = |fstype: &str, options: &str| plan(fstype, "/a", options).map(|plan| plan.host_users);
        assert_eq!((of("x", ""), of("x", "x-hostmount.host-users=true")), (Ok(true), Ok(true)));
        assert_eq!(of("x", "x-hostmount.host-users=true,x-hostmount.host-users=false"), Ok(false));
        for bad in ["x-hostmount.host-users", "x-hostmount.host-users=no"] {
            assert_eq!(of("x", bad), Err(PlanError::HostUsers));
        }
        assert_eq!(of("nfs", "x-hostmount.host-users=false"), Err(PlanError::KernelsUsers("nfs".into())));
        assert_eq!(of("x", "x-hostmount.host-users=false,X-mount.idmap=u:0:5:1"), Err(PlanError::MappedTwice));
    }

    #[test]
    fn a_directory_is_below_the_root_or_an_error() {
        let subdir = |options: &str| plan("x", "/a", options).map(|plan| plan.subdir);
        assert_eq!(subdir("X-mount.subdir=/a//b/"), Ok(Some("a/b".into())));
        assert_eq!(subdir("X-mount.subdir=a,X-mount.subdir=b"), Ok(Some("b".into())));
        assert_eq!(subdir(""), Ok(None));
        for bad in ["", "=", "=/", "=..", "=a/../b", "=./a", "=a/.."] {
            assert_eq!(subdir(&format!("X-mount.subdir{bad}")).err(), Some(PlanError::Subdir), "{bad}");
        }
    }

    #[test]
    fn a_swap_changes_the_helpers_options_and_nothing_else() {
        let config = Config::default();
        let before = plan("x", "/a", "ro,uid=5").unwrap();
        let swap = |options: &str| {
            let options = Some(MountOptions::parse(options).unwrap());
            before.changed(&config, Origin::Operator, Changes { options, secrets: Default::default() })
        };
        assert_eq!(swap("uid=6,ro").unwrap().request.options.to_string(), "uid=6,ro");
        for flags in [
            "uid=5",
            "ro,uid=5,noexec",
            "ro,uid=5,X-mount.idmap=u:0:5:1",
            "ro,uid=5,X-mount.subdir=a",
            "ro,uid=5,x-hostmount.host-users=false",
        ] {
            assert_eq!(swap(flags).err(), Some(ChangeError::Flags), "{flags}");
        }
        // Not a flag of the grant: `authorize` decides about it.
        assert!(authorize(Origin::Operator, &swap("ro,suid").unwrap(), &config).is_err());
        assert!(matches!(swap("ro,remount"), Err(ChangeError::Plan(PlanError::NotAMount(_)))));
        assert_eq!(before.changed(&config, Origin::Operator, Changes::default()).unwrap().request, before.request);
    }
}
