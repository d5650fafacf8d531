//! The words of mount(8) that are not a filesystem's own options: one table of what each of them means.
//!
//! Runs in every program; pure. All code that has to know such a word looks it up here: a helper's arguments, its
//! grant, the flags that the broker lets through, the options of a mount that replaces another one, the `mount` on the
//! node.

use crate::options::{MountOption, MountOptions};
use std::collections::BTreeSet;

/// One word.
#[derive(Debug, PartialEq, Eq)]
pub struct MountWord {
    /// The word.
    pub word: &'static str,
    /// The word that takes it back.
    pub opposite: Option<&'static str>,
    /// What it is about.
    pub kind: Kind,
    /// Its flag for mount(2), `MS_…`; 0: there is none.
    pub flag: u32,
    /// Its flag for mount_setattr(2), `MOUNT_ATTR_…`; 0: there is none.
    pub attribute: u64,
    /// Whether the grant forces it onto the mount, as a helper is free to forget it.
    pub forced: bool,
    /// Whether FUSE programs know it when they are called by their own names.
    pub fuse: FuseKnows,
    /// Words that it stands for beside itself.
    pub implies: &'static [&'static str],
}

/// What a word is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Reading alone, or writing as well. Unlike others these words may have values: `ro=recursive`.
    Access,
    /// How one new mount behaves.
    Flag,
    /// Which users may mount, and when it is mounted; also passed to helpers.
    User,
    /// The same, for mount(8) and the readers of fstab alone: not passed to helpers.
    Mount8,
    /// Mounts that exist already: it makes no new filesystem.
    Existing,
}

/// Which words FUSE programs know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FuseKnows {
    /// The word and its opposite.
    Both,
    /// The word; its opposite is the default.
    Word,
    /// Neither of them: such a program would end with "unknown option".
    Neither,
}

const fn flag(word: &'static str, opposite: &'static str, flag: libc::c_ulong) -> MountWord {
    MountWord {
        word,
        opposite: Some(opposite),
        kind: Kind::Flag,
        // mount(2) has no flag above these.
        flag: flag as u32,
        attribute: 0,
        forced: false,
        fuse: FuseKnows::Both,
        implies: &[],
    }
}

const fn other(kind: Kind, word: &'static str, opposite: Option<&'static str>) -> MountWord {
    MountWord { opposite, kind, fuse: FuseKnows::Neither, ..flag(word, "", 0) }
}

impl MountWord {
    const fn forced(self) -> Self {
        Self { forced: true, ..self }
    }

    const fn attribute(self, attribute: u64) -> Self {
        Self { attribute, ..self }
    }

    const fn implies(self, implies: &'static [&'static str]) -> Self {
        Self { implies, ..self }
    }
}

/// All words. Flags that another word implies are passed to helpers in this order.
pub const MOUNT_WORDS: &[MountWord] = &[
    MountWord { kind: Kind::Access, fuse: FuseKnows::Word, ..flag("ro", "rw", libc::MS_RDONLY) }
        .forced()
        .attribute(libc::MOUNT_ATTR_RDONLY),
    flag("noexec", "exec", libc::MS_NOEXEC).forced().attribute(libc::MOUNT_ATTR_NOEXEC),
    flag("nosuid", "suid", libc::MS_NOSUID).forced().attribute(libc::MOUNT_ATTR_NOSUID),
    flag("nodev", "dev", libc::MS_NODEV).forced().attribute(libc::MOUNT_ATTR_NODEV),
    flag("sync", "async", libc::MS_SYNCHRONOUS).forced(),
    MountWord { opposite: None, ..flag("dirsync", "", libc::MS_DIRSYNC) }.forced(),
    flag("silent", "loud", libc::MS_SILENT),
    flag("mand", "nomand", libc::MS_MANDLOCK),
    flag("noatime", "atime", libc::MS_NOATIME).forced().attribute(libc::MOUNT_ATTR_NOATIME),
    flag("iversion", "noiversion", libc::MS_I_VERSION),
    flag("nodiratime", "diratime", libc::MS_NODIRATIME).forced().attribute(libc::MOUNT_ATTR_NODIRATIME),
    // Nothing to force: it is the kernel's default. MOUNT_ATTR_RELATIME is 0.
    flag("relatime", "norelatime", libc::MS_RELATIME),
    flag("strictatime", "nostrictatime", libc::MS_STRICTATIME).forced().attribute(libc::MOUNT_ATTR_STRICTATIME),
    flag("lazytime", "nolazytime", libc::MS_LAZYTIME),
    flag("nosymfollow", "symfollow", libc::MS_NOSYMFOLLOW).forced().attribute(libc::MOUNT_ATTR_NOSYMFOLLOW),
    // An unprivileged user's mount must not bring set-uid programs or devices.
    other(Kind::User, "user", Some("nouser")).implies(&["noexec", "nosuid", "nodev"]),
    other(Kind::User, "users", None).implies(&["noexec", "nosuid", "nodev"]),
    other(Kind::User, "_netdev", None),
    other(Kind::User, "nofail", None),
    other(Kind::Mount8, "owner", Some("noowner")).implies(&["nosuid", "nodev"]),
    other(Kind::Mount8, "group", Some("nogroup")).implies(&["nosuid", "nodev"]),
    other(Kind::Mount8, "auto", Some("noauto")),
    other(Kind::Mount8, "defaults", None),
    other(Kind::Existing, "remount", None),
    other(Kind::Existing, "bind", None),
    other(Kind::Existing, "rbind", None),
    other(Kind::Existing, "move", None),
    other(Kind::Existing, "shared", None),
    other(Kind::Existing, "rshared", None),
    other(Kind::Existing, "slave", None),
    other(Kind::Existing, "rslave", None),
    other(Kind::Existing, "private", None),
    other(Kind::Existing, "rprivate", None),
    other(Kind::Existing, "unbindable", None),
    other(Kind::Existing, "runbindable", None),
];

