//! Which program in the container serves a type, and how it is called.
//!
//! Runs in the mounter; it only looks at file names in the container.

use crate::policy::Admitted;
use crate::request::{MountOption, MountOptions};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where administrators' programs are, whatever PATH says: mount(8) looks for its helpers there too.
const SYSTEM_DIRECTORIES: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that serves a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its file in the container.
    pub path: PathBuf,
    style: Style,
}

/// How a program wants to be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// `mount.TYPE SOURCE TARGET [-snv] -o OPTIONS [-t TYPE]`, as mount(8) calls it.
    Mount8,
    /// `PROGRAM SOURCE TARGET -o OPTIONS`: a FUSE program by its own name.
    Fuse,
}

/// There is none.
#[derive(Debug, thiserror::Error)]
#[error(
    "unknown filesystem type '{fstype}': the container has no program {}; \
     add one to the mounter's image, or check the type's spelling",
    .tried.join(" or ")
)]
pub struct NoHelper {
    fstype: String,
    tried: Vec<String>,
}

/// Finds the program for `fstype`: `mount.TYPE`, or for `fuse.SUB` and for a plain `SUB` the FUSE program itself.
///
/// So `fuse` with a source `SUB#…` goes to `mount.fuse`. For `fuse.SUB` that one would only run `SUB` through a shell.
pub fn helper(fstype: &str) -> Result<Program, NoHelper> {
    helper_in(fstype, &search_path())
}

fn helper_in(fstype: &str, directories: &str) -> Result<Program, NoHelper> {
    let own = fstype.strip_prefix("fuse.").unwrap_or(fstype);
    let mut candidates = vec![(format!("mount.{fstype}"), Style::Mount8)];
    if fstype != "fuse" {
        candidates.push((own.to_owned(), Style::Fuse));
    }
    let found = candidates.iter().find_map(|(name, style)| {
        let path = which::which_in(name, Some(directories), "/").ok()?;
        Some(Program { path, style: *style })
    });
    found.ok_or_else(|| NoHelper {
        fstype: fstype.to_owned(),
        tried: candidates.into_iter().map(|(name, _)| name).collect(),
    })
}

/// The container's PATH and the system's directories.
pub fn search_path() -> String {
    match std::env::var("PATH") {
        Ok(path) if !path.is_empty() => format!("{path}:{SYSTEM_DIRECTORIES}"),
        _ => SYSTEM_DIRECTORIES.to_owned(),
    }
}

/// FUSE programs that are known to take `PROGRAM SOURCE TARGET -o OPTIONS`, so that their names may stand for types.
const FUSE_PROGRAMS: [&str; 12] = [
    "archivemount",
    "bindfs",
    "ceph-fuse",
    "fuse-overlayfs",
    "fuseiso",
    "gocryptfs",
    "mergerfs",
    "s3fs",
    "squashfuse",
    "squashfuse_ll",
    "sshfs",
    "unionfs",
];

/// The types that this container can serve by their own names; `fuse.*` goes without saying.
pub fn types() -> Vec<String> {
    types_in(&search_path())
}

