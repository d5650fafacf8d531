//! Which program in the container serves a type.
//!
//! Runs in the mounter; it only looks at file names in the container.

use super::arguments::Style;
use crate::config::Config;
use crate::config::command::CommandTemplate;
use crate::config::settings::Settings;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::LazyLock;

/// Directories that are searched whatever PATH is: mount(8) looks for its helpers there too.
const SYSTEM_DIRECTORIES: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that serves a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelperProgram {
    /// Its file in the container.
    pub path: PathBuf,
    /// The name it is called by (`argv[0]`), where that is not the file's and makes a difference.
    pub called: Option<&'static str>,
    /// How it wants to be called.
    pub style: Style,
}

impl HelperProgram {
    /// The name it is called by, which errors and logs show too.
    pub fn name(&self) -> String {
        let file = self.path.file_name().unwrap_or(self.path.as_os_str());
        self.called.map_or_else(|| file.to_string_lossy().into_owned(), str::to_owned)
    }
}

/// Programs that are mount(8) helpers when they are called by another name.
const HELPERS_BY_NAME: [(&str, &str); 1] = [("rclone", "mount.rclone")];

/// No program serves the type.
#[derive(Debug, thiserror::Error)]
pub enum NoHelper {
    /// None is there.
    #[error(
        "unknown filesystem type '{fstype}': the container has no program {}; \
         add one to the mounter's image, or check the type's spelling",
        .tried.join(" or ")
    )]
    Missing {
        /// The type.
        fstype: String,
        /// What was looked for.
        tried: Vec<String>,
    },
    /// There might be one, which is not known to be a filesystem's.
    #[error(
        "unknown filesystem type '{fstype}': the container has no program {}, and '{program}' is not known as the program of a \
         filesystem; if it is one, an administrator allows it with `[filesystem.{program}] command` in config.toml",
        .tried.join(" or ")
    )]
    NotKnown {
        /// The type.
        fstype: String,
        /// What was looked for.
        tried: Vec<String>,
        /// What was not.
        program: String,
    },
    /// `mount.fuse` runs what its source begins with.
    #[error(
        "the source of a volume of type '{fstype}' must begin with the name of a filesystem's program and '#', and '{program}' is \
         not known as one; if it is one, an administrator allows it with `[filesystem.{program}] command` in config.toml"
    )]
    NotKnownInSource {
        /// The type.
        fstype: String,
        /// What the source begins with.
        program: String,
    },
}

/// Finds the program for `fstype`: that of the configured command, or else `mount.TYPE`, or for `fuse.SUB` and for a
/// plain `SUB` the FUSE program itself, if it is [known as one](FUSE_PROGRAMS): a type names a filesystem, and never just any
/// program of the container.
///
/// So `fuse` with a source `SUB#…` goes to `mount.fuse`. For `fuse.SUB` that one would only run `SUB` through a shell.
pub fn helper(fstype: &str, source: &str, settings: &Settings) -> Result<HelperProgram, NoHelper> {
    helper_in(fstype, source, settings.command.as_ref(), &search_path())
}

fn helper_in(
    fstype: &str,
    source: &str,
    command: Option<&CommandTemplate>,
    directories: &str,
) -> Result<HelperProgram, NoHelper> {
    let (candidates, not_known) = match command {
        Some(command) => (vec![(command.program().to_owned(), Style::Configured(command.clone()))], None),
        None => by_name(fstype, source)?,
    };
    let found = candidates.iter().find_map(|(name, style)| {
        let path = which::which_in(name, Some(directories), "/").ok()?;
        let by_name = HELPERS_BY_NAME.iter().find(|(program, _)| program == name && *style == Style::Fuse);
        Some(match by_name {
            Some((_, called)) => HelperProgram { path, called: Some(*called), style: Style::Mount8 },
            None => HelperProgram { path, called: None, style: style.clone() },
        })
    });
    found.ok_or_else(|| {
        let (fstype, tried) = (fstype.to_owned(), candidates.into_iter().map(|(name, _)| name).collect());
        match not_known {
            Some(program) => NoHelper::NotKnown { fstype, tried, program },
            None => NoHelper::Missing { fstype, tried },
        }
    })
}

/// The programs to look for, and the one that is not looked for as it is not known to be a filesystem's.
type Candidates = (Vec<(String, Style)>, Option<String>);

fn by_name(fstype: &str, source: &str) -> Result<Candidates, NoHelper> {
    let mut names = vec![(format!("mount.{fstype}"), Style::Mount8)];
    if ["fuse", "fuse3"].contains(&fstype) {
        // Without a `#` the whole source is the program's name.
        let program = source.split('#').next().unwrap_or_default();
        if !FUSE_PROGRAMS.contains(&program) {
            return Err(NoHelper::NotKnownInSource { fstype: fstype.to_owned(), program: program.to_owned() });
        }
        return Ok((names, None));
    }
    let program = fstype.strip_prefix("fuse.").unwrap_or(fstype).to_owned();
    if !FUSE_PROGRAMS.contains(&program.as_str()) {
        return Ok((names, Some(program)));
    }
    names.push((program, Style::Fuse));
    Ok((names, None))
}

