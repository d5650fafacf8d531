//! Whether a caller may have what it asks for.
//!
//! Runs in the mounter; pure. Decided when a request arrives, and only then: a mounted volume was authorized, so
//! neither healing nor recovery decides again. A stricter rule holds for later requests.

use super::grant::{Grant, contradiction};
use super::plan::Plan;
use super::rules::{Refusal, RulesFor};
use crate::config::Config;
use api::explained::Rule;
use api::origin::Origin;
use std::path::{Path, PathBuf};

/// Why a caller may not have what it asks for, although it could be done.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// An option that contradicts the grant every volume gets.
    #[error("option '{0}' cannot be granted: volumes are always mounted nosuid,nodev")]
    NeverGranted(String),
    /// A helper would take it for an option of its own.
    #[error("a source that begins with '-' would be an option of the helper's; write ./ before the name of a file")]
    SourceIsOption,
    /// A rule of the policy's.
    #[error(transparent)]
    Policy(#[from] Refusal),
    /// A directory that the kernel shows something in, or that the mounter itself needs.
    #[error("nothing is mounted at {target}: {whose} is not for volumes", target = target.display())]
    Place {
        /// The target, without links.
        target: PathBuf,
        /// The directory that it is in, or would cover.
        whose: String,
    },
}

/// What is there is the kernel's: whoever mounts in it or over it deceives the whole node.
const KERNELS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Whether anything may be mounted at `target`, a path without links; `own` is what the mounter needs itself. Asked for the
/// target as it is named, and again as it was found.
pub fn authorize_place(target: &Path, own: &[PathBuf]) -> Result<(), Denied> {
    let kernels = KERNELS.iter().map(Path::new).find(|directory| target.starts_with(directory));
    let owns = || own.iter().map(PathBuf::as_path).find(|path| path.starts_with(target) || target.starts_with(path));
    match kernels.or_else(owns) {
        Some(path) => Err(Denied::Place { target: target.to_owned(), whose: path.display().to_string() }),
        None => Ok(()),
    }
}

/// The type by which rules name volumes that programs of pods serve.
const PROGRAM: &str = "program";

/// Whether a program of a pod may serve a volume at `target`: it may, unless the rules for the CSI server close it. What is in it is the
/// pod's own, so there is no source or option to judge.
pub fn authorize_program(target: &Path, config: &Config) -> Result<(), Denied> {
    let rules = RulesFor::new(config, Origin::Csi, PROGRAM);
    if rules.written.types.is_some() {
        rules.check_type()?;
    }
    Ok(rules.check_target(target)?)
}

/// What such a program may mount: FUSE, `nosuid,nodev`, with the flags that the rules force, and nothing to write to if the volume is
/// read-only.
///
/// Every user may enter, whether the program says `allow_other` or not, as with helpers: kubelet and the container runtime look at the
/// root, and they are not the program's user; nor are the pod's other containers. No other pod has the volume.
pub fn grant_of_program(read_only: bool, config: &Config) -> Grant {
    let mut options = config.policy.forced(Origin::Csi, PROGRAM);
    options.retain(|option| option.name != "noallow_other");
    if read_only {
        options.push_flag("ro");
    }
    Grant::of("fuse", &options)
}

/// Whether a caller from `origin` may have what is planned.
pub fn authorize(origin: Origin, plan: &Plan, config: &Config) -> Result<(), Denied> {
    let request = &plan.request;
    let (name, source) = request.filesystem();
    // Of either part helpers would make an option.
    if source.starts_with('-') || request.source.starts_with('-') {
        return Err(Denied::SourceIsOption);
    }
    if let Some(option) = contradiction(&request.options) {
        return Err(Denied::NeverGranted(option.name.clone()));
    }
    let rules = RulesFor::new(config, origin, name);
    rules.check_type()?;
    rules.check_target(&plan.target)?;
    rules.check_source(source)?;
    plan.asked.iter().try_for_each(|option| rules.check_option(option))?;
    Ok(())
}

