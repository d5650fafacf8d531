//! What a helper is told: the contract of mount(8) towards its helpers.
//!
//! Pure. `tests/mount8.rs` holds this against the real mount(8); `docs/mount8.md` lists the wanted differences.

use crate::config::command::CommandTemplate;
use api::options::{MountOption, MountOptions};
use api::request::Request;
use std::collections::BTreeSet;
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
    Configured(CommandTemplate),
}

/// An option that nobody would carry out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "option '{option}' would be lost: the command that is configured for this type takes no options ({{options}} is not in it)"
)]
pub struct Lost {
    /// Its name.
    pub option: String,
}

/// The arguments of a program called `name` for a volume that it shall mount at `place`, with its files in `files`.
pub fn arguments(
    style: &Style,
    name: &str,
    request: &Request,
    place: &Path,
    files: &Path,
) -> Result<Vec<OsString>, Lost> {
    let mut options = for_helpers(&request.options);
    let mut arguments: Vec<OsString> = vec![request.source.clone().into(), place.into()];
    match style {
        Style::Mount8 => {
            let switches = request.switches;
            let given = [(switches.sloppy, "-s"), (switches.no_mtab, "-n"), (switches.verbose, "-v")];
            arguments.extend(given.iter().filter(|(given, _)| *given).map(|(_, switch)| switch.into()));
            arguments.extend(["-o".into(), options.to_string().into()]);
            // Only a helper that is not named after the type must be told it. mount(8) would run `mount.fuse` for
            // `fuse.SUB` where we may take `mount.SUB`, which does not need to know.
            let named = request.fstype.rsplit_once('.').is_none_or(|(_, sub)| name.ends_with(&format!(".{sub}")));
            if !named {
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
            if !command.takes_options()
                && let Some(lost) = options.iter().find(|option| !is_mount2s(option))
            {
                return Err(Lost { option: lost.name.clone() });
            }
            arguments = command.arguments(&request.source, place, &options, files);
        }
    }
    Ok(arguments)
}

/// Words for mount(2)'s flags, each with the word that takes it back.
const FLAGS: [(&str, &str); 14] = [
    ("noexec", "exec"),
    ("nosuid", "suid"),
    ("nodev", "dev"),
    ("sync", "async"),
    ("dirsync", ""),
    ("silent", "loud"),
    ("mand", "nomand"),
    ("noatime", "atime"),
    ("iversion", "noiversion"),
    ("nodiratime", "diratime"),
    ("relatime", "norelatime"),
    ("strictatime", "nostrictatime"),
    ("lazytime", "nolazytime"),
    ("nosymfollow", "symfollow"),
];

/// Words about who may mount and when, which helpers are told, too.
const USER: [(&str, &str); 4] = [("user", "nouser"), ("users", ""), ("_netdev", ""), ("nofail", "")];

/// What mount(8) makes of options for its helpers: `ro` or `rw` first; then the flags that are left when the later word
/// counts, those implied by `user` and its kin among them; then the filesystem's own options; then the words about who
/// may mount and when, without those that are for mount(8) and the readers of fstab alone.
fn for_helpers(options: &MountOptions) -> MountOptions {
    let mut access = "rw";
    let mut set: BTreeSet<&str> = BTreeSet::new();
    for option in options.iter() {
        match option.name.as_str() {
            "ro" => access = "ro",
            "rw" => access = "rw",
            "user" | "users" if option.value.is_none() => set.extend(["noexec", "nosuid", "nodev"]),
            "owner" | "group" if option.value.is_none() => set.extend(["nosuid", "nodev"]),
            _ => {}
        }
        match word(option) {
            Some((on, _)) if on == option.name => _ = set.insert(on),
            Some((on, _)) => _ = set.remove(on),
            None => {}
        }
    }
    let mut result = MountOptions::default();
    result.push_flag(access);
    // Each word once, where it was first written.
    let told = |words: &[(&str, &str)], result: &mut MountOptions| {
        for option in options.iter().filter(|option| set.contains(option.name.as_str())) {
            let said = result.iter().any(|said| said.name == option.name);
            if !said && word(option).is_some_and(|word| words.contains(&word)) {
                result.push(option.clone());
            }
        }
    };
    told(&FLAGS, &mut result);
    for (implied, _) in FLAGS.iter().filter(|(on, _)| set.contains(on)) {
        if !result.has_flag(implied) {
            result.push_flag(implied);
        }
    }
    options.iter().filter(|option| is_filesystems(option)).for_each(|option| result.push(option.clone()));
    told(&USER, &mut result);
    if set.contains("user") || set.contains("users") {
        // Whoever may mount it gets no less than was said.
        let unsaid = FLAGS.iter().filter(|(on, _)| ["noexec", "nosuid", "nodev"].contains(on) && !set.contains(on));
        unsaid.for_each(|(_, off)| result.push_flag(off));
    }
    result
}

/// The pair of words that an option belongs to. Only `user` may have a value, and is the same word then.
fn word(option: &MountOption) -> Option<(&'static str, &'static str)> {
    let name = option.name.as_str();
    let pair = FLAGS.iter().chain(&USER).find(|(on, off)| *on == name || *off == name)?;
    (option.value.is_none() || name == "user").then_some(*pair)
}

/// Whether an option is for the filesystem: neither the kernel's nor mount(8)'s nor our own.
fn is_filesystems(option: &MountOption) -> bool {
    let taken = match (option.name.as_str(), &option.value) {
        ("noallow_other" | "defaults" | "auto" | "noauto" | "owner" | "noowner" | "group" | "nogroup", None) => true,
        ("ro" | "rw" | "comment", _) => true,
        (name, _) => name.starts_with("x-") || name.starts_with("X-"),
    };
    !taken && word(option).is_none()
}

/// Whether the grant carries it out, whatever the helper does (see [`Grant`](crate::policy::Grant)).
fn is_mount2s(option: &MountOption) -> bool {
    let words = [
        "ro",
        "nosuid",
        "nodev",
        "noexec",
        "exec",
        "sync",
        "async",
        "dirsync",
        "noatime",
        "atime",
        "nodiratime",
        "diratime",
        "relatime",
        "strictatime",
        "nostrictatime",
    ];
    words.contains(&option.name.as_str())
}

/// What mount.fuse3 keeps from FUSE programs, which would end with "unknown option".
fn unknown_to_fuse(option: &MountOption) -> bool {
    matches!(option.name.as_str(), "rw" | "user" | "users" | "_netdev" | "nofail")
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::request::Switches;

    fn request(fstype: &str, options: &str) -> Request {
        Request {
            fstype: fstype.into(),
            source: "src".into(),
            target: "/t".into(),
            options: MountOptions::parse(options).unwrap(),
            switches: Switches { verbose: true, ..Switches::default() },
            secrets: Default::default(),
        }
    }

    fn told(program: &str, fstype: &str, options: &str) -> Vec<String> {
        let style = if program.starts_with("mount.") { Style::Mount8 } else { Style::Fuse };
        let request = request(fstype, options);
        let arguments = arguments(&style, program, &request, Path::new("/p/t"), Path::new("/d")).unwrap();
        arguments.into_iter().map(|argument| argument.into_string().unwrap()).collect()
    }

    #[test]
    fn a_mount_helper_is_called_as_mount8_calls_it() {
        let given = told("mount.glusterfs", "glusterfs", "log-level=ERROR,x-systemd.automount,ro,noallow_other");
        assert_eq!(given, ["src", "/p/t", "-v", "-o", "ro,log-level=ERROR"]);
        assert_eq!(told("mount.fuse3", "fuse.x", ""), ["src", "/p/t", "-v", "-o", "rw", "-t", "fuse.x"]);
        assert_eq!(told("mount.x", "fuse.x", ""), ["src", "/p/t", "-v", "-o", "rw"]);
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

    #[test]
    fn a_command_without_options_loses_none() {
        let command = CommandTemplate::try_from(["p", "{target}"].map(str::to_owned).to_vec()).unwrap();
        let style = Style::Configured(command);
        let told = |options| arguments(&style, "p", &request("x", options), Path::new("/p/t"), Path::new("/d"));
        assert_eq!(told("ro,noexec,_netdev,x-a,noallow_other").unwrap(), ["/p/t"]);
        assert_eq!(told("ro,uid=5").unwrap_err(), Lost { option: "uid".into() });
    }
}