fn types_in(directories: &str) -> Vec<String> {
    let names = std::env::split_paths(directories).filter_map(|path| std::fs::read_dir(path).ok());
    let names = names.flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let types = names.filter_map(|name| match name.strip_prefix("mount.") {
        Some("fuse" | "fuse3") => None,
        Some(fstype) => Some(fstype.to_owned()),
        None => FUSE_PROGRAMS.contains(&name.as_str()).then_some(name),
    });
    types.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

impl Program {
    /// Its name, as errors and logs give it.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }

    /// Its arguments for a volume that it shall mount at `place`.
    pub fn arguments(&self, admitted: &Admitted, place: &Path) -> Vec<OsString> {
        let request = &admitted.request;
        let mut arguments: Vec<OsString> = vec![request.source.clone().into(), place.into()];
        let mut options = request.options.clone();
        options.retain(|option| !ours(option) && !mount8s_own(option));
        match self.style {
            Style::Mount8 => {
                let switches = request.switches;
                let given = [(switches.sloppy, "-s"), (switches.no_mtab, "-n"), (switches.verbose, "-v")];
                arguments.extend(given.iter().filter(|(given, _)| *given).map(|(_, switch)| switch.into()));
                arguments.extend(["-o".into(), with_access(&options).into()]);
                // As mount(8) does: only a helper that is not named after the whole type must be told it.
                if request.fstype.contains('.') && !self.name().ends_with(&request.fstype) {
                    arguments.extend(["-t".into(), request.fstype.clone().into()]);
                }
            }
            Style::Fuse => {
                options.retain(|option| !unknown_to_fuse(option));
                if !options.is_empty() {
                    arguments.extend(["-o".into(), options.to_string().into()]);
                }
            }
        }
        arguments
    }
}

/// mount(8) always tells its helpers `rw` or `ro`, first.
fn with_access(options: &MountOptions) -> String {
    let last = options.iter().filter(|option| matches!(option.name.as_str(), "rw" | "ro")).last();
    let access = last.map_or("rw", |option| option.name.as_str()).to_owned();
    let mut rest = options.clone();
    rest.retain(|option| !matches!(option.name.as_str(), "rw" | "ro"));
    if rest.is_empty() { access } else { format!("{access},{rest}") }
}

/// Words for hostmount itself.
fn ours(option: &MountOption) -> bool {
    option.name == "noallow_other"
}

/// What mount(8) takes for itself and keeps from its helpers.
fn mount8s_own(option: &MountOption) -> bool {
    let name = option.name.as_str();
    matches!(name, "defaults" | "auto" | "noauto" | "comment") || name.starts_with("x-") || name.starts_with("X-")
}

/// What mount.fuse3 keeps from FUSE programs, which would end with "unknown option".
fn unknown_to_fuse(option: &MountOption) -> bool {
    matches!(option.name.as_str(), "rw" | "user" | "nouser" | "users" | "_netdev" | "nofail")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::admit;
    use crate::request::{Request, Switches};
    use std::os::unix::fs::PermissionsExt;

    fn arguments(program: &str, fstype: &str, options: &str) -> Vec<String> {
        let style = if program.starts_with("mount.") { Style::Mount8 } else { Style::Fuse };
        let request = Request {
            fstype: fstype.into(),
            source: "src".into(),
            target: "/t".into(),
            options: MountOptions::parse(options).unwrap(),
            switches: Switches { verbose: true, ..Switches::default() },
        };
        Program { path: program.into(), style }
            .arguments(&admit(request).unwrap(), Path::new("/p/t"))
            .into_iter()
            .map(|argument| argument.into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_mount_helper_is_called_as_mount8_calls_it() {
        let given = arguments("mount.glusterfs", "glusterfs", "log-level=ERROR,x-systemd.automount,ro,noallow_other");
        assert_eq!(given, ["src", "/p/t", "-v", "-o", "ro,log-level=ERROR"]);
        assert_eq!(arguments("mount.fuse3", "fuse.x", ""), ["src", "/p/t", "-v", "-o", "rw", "-t", "fuse.x"]);
        assert_eq!(arguments("mount.fuse.x", "fuse.x", "a=1,"), ["src", "/p/t", "-v", "-o", "rw,a=1"]);
    }

    #[test]
    fn a_fuse_program_gets_no_word_it_does_not_know() {
        assert_eq!(arguments("bindfs", "fuse.bindfs", "rw,_netdev,defaults"), ["src", "/p/t"]);
        assert_eq!(
            arguments("bindfs", "bindfs", "ro,uid=5,context=\"a,b\""),
            ["src", "/p/t", "-o", "ro,uid=5,context=\"a,b\""]
        );
    }

    #[test]
    fn the_most_special_program_is_taken() {
        let directory = std::env::temp_dir().join(format!("hostmount-find-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.to_str().unwrap();
        let add = |name: &str| {
            std::fs::write(directory.join(name), "").unwrap();
            std::fs::set_permissions(directory.join(name), PermissionsExt::from_mode(0o755)).unwrap();
        };
        let name = |fstype: &str| helper_in(fstype, path).map(|program| program.name());
        let message = name("fuse.x").unwrap_err().to_string();
        assert!(
            message.contains("unknown filesystem type 'fuse.x'") && message.contains("mount.fuse.x or x"),
            "{message}"
        );
        for (added, then) in [("x", "x"), ("mount.fuse.x", "mount.fuse.x")] {
            add(added);
            assert_eq!(name("fuse.x").unwrap(), then);
        }
        assert!(name("fuse").is_err());
        add("mount.fuse");
        assert_eq!(name("fuse").unwrap(), "mount.fuse");
        assert_eq!(name("x").unwrap(), "x");
        add("mount.x");
        assert_eq!(name("x").unwrap(), "mount.x");
        assert!(name("y").is_err());
        add("sshfs");
        assert_eq!(types_in(path), ["fuse.x", "sshfs", "x"]);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