/// By which rules it is decided whether callers from `origin` may have what is planned.
pub fn rules_of(origin: Origin, plan: &Plan, config: &Config) -> Vec<Rule> {
    RulesFor::new(config, origin, plan.request.filesystem().0).named()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::plan::tests::request;
    use api::request::Request;
    use rustix::mount::MountFlags;

    #[test]
    fn suid_and_dev_are_never_granted() {
        let asked = |options| {
            let config = Config::default();
            let plan = Plan::new(&config, Origin::Operator, request("x", "/a", options)).unwrap();
            authorize(Origin::Operator, &plan, &config)
        };
        assert_eq!(asked("ro,noexec"), Ok(()));
        assert_eq!(asked("suid"), Err(Denied::NeverGranted("suid".into())));
        assert_eq!(asked("dev,nodev"), Err(Denied::NeverGranted("dev".into())));
    }

    #[test]
    fn programs_of_pods_are_open_unless_a_rule_closes_them() {
        let config = |text: &str| Config::parse(text, Path::new("config.toml")).unwrap();
        let asked = |text: &str| authorize_program(Path::new("/var/lib/kubelet/pods/p/v"), &config(text));
        for open in [
            "",
            "[policy.csi]\ntypes = ['s3fs', 'program']",
            "[policy.csi]\ntypes = []\n[policy.csi.filesystem.program]",
            "[policy.flexvolume]\ntypes = []",
        ] {
            assert_eq!(asked(open), Ok(()), "{open}");
        }
        for closed in ["[policy.csi]\ntypes = ['s3fs']", "[policy.csi]\ntargets = ['/srv/**']"] {
            assert!(matches!(asked(closed), Err(Denied::Policy(_))), "{closed}");
        }
        let flags = |text: &str, read_only| grant_of_program(read_only, &config(text)).flags;
        let always = MountFlags::NOSUID | MountFlags::NODEV;
        assert_eq!(flags("", false), always);
        assert_eq!(flags("", true), always | MountFlags::RDONLY);
        let forced = "[policy.csi]\nforced_options = 'noexec'\n[policy.csi.filesystem.program]\nforced_options = 'nosymfollow,rw'";
        let both = always | MountFlags::NOEXEC | MountFlags::from_bits_retain(0x100);
        assert_eq!(flags(forced, true), both | MountFlags::RDONLY);
        assert!(grant_of_program(false, &config("[policy.csi]\nforced_options = 'noallow_other'")).allow_other);
    }

    #[test]
    fn a_source_is_no_option() {
        let asked = |fstype: &str, source: &str| {
            let request = Request { source: source.into(), ..request(fstype, "/a", "") };
            let config = Config::default();
            authorize(Origin::Operator, &Plan::new(&config, Origin::Operator, request).unwrap(), &config)
        };
        for (fstype, source) in [
            ("x", "-osuid"),
            ("x", "--"),
            ("x", "-"),
            ("fuse", "sshfs#-oProxyCommand=x"),
            ("fuse3", "sshfs#-oProxyCommand=x"),
            ("x", "-a#b"),
        ] {
            assert_eq!(asked(fstype, source), Err(Denied::SourceIsOption), "{source}");
        }
        for (fstype, source) in [("x", "./-o"), ("x", "a-b"), ("fuse", "sshfs#a"), ("x", "bucket#-b"), ("x", "")] {
            assert_eq!(asked(fstype, source), Ok(()), "{source}");
        }
    }

    #[test]
    fn the_kernels_and_the_mounters_own_directories_are_not_for_volumes() {
        let own = [PathBuf::from("/run/hostmount"), "/var/lib/kubelet/plugins/hostmount/bin".into()];
        let asked = |target: &str| authorize_place(Path::new(target), &own);
        for target in [
            "/proc",
            "/proc/sys/kernel",
            "/sys",
            "/sys/fs/cgroup",
            "/dev",
            "/dev/shm",
            "/run",
            "/run/hostmount",
            "/run/hostmount/mnt",
            "/var",
            "/var/lib/kubelet",
            "/var/lib/kubelet/plugins/hostmount/bin",
        ] {
            assert!(matches!(asked(target), Err(Denied::Place { .. })), "{target}");
        }
        for target in
            ["/process", "/mnt", "/run/x", "/run/hostmountx", "/var/lib/kubelet/pods/p/v", "/device", "/srv/dev"]
        {
            assert_eq!(asked(target), Ok(()), "{target}");
        }
    }
}
