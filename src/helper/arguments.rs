//! The arguments of a helper: the contract of mount(8) towards its helpers.
//!
//! Runs in the mounter; pure. `tests/integration/mount8.rs` compares it with the real mount(8); `docs/mount8.md` lists the
//! deliberate differences.

use crate::config::command::CommandTemplate;
use api::mount_words::{self, FuseKnows, Kind, MOUNT_WORDS};
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

/// An option that neither the helper nor the grant would carry out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "option '{option}' would be lost: the command that is configured for this type takes no options ({{options}} is not in it)"
)]
pub struct OptionNotTaken {
    /// Its name.
    pub option: String,
}

/// What some FUSE programs are told besides: fuseiso ends unless it can write a list of its mounts into root's home, which is
/// read-only for helpers.
const SWITCHES: [(&str, &str); 1] = [("fuseiso", "-n")];

/// The same as options, which make a helper say why it fails where its caller says nothing about them. Without them sshfs sends the words of the
/// `ssh` that it starts to /dev/null, and `mount.nfs` says nothing for two minutes, in which it tries again.
const WORDS: [(&str, &str, Option<&str>); 3] =
    [("sshfs", "sshfs_verbose", None), ("nfs", "retry", Some("0")), ("nfs4", "retry", Some("0"))];

/// The arguments of a program called `name` for a volume that it shall mount at `place`, with its files in `files`.
pub fn arguments(
    style: &Style,
    name: &str,
    request: &Request,
    place: &Path,
    files: &Path,
) -> Result<Vec<OsString>, OptionNotTaken> {
    let has_command = matches!(style, Style::Configured(_));
    let mut options = with_words(name, has_command, &for_helpers(&request.options));
    let mut arguments: Vec<OsString> = vec![request.source.clone().into(), place.into()];
    match style {
        Style::Mount8 => {
            let switches = request.switches;
            let given = [(switches.sloppy, "-s"), (switches.no_mtab, "-n"), (switches.verbose, "-v")];
            arguments.extend(given.iter().filter(|(given, _)| *given).map(|(_, switch)| switch.into()));
            arguments.extend(["-o".into(), options.to_string().into()]);
            // Only a helper that is not named after the type needs it as an argument. mount(8) would run `mount.fuse` for
            // `fuse.SUB` where we may take `mount.SUB`, which does not need to know.
            let named = request.fstype.rsplit_once('.').is_none_or(|(_, sub)| name.ends_with(&format!(".{sub}")));
            if !named {
                arguments.extend(["-t".into(), request.fstype.clone().into()]);
            }
        }
        Style::Fuse => {
            let switches = SWITCHES.iter().filter(|(program, _)| *program == name);
            arguments.splice(0..0, switches.map(|(_, switch)| switch.into()));
            options.retain(|option| !unknown_to_fuse(option));
            if !options.is_empty() {
                arguments.extend(["-o".into(), options.to_string().into()]);
            }
        }
        Style::Configured(command) => {
            options.retain(|option| !unknown_to_fuse(option));
            if !command.takes_options()
                && let Some(option) = options.iter().find(|option| !comes_true_without_helper(option))
            {
                return Err(OptionNotTaken { option: option.name.clone() });
            }
            arguments = command.arguments(&request.source, place, &options, files);
        }
    }
    Ok(arguments)
}

/// Options, and those that make a program of this name say why it fails, unless a command is configured for its type.
pub fn with_words(name: &str, has_command: bool, options: &MountOptions) -> MountOptions {
    let mut options = options.clone();
    let program = name.rsplit('.').next().unwrap_or(name);
    let ours = WORDS.iter().filter(|(called, ..)| *called == program && !has_command);
    for (_, word, value) in ours {
        if !options.iter().any(|option| option.name == *word) {
            options.push(MountOption { name: (*word).to_owned(), value: value.map(str::to_owned) });
        }
    }
    options
}

/// What mount(8) makes of options for its helpers: `ro` or `rw` first; then the flags that are left when the later word
/// counts, those implied by `user` and its kin among them; then the filesystem's own options; then the words about who
/// may mount and when, without those that are for mount(8) and the readers of fstab alone.
fn for_helpers(options: &MountOptions) -> MountOptions {
    let in_force = mount_words::in_force(options);
    let mut result = MountOptions::default();
    result.push_flag(if in_force.contains("ro") { "ro" } else { "rw" });
    push_spelt(Kind::Flag, options, &in_force, &mut result);
    let flags = MOUNT_WORDS.iter().filter(|known| known.kind == Kind::Flag);
    for implied in flags.filter(|known| in_force.contains(known.word)) {
        if !result.has_flag(implied.word) {
            result.push_flag(implied.word);
        }
    }
    options.iter().filter(|option| is_filesystems(option)).for_each(|option| result.push(option.clone()));
    push_spelt(Kind::User, options, &in_force, &mut result);
    let user = MOUNT_WORDS.iter().find(|known| known.kind == Kind::User && in_force.contains(known.word));
    // `user` implies flags: the helper learns which of them the caller has taken back.
    let unsaid = user.into_iter().flat_map(|user| user.implies).filter(|word| !in_force.contains(*word));
    let opposites = unsaid.filter_map(|word| mount_words::find(word)?.0.opposite);
    opposites.for_each(|opposite| result.push_flag(opposite));
    result
}