/// The container's PATH and the system's directories.
pub fn search_path() -> String {
    static PATH: LazyLock<String> = LazyLock::new(|| {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut directories: Vec<&str> = Vec::new();
        // A name that is not there is looked for in each: in none of them twice.
        for directory in path.split(':').filter(|_| !path.is_empty()).chain(SYSTEM_DIRECTORIES.split(':')) {
            if !directories.contains(&directory) {
                directories.push(directory);
            }
        }
        directories.join(":")
    });
    PATH.clone()
}

/// FUSE programs that are known to take `PROGRAM SOURCE TARGET -o OPTIONS`, so that their names may stand for types.
pub(crate) const FUSE_PROGRAMS: [&str; 21] = [
    "archivemount",
    "bindfs",
    "ceph-fuse",
    "cryfs",
    "encfs",
    "fuse-overlayfs",
    "fuse-zip",
    "fuse2fs",
    "fuseiso",
    "gcsfuse",
    "gocryptfs",
    "goofys",
    "juicefs",
    "mergerfs",
    "rclone",
    "s3fs",
    "squashfuse",
    "squashfuse_ll",
    "sshfs",
    "unionfs",
    "unionfs-fuse",
];

/// The types that this container can serve by their own names; `fuse.*` is not listed, as each program serves its own.
pub fn types() -> Vec<String> {
    types_in(&search_path())
}

/// The types that helpers of this container serve, by their names or by the configuration.
pub fn served_types(config: &Config) -> BTreeSet<String> {
    types().into_iter().chain(config.types_with_command().map(str::to_owned)).collect()
}

fn types_in(directories: &str) -> Vec<String> {
    let names = std::env::split_paths(directories).filter_map(|path| std::fs::read_dir(path).ok());
    let names = names.flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let types = names.filter_map(|name| match name.strip_prefix("mount.") {
        Some("fuse" | "fuse3") => None,
        Some(fstype) => Some(fstype.to_owned()),
        None => FUSE_PROGRAMS.contains(&name.as_str()).then_some(name),
    });
    types.collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_most_special_program_is_taken() {
        let directory = std::env::temp_dir().join(format!("hostmount-find-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.to_str().unwrap();
        let add = |name: &str| {
            std::fs::write(directory.join(name), "").unwrap();
            std::fs::set_permissions(directory.join(name), PermissionsExt::from_mode(0o755)).unwrap();
        };
        let name = |fstype: &str| helper_in(fstype, "", None, path).map(|program| program.name());
        let message = name("fuse.bindfs").unwrap_err().to_string();
        assert!(
            message.contains("unknown filesystem type 'fuse.bindfs'")
                && message.contains("mount.fuse.bindfs or bindfs"),
            "{message}"
        );
        for (added, then) in [("bindfs", "bindfs"), ("mount.fuse.bindfs", "mount.fuse.bindfs")] {
            add(added);
            assert_eq!(name("fuse.bindfs").unwrap(), then);
        }
        assert_eq!(name("bindfs").unwrap(), "bindfs");
        add("mount.x");
        assert_eq!(name("x").unwrap(), "mount.x");
        // There, and no filesystem that we know.
        for program in ["perl", "y"] {
            add(program);
            for fstype in [program.to_owned(), format!("fuse.{program}")] {
                let message = name(&fstype).unwrap_err().to_string();
                assert!(message.contains(&format!("`[filesystem.{program}] command`")), "{message}");
            }
        }
        add("mount.fuse");
        for source in ["", "x", "bindfs;perl", "perl#x", "./bindfs#x", "bindfs #x", "sh -c perl#", "#bindfs"] {
            assert!(helper_in("fuse", source, None, path).is_err(), "{source}");
        }
        assert_eq!(helper_in("fuse", "bindfs#/x", None, path).unwrap().name(), "mount.fuse");
        add("sshfs");
        assert_eq!(types_in(path), ["bindfs", "fuse.bindfs", "sshfs", "x"]);
        add("rclone");
        let rclone = helper_in("fuse.rclone", "", None, path).unwrap();
        assert_eq!((rclone.name(), rclone.path), ("mount.rclone".to_owned(), directory.join("rclone")));
        assert_eq!(rclone.style, Style::Mount8);
        let command = CommandTemplate::try_from(vec!["sshfs".to_owned(), "{target}{options}".to_owned()]).unwrap();
        assert_eq!(helper_in("perl", "", Some(&command), path).unwrap().name(), "sshfs");
        std::fs::remove_dir_all(directory).unwrap();
    }
}
