//! What a helper is told: the contract of mount(8) towards its helpers.
//!
//! Pure. `tests/mount8.rs` holds this against the real mount(8); `docs/mount8.md` lists the wanted differences.

use crate::config::filesystem::Command;
use crate::request::{MountOption, MountOptions, Request};
use std::ffi::OsString;
use std::path::Path;

/// How a program wants to be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Style {
    /// `mount.TYPE SOURCE TARGET [-snv] -o OPTIONS [-t TYPE]`, as mount(8) calls it.
    Mount8,
    /// `PROGRAM SOURCE TARGET -o OPTIONS`: a FUSE program by its own name.
    Fuse,
    /// As the configuration says.
    Configured(Command),
}

/// The arguments of a program called `name` for a volume that it shall mount at `place`.
pub fn arguments(style: &Style, name: &str, request: &Request, place: &Path) -> Vec<OsString> {
    let mut options = request.options.clone();
    options.retain(|option| !ours(option) && !mount8s_own(option));
    let mut arguments: Vec<OsString> = vec![request.source.clone().into(), place.into()];
    match style {
        Style::Mount8 => {
            let switches = request.switches;
            let given = [(switches.sloppy, "-s"), (switches.no_mtab, "-n"), (switches.verbose, "-v")];
            arguments.extend(given.iter().filter(|(given, _)| *given).map(|(_, switch)| switch.into()));
            arguments.extend(["-o".into(), with_access(&options).into()]);
            // As mount(8) does: only a helper that is not named after the whole type must be told it.
            if request.fstype.contains('.') && !name.ends_with(&request.fstype) {
                arguments.extend(["-t".into(), request.fstype.clone().into()]);
            }
        }
        Style::Fuse => {
            options.retain(|option| !unknown_to_fuse(option));
            if !options.is_empty() {
                arguments.extend(["-o".into(), options.to_string().into()]);
            }
        }
        Style::Configured(command) => {
            options.retain(|option| !unknown_to_fuse(option));
            arguments = command.arguments(&request.source, place, &options);
        }
    }
    arguments
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
    use crate::request::Switches;

    fn told(program: &str, fstype: &str, options: &str) -> Vec<String> {
        let style = if program.starts_with("mount.") { Style::Mount8 } else { Style::Fuse };
        let request = Request {
            fstype: fstype.into(),
            source: "src".into(),
            target: "/t".into(),
            options: MountOptions::parse(options).unwrap(),
            switches: Switches { verbose: true, ..Switches::default() },
        };
        let arguments = arguments(&style, program, &request, Path::new("/p/t"));
        arguments.into_iter().map(|argument| argument.into_string().unwrap()).collect()
    }

    #[test]
    fn a_mount_helper_is_called_as_mount8_calls_it() {
        let given = told("mount.glusterfs", "glusterfs", "log-level=ERROR,x-systemd.automount,ro,noallow_other");
        assert_eq!(given, ["src", "/p/t", "-v", "-o", "ro,log-level=ERROR"]);
        assert_eq!(told("mount.fuse3", "fuse.x", ""), ["src", "/p/t", "-v", "-o", "rw", "-t", "fuse.x"]);
        assert_eq!(told("mount.fuse.x", "fuse.x", "a=1,"), ["src", "/p/t", "-v", "-o", "rw,a=1"]);
    }

    #[test]
    fn a_fuse_program_gets_no_word_it_does_not_know() {
        assert_eq!(told("bindfs", "fuse.bindfs", "rw,_netdev,defaults"), ["src", "/p/t"]);
        assert_eq!(
            told("bindfs", "bindfs", "ro,uid=5,context=\"a,b\""),
            ["src", "/p/t", "-o", "ro,uid=5,context=\"a,b\""]
        );
    }
}
