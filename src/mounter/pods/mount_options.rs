//! What a program of a pod asks to be mounted, from the options that it has named.
//!
//! Pure. The words are a pod's: what is not known is refused, as by fusermount3, and what is the mounter's to say is left out
//! ([`judge`](crate::engine::judge) says it).

use api::mount_words::{Kind, find_option};
use api::options::{MountOption, MountOptions};
use api::request::PLACEHOLDER;
use rustix::mount::MountFlags;

/// A mount(2) as a program asks for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    /// What the mount table shows as its source.
    pub source: String,
    /// `fuse`, or `fuse.SUBTYPE`.
    pub fstype: String,
    /// Its flags.
    pub flags: MountFlags,
    /// What else the kernel is given.
    pub data: String,
}

/// What is not to be had.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadOption {
    /// As fusermount3 says it.
    #[error("unknown option '{0}'")]
    Unknown(String),
    /// Its value.
    #[error("invalid value of option '{0}'")]
    Value(&'static str),
}

/// What FUSE takes beside flags, each with a number or without a value.
const WITH_NUMBER: [&str; 2] = ["max_read", "blksize"];
const WITHOUT_VALUE: [&str; 1] = ["default_permissions"];
/// What is the mounter's to say, or was for fusermount3 alone.
const NOT_THE_PROGRAMS: [&str; 8] =
    ["fd", "rootmode", "user_id", "group_id", "allow_other", "allow_root", "auto_unmount", "nonempty"];
/// How long a source and a subtype may be: they are shown in mount tables.
const LONGEST: [usize; 2] = [1024, 64];

impl Asked {
    /// What these options ask for.
    pub fn with(options: &MountOptions) -> Result<Self, BadOption> {
        let mut asked = Self {
            source: "program".to_owned(),
            fstype: "fuse".to_owned(),
            flags: MountFlags::empty(),
            data: "rootmode=40000".to_owned(),
        };
        options.iter().try_for_each(|option| asked.take(option))?;
        Ok(asked)
    }

    fn take(&mut self, option: &MountOption) -> Result<(), BadOption> {
        if let Some((known, itself)) = find_option(option) {
            let flag = MountFlags::from_bits_retain(known.flag);
            return match known.kind {
                Kind::Existing => Err(BadOption::Unknown(option.name.clone())),
                // Those who mount take care of them.
                Kind::User | Kind::Mount8 => Ok(()),
                Kind::Access | Kind::Flag => {
                    self.flags.set(flag, itself);
                    Ok(())
                }
            };
        }
        // In quotes is what has a comma.
        let value = option.value.as_ref().map(|value| value.replace('"', ""));
        let value = value.as_deref();
        match (option.name.as_str(), value) {
            ("fsname", Some(name)) if fits(name, LONGEST[0]) => self.source = name.to_owned(),
            ("fsname", _) => return Err(BadOption::Value("fsname")),
            ("subtype", Some(name)) if fits(name, LONGEST[1]) && name.chars().all(in_a_type) => {
                self.fstype = format!("fuse.{name}");
                if self.fstype == PLACEHOLDER {
                    return Err(BadOption::Value("subtype"));
                }
            }
            ("subtype", _) => return Err(BadOption::Value("subtype")),
            (name, value) => {
                if let Some(name) = WITH_NUMBER.into_iter().find(|known| *known == name) {
                    let number: u32 = value.and_then(|value| value.parse().ok()).ok_or(BadOption::Value(name))?;
                    self.data += &format!(",{name}={number}");
                } else if WITHOUT_VALUE.contains(&name) && value.is_none() {
                    self.data += &format!(",{name}");
                } else if !NOT_THE_PROGRAMS.contains(&name) && !name.starts_with("x-") {
                    return Err(BadOption::Unknown(name.to_owned()));
                }
            }
        }
        Ok(())
    }
}

fn fits(name: &str, longest: usize) -> bool {
    !name.is_empty() && name.len() <= longest && !name.contains('\0')
}