/// The word that `name` is, and whether it is the word itself and not its opposite.
pub fn find(name: &str) -> Option<(&'static MountWord, bool)> {
    let known = MOUNT_WORDS.iter().find(|known| known.word == name || known.opposite == Some(name))?;
    Some((known, known.word == name))
}

/// The same for an option. With a value it is a filesystem's own option, except for the few words that may have one.
pub fn find_option(option: &MountOption) -> Option<(&'static MountWord, bool)> {
    let found = find(&option.name)?;
    let may_have_value = found.0.kind == Kind::Access || option.name == "user";
    (option.value.is_none() || may_have_value).then_some(found)
}

/// The words that hold when the last of two that contradict each other counts.
pub fn in_force(options: &MountOptions) -> BTreeSet<&'static str> {
    let mut words = BTreeSet::new();
    for option in options.iter() {
        match find_option(option) {
            Some((known, true)) => {
                words.insert(known.word);
                // `user=NAME` notes which user has mounted, and permits nothing.
                if option.value.is_none() {
                    words.extend(known.implies);
                }
            }
            Some((known, false)) => _ = words.remove(known.word),
            None => {}
        }
    }
    words
}

/// The flags for mount(2) that shape one new mount. All others (bind, move, remount, propagation) act on existing ones.
pub fn shaping_flags() -> u32 {
    MOUNT_WORDS.iter().fold(0, |flags, known| flags | known.flag)
}

/// Whether an option makes no new filesystem, but does something to mounts that exist; a type beside it means nothing.
pub fn acts_on_existing_mounts(name: &str) -> bool {
    find(name).is_some_and(|(known, _)| known.kind == Kind::Existing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_and_no_flag_is_there_twice() {
        let mut words = BTreeSet::new();
        let (mut flags, mut attributes) = (0, 0);
        for known in MOUNT_WORDS {
            for word in [Some(known.word), known.opposite].into_iter().flatten() {
                assert!(!word.is_empty() && words.insert(word), "{word}");
            }
            assert!(known.flag.count_ones() <= 1 && flags & known.flag == 0, "{known:?}");
            assert!(known.attribute.count_ones() <= 1 && attributes & known.attribute == 0, "{known:?}");
            flags |= known.flag;
            attributes |= known.attribute;
        }
        assert_eq!(attributes & libc::MOUNT_ATTR__ATIME, libc::MOUNT_ATTR_NOATIME | libc::MOUNT_ATTR_STRICTATIME);
    }

    #[test]
    fn each_row_is_consistent() {
        for known in MOUNT_WORDS {
            let shapes = matches!(known.kind, Kind::Access | Kind::Flag);
            assert_eq!(shapes, known.flag != 0, "{known:?}");
            assert_eq!(shapes, known.fuse != FuseKnows::Neither, "{known:?}");
            assert!(shapes || !known.forced && known.attribute == 0, "{known:?}");
            assert!(known.attribute == 0 || known.forced, "what a mount shows is what was forced onto it: {known:?}");
            let implied = |word: &&str| find(word).is_some_and(|(known, itself)| itself && known.forced);
            assert!(known.implies.iter().all(implied), "{known:?}");
        }
        let existing = libc::MS_BIND | libc::MS_MOVE | libc::MS_REMOUNT | libc::MS_SHARED | libc::MS_SLAVE;
        assert_eq!(u64::from(shaping_flags()) & existing, 0);
    }

    #[test]
    fn the_last_word_counts() {
        let words = |text| in_force(&MountOptions::parse(text).unwrap()).into_iter().collect::<Vec<_>>();
        assert_eq!(words("ro=recursive,noexec,exec,noatime,uid=5"), ["noatime", "ro"]);
        assert_eq!(words("user,exec"), ["nodev", "nosuid", "user"]);
        assert_eq!(words("user=joe,sync=5"), ["user"]);
    }

    #[test]
    fn operations_are_no_mounts() {
        assert!(["remount", "rbind", "rslave", "unbindable"].iter().all(|word| acts_on_existing_mounts(word)));
        assert!(["ro", "rremount", "user", "x"].iter().all(|word| !acts_on_existing_mounts(word)));
    }
}