/// Adds the words of one kind that are in force, each once, where it was first written.
fn push_spelt(kind: Kind, options: &MountOptions, in_force: &BTreeSet<&str>, result: &mut MountOptions) {
    for option in options.iter().filter(|option| in_force.contains(option.name.as_str())) {
        let said = result.iter().any(|said| said.name == option.name);
        if !said && mount_words::find_option(option).is_some_and(|(known, _)| known.kind == kind) {
            result.push(option.clone());
        }
    }
}

/// Whether an option is for the filesystem: neither the kernel's nor mount(8)'s nor our own.
fn is_filesystems(option: &MountOption) -> bool {
    let taken = match (option.name.as_str(), &option.value) {
        ("noallow_other", None) | ("comment", _) => true,
        (name, _) => name.starts_with("x-") || name.starts_with("X-"),
    };
    // What acts on existing mounts is refused long before; dropped here, it would be lost.
    !taken && mount_words::find_option(option).is_none_or(|(known, _)| known.kind == Kind::Existing)
}

/// Whether an option comes true whatever the helper does: the grant forces it (see [`Grant`](crate::policy::Grant)), or
/// it is the kernel's default.
fn comes_true_without_helper(option: &MountOption) -> bool {
    mount_words::find_option(option).is_some_and(|(known, _)| known.forced || known.word == "relatime")
}

/// What mount.fuse3 keeps from FUSE programs, which would end with "unknown option".
fn unknown_to_fuse(option: &MountOption) -> bool {
    mount_words::find_option(option).is_some_and(|(known, itself)| match known.fuse {
        FuseKnows::Both => false,
        FuseKnows::Word => !itself,
        FuseKnows::Neither => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Grant;
    use api::request::Switches;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;
    use rustix::mount::MountFlags;

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
        assert_eq!(told("mount.nfs", "nfs", "vers=3"), ["src", "/p/t", "-v", "-o", "rw,vers=3,retry=0"]);
        assert_eq!(told("mount.nfs4", "nfs4", "retry=5"), ["src", "/p/t", "-v", "-o", "rw,retry=5"]);
        assert_eq!(told("mount.fuse3", "fuse.x", ""), ["src", "/p/t", "-v", "-o", "rw", "-t", "fuse.x"]);
        assert_eq!(told("mount.x", "fuse.x", ""), ["src", "/p/t", "-v", "-o", "rw"]);
        assert_eq!(told("mount.fuse.x", "fuse.x", "a=1,"), ["src", "/p/t", "-v", "-o", "rw,a=1"]);
    }

    #[test]
    fn a_fuse_program_gets_no_word_it_does_not_know() {
        assert_eq!(told("bindfs", "fuse.bindfs", "rw,_netdev,defaults"), ["src", "/p/t"]);
        assert_eq!(told("fuseiso", "fuse.fuseiso", ""), ["-n", "src", "/p/t"]);
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
        assert_eq!(told("ro,uid=5").unwrap_err(), OptionNotTaken { option: "uid".into() });
    }

    proptest! {
        /// However the caller's options contradict each other: the helper's options say what its grant forces.
        #[test]
        fn what_is_told_is_what_is_forced(words in vec(select(words()), 0..12)) {
            let mut options = MountOptions::default();
            words.iter().for_each(|word| options.push_flag(word));
            let told = for_helpers(&options);
            let told = told.iter().filter_map(mount_words::find_option).filter(|(known, _)| known.forced);
            let told = told.fold(0, |flags, (known, set)| if set { flags | known.flag } else { flags & !known.flag });
            let always = MountFlags::NOSUID | MountFlags::NODEV;
            let told = MountFlags::from_bits_retain(told) | always;
            prop_assert_eq!(Grant::of("x", &options).flags, told);
        }
    }

    /// All words but those that are refused.
    fn words() -> Vec<&'static str> {
        let served = MOUNT_WORDS.iter().filter(|known| known.kind != Kind::Existing);
        served.flat_map(|known| [Some(known.word), known.opposite]).flatten().collect()
    }
}