fn in_a_type(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::engine::judge::{Call, judge};
    use crate::policy::{Grant, grant_of_program};
    use proptest::prelude::*;

    fn grant(read_only: bool) -> Grant {
        grant_of_program(read_only, &Config::default())
    }

    fn asked(text: &str) -> Result<Asked, BadOption> {
        Asked::with(&MountOptions::parse(text).unwrap())
    }

    #[test]
    fn what_programs_ask_for() {
        let sshfs =
            asked("rw,nosuid,nodev,fsname=host:/dir,subtype=sshfs,default_permissions,max_read=65536,allow_other")
                .unwrap();
        assert_eq!((&*sshfs.source, &*sshfs.fstype), ("host:/dir", "fuse.sshfs"));
        assert_eq!(sshfs.flags, MountFlags::NOSUID | MountFlags::NODEV);
        assert_eq!(sshfs.data, "rootmode=40000,default_permissions,max_read=65536");
        let plain = asked("ro,noatime,auto_unmount,nonempty,user_id=5,fd=9,x-a=b").unwrap();
        assert_eq!((plain.flags, &*plain.data), (MountFlags::RDONLY | MountFlags::NOATIME, "rootmode=40000"));
        assert_eq!(asked("fsname=\"host:/a,b\"").unwrap().source, "host:/a,b");
        assert_eq!(asked("fsname=a\\,b").unwrap_err(), BadOption::Unknown("b".into()));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for word in ["remount", "bind", "context=x", "nosuch", "default_permissions=1"] {
            assert!(matches!(asked(word), Err(BadOption::Unknown(_))), "{word}");
        }
        for word in [
            "max_read",
            "max_read=x",
            "max_read=1 ",
            "subtype=",
            "subtype=a/b",
            "subtype=a b",
            "subtype=placeholder",
            "fsname=",
            "fsname=\"\"",
            "subtype=\"a,b\"",
        ] {
            assert!(matches!(asked(word), Err(BadOption::Value(_))), "{word}");
        }
    }

    #[test]
    fn suid_and_devices_and_writing_to_what_is_read_only_are_never_granted() {
        let Asked { fstype, flags, data, .. } =
            asked("suid,dev,rw,noallow_other").unwrap_or_else(|_| asked("suid,dev,rw").unwrap());
        let call = Call {
            fstype: &fstype,
            flags,
            data: &data,
            fuse_device: Some(9),
            at_mount_point: true,
            mounted_before: false,
        };
        let verdict = judge(&grant(true), &call).unwrap();
        assert!(verdict.flags.contains(MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY));
        assert_eq!(verdict.data.as_c_str(), c"rootmode=40000,fd=9,user_id=0,group_id=0,allow_other");
        assert!(!judge(&grant(false), &call).unwrap().flags.contains(MountFlags::RDONLY));
    }

    proptest! {
        /// Whatever a pod says: the kernel gets our descriptor and no other, and nothing that is not listed above.
        #[test]
        fn no_words_smuggle_anything(text in "(fd|user_id|max_read|subtype|fsname|ro|allow_other|=|,|9|\"|\\\\| ){0,12}") {
            let Ok(options) = MountOptions::parse(&text) else { return Ok(()) };
            let Ok(Asked { fstype, flags, data, .. }) = Asked::with(&options) else { return Ok(()) };
            let call = Call { fstype: &fstype, flags, data: &data, fuse_device: Some(7), at_mount_point: true, mounted_before: false };
            let verdict = judge(&grant(false), &call).unwrap();
            let text = verdict.data.to_str().unwrap();
            let allowed = |piece: &str| {
                ["rootmode=40000", "fd=7", "user_id=0", "group_id=0", "allow_other", "default_permissions"].contains(&piece)
                    || WITH_NUMBER.iter().any(|name| piece.strip_prefix(name).is_some_and(|rest| {
                        rest.strip_prefix('=').is_some_and(|number| number.parse::<u32>().is_ok())
                    }))
            };
            prop_assert!(text.split(',').all(allowed), "{text}");
        }
    }
}
