//! What becomes of a helper's mount(2): what is to be mounted instead, or why nothing is.
//!
//! Runs in the mounter; pure. The [broker](super::broker) gathers the facts about the call, and mounts what is decided
//! here. The call's strings come from the helper and are not to be trusted.

use crate::policy::Grant;
use api::mount_words::shaping_flags;
use api::options::{MountOptions, OptionsError};
use api::request::{PLACEHOLDER, is_fuse};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use std::ffi::CString;
use std::os::fd::RawFd;

/// What is known of a helper's mount(2).
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The filesystem type that it names.
    pub fstype: &'a str,
    /// Its flags.
    pub flags: MountFlags,
    /// Its mount data.
    pub data: &'a str,
    /// The number of our descriptor for the `/dev/fuse` that `fd=` in the data names; `None`: it names something else,
    /// or nothing.
    pub fuse_device: Option<RawFd>,
    /// Whether its target is the helper's own mount point.
    pub at_mount_point: bool,
    /// Whether the helper has mounted before.
    pub mounted_before: bool,
}

/// What is to be mounted, at the helper's mount point.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The filesystem type.
    pub fstype: String,
    /// The flags: the helper's and those that the grant forces.
    pub flags: MountFlags,
    /// The mount data.
    pub data: CString,
    /// Whether the helper itself serves the filesystem, through /dev/fuse.
    pub fuse: bool,
}

/// Why a call is not performed. Its message goes to the log and to the caller, its errno to the helper.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// One mount a grant.
    #[error("a second mount of the same helper is not granted")]
    Twice,
    /// Flags that do not shape one new mount.
    #[error("mount flags {0:#x} are not granted: they act on existing mounts")]
    Flags(u32),
    /// A foreign type.
    #[error("a filesystem of type '{0}' is not granted")]
    Type(String),
    /// Somewhere else.
    #[error("mounting or unmounting anywhere but at its own mount point is not granted")]
    Elsewhere,
    /// FUSE without a descriptor, or with one that is something else.
    #[error("the mount data's 'fd=' does not name an open /dev/fuse")]
    NotFuse,
    /// Unbalanced quotes in the data.
    #[error("its mount data is malformed")]
    Data(#[source] OptionsError),
    /// Within quotes, where it is no option for us but one for the kernel.
    #[error("its mount data hides the option '{0}' within quotes")]
    Hidden(&'static str),
    /// A string that would end early for the kernel.
    #[error("its {0} holds a NUL byte")]
    Nul(&'static str),
    /// The kernel's answer.
    #[error("the kernel refused to mount a filesystem of type '{fstype}'{hint}", hint = hint(.fstype, *.errno))]
    Kernel {
        /// The type.
        fstype: String,
        /// Its answer.
        #[source]
        errno: Errno,
    },
}

fn hint(fstype: &str, errno: Errno) -> &'static str {
    match errno {
        Errno::NODEV if fstype.starts_with("fuse") => " (this node's kernel has no FUSE: modprobe fuse)",
        Errno::NODEV => " (this node's kernel does not have it)",
        _ => "",
    }
}

impl Objection {
    /// What the helper gets to see.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Twice => Errno::BUSY,
            Self::Flags(_) | Self::Type(_) | Self::Elsewhere => Errno::PERM,
            Self::NotFuse | Self::Data(_) | Self::Hidden(_) | Self::Nul(_) => Errno::INVAL,
            Self::Kernel { errno, .. } => *errno,
        }
    }
}

/// What is to be mounted for a call of a helper with this grant, or why nothing is.
pub fn judge(grant: &Grant, call: &Call<'_>) -> Result<Verdict, Objection> {
    if call.mounted_before {
        return Err(Objection::Twice);
    }
    let foreign = call.flags.difference(MountFlags::from_bits_retain(shaping_flags()));
    if !foreign.is_empty() {
        return Err(Objection::Flags(foreign.bits()));
    }
    if call.fstype.contains('\0') {
        return Err(Objection::Nul("filesystem type"));
    }
    if call.fstype == PLACEHOLDER || !grant.types.contains(call.fstype) {
        return Err(Objection::Type(call.fstype.to_owned()));
    }
    if !call.at_mount_point {
        return Err(Objection::Elsewhere);
    }
    let fuse = is_fuse(call.fstype);
    let data = if fuse { fuse_data(grant, call)? } else { call.data.to_owned() };
    let data = CString::new(data).map_err(|_| Objection::Nul("mount data"))?;
    Ok(Verdict { fstype: call.fstype.to_owned(), flags: call.flags | grant.flags, data, fuse })
}

/// What of FUSE's mount data is ours to say.
const OURS: [&str; 4] = ["fd", "user_id", "group_id", "allow_other"];

/// The helper's mount data, with our descriptor in the place of its own, with `allow_other` as granted, and as root's: without
/// `allow_other` nobody may enter but the user who mounts, and that is the node's root and not the helper.
fn fuse_data(grant: &Grant, call: &Call<'_>) -> Result<String, Objection> {
    let device = call.fuse_device.ok_or(Objection::NotFuse)?;
    let mut options = MountOptions::parse(call.data).map_err(Objection::Data)?;
    options.retain(|option| !OURS.contains(&&*option.name));
    options.push_value("fd", device);
    options.push_value("user_id", 0);
    options.push_value("group_id", 0);
    if grant.allow_other {
        options.push_flag("allow_other");
    }
    let text = options.to_string();
    // It would pass for another volume.
    let mut subtypes = text.split(',').filter_map(|piece| piece.strip_prefix("subtype="));
    if subtypes.any(|name| PLACEHOLDER.strip_prefix("fuse.") == Some(name)) {
        return Err(Objection::Type(PLACEHOLDER.to_owned()));
    }
    // Quotes count for the kernel's security modules (context="a,b"), and not for FUSE: it reads on after each comma.
    let read = |name: &str| text.split(',').filter(|piece| piece.split('=').next() == Some(name)).count();
    for name in OURS {
        if read(name) != usize::from(name != "allow_other" || grant.allow_other) {
            return Err(Objection::Hidden(name));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    fn grant(fstype: &str, options: &str) -> Grant {
        Grant::of(fstype, &MountOptions::parse(options).unwrap())
    }

    const CALL: Call<'_> = Call {
        fstype: "fuse.x",
        flags: MountFlags::empty(),
        data: "fd=5,rootmode=40000,user_id=1900000000,group_id=1900000000",
        fuse_device: Some(9),
        at_mount_point: true,
        mounted_before: false,
    };

    #[test]
    fn a_call_within_the_grant_gets_our_descriptor_and_the_grants_flags() {
        let data = c"rootmode=40000,fd=9,user_id=0,group_id=0,allow_other".to_owned();
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY | MountFlags::NOATIME;
        let call = Call { flags: MountFlags::NOATIME, ..CALL };
        let verdict = judge(&grant("x", "ro"), &call);
        assert_eq!(verdict, Ok(Verdict { fstype: "fuse.x".into(), flags, data, fuse: true }));
        let alone = judge(&grant("x", "noallow_other"), &Call { data: "fd=5,allow_other", ..CALL }).unwrap();
        assert_eq!(alone.data.as_c_str(), c"fd=9,user_id=0,group_id=0");
    }

    #[test]
    fn a_filesystem_of_the_kernels_gets_its_data_as_they_are() {
        let call = Call { fstype: "nfs4", data: "addr=10.0.0.1,fd=5", fuse_device: None, ..CALL };
        let verdict = judge(&grant("nfs", ""), &call).unwrap();
        assert_eq!((verdict.data.as_c_str(), verdict.fuse), (c"addr=10.0.0.1,fd=5", false));
    }

    #[test]
    fn what_is_not_granted() {
        let quote = OptionsError::UnbalancedQuote { name: "a".into() };
        for (call, objection) in [
            (Call { mounted_before: true, ..CALL }, Objection::Twice),
            (Call { flags: MountFlags::BIND | MountFlags::RDONLY, ..CALL }, Objection::Flags(0x1000)),
            (Call { flags: MountFlags::from_bits_retain(0x20), ..CALL }, Objection::Flags(0x20)),
            (Call { fstype: "ext4", ..CALL }, Objection::Type("ext4".into())),
            (Call { data: "fd=5,subtype=placeholder", ..CALL }, Objection::Type("fuse.placeholder".into())),
            (Call { data: "fd=5,x=\"a,subtype=placeholder,b\"", ..CALL }, Objection::Type("fuse.placeholder".into())),
            (Call { fstype: "fuseblk", ..CALL }, Objection::Type("fuseblk".into())),
            (Call { fstype: "nfs", ..CALL }, Objection::Type("nfs".into())),
            (Call { at_mount_point: false, ..CALL }, Objection::Elsewhere),
            (Call { fuse_device: None, ..CALL }, Objection::NotFuse),
            (Call { data: "a=\"b", ..CALL }, Objection::Data(quote)),
        ] {
            assert_eq!(judge(&grant("x", ""), &call), Err(objection), "{call:?}");
        }
    }

    #[test]
    fn a_helper_that_obeys_its_options_is_not_refused() {
        const NOSYMFOLLOW: MountFlags = MountFlags::from_bits_retain(0x100);
        const I_VERSION: MountFlags = MountFlags::from_bits_retain(0x80_0000);
        let nosymfollow = grant("x", "nosymfollow");
        let obeys = judge(&nosymfollow, &Call { flags: NOSYMFOLLOW, ..CALL });
        assert!(obeys.unwrap().flags.contains(NOSYMFOLLOW));
        assert!(
            judge(&nosymfollow, &CALL).unwrap().flags.contains(NOSYMFOLLOW),
            "it is forced, as the helper may forget"
        );
        assert!(judge(&grant("x", "iversion"), &Call { flags: I_VERSION, ..CALL }).is_ok());
    }

    #[test]
    fn a_nul_byte_is_called_one() {
        let nfs = judge(&grant("nfs", ""), &Call { fstype: "nfs", data: "a\0b", ..CALL });
        assert_eq!(nfs, Err(Objection::Nul("mount data")));
        let fuse = judge(&grant("x", ""), &Call { fstype: "fuse.x\0y", ..CALL });
        assert_eq!(fuse, Err(Objection::Nul("filesystem type")));
        let option = OptionsError::Nul { name: "a".into() };
        assert_eq!(judge(&grant("x", ""), &Call { data: "a=\0", ..CALL }), Err(Objection::Data(option)));
    }

    #[test]
    fn quotes_hide_nothing_from_us_that_the_kernel_reads() {
        let hidden = |data| judge(&grant("x", "noallow_other"), &Call { data, ..CALL });
        assert_eq!(hidden("fd=5,subtype=\"a,fd=6,b\""), Err(Objection::Hidden("fd")));
        assert_eq!(hidden("fd=5,subtype=\"a,allow_other,b\""), Err(Objection::Hidden("allow_other")));
        assert_eq!(hidden("fd=5,subtype=\"a,user_id=7,b\""), Err(Objection::Hidden("user_id")));
        let context = "context=\"system_u:object_r:t:s0:c1,c2\"";
        let expected = CString::new(format!("{context},fd=9,user_id=0,group_id=0")).unwrap();
        assert_eq!(hidden(context).map(|verdict| verdict.data), Ok(expected));
    }

    /// Mount data as a helper may write them to get more than it is granted.
    fn hostile() -> impl Strategy<Value = String> {
        const WORDS: &[&str] = &[
            "fd",
            "allow_other",
            "user_id",
            "group_id",
            "subtype",
            "x",
            "=",
            "=",
            "=6",
            ",",
            ",",
            ",",
            "\"",
            "\"",
            "\\",
            " ",
            "é",
        ];
        vec(select(WORDS), 0..24).prop_map(|words| words.concat())
    }

    proptest! {
        #[test]
        fn no_data_smuggle_what_is_not_granted(data in hostile(), allow_other: bool) {
            let grant = Grant { allow_other, ..grant("x", "") };
            let Ok(verdict) = judge(&grant, &Call { data: &data, ..CALL }) else { return Ok(()) };
            let text = verdict.data.to_str().unwrap();
            // As the kernel reads them, and as its security modules do.
            let pieces: Vec<&str> = text.split(',').collect();
            let options = MountOptions::parse(text).unwrap();
            let named = |name: &str| pieces.iter().filter(|piece| piece.split('=').next() == Some(name)).count();
            let option = |name: &str| options.iter().filter(|option| option.name == name).count();
            prop_assert_eq!((named("fd"), option("fd"), options.value("fd")), (1, 1, Some("9")));
            prop_assert_eq!((named("user_id"), option("user_id"), options.value("user_id")), (1, 1, Some("0")));
            let granted = usize::from(allow_other);
            prop_assert_eq!((named("allow_other"), option("allow_other")), (granted, granted));
            // Nothing is there that the helper has not said, or that is not ours.
            let ours = ["fd=9", "user_id=0", "group_id=0", "allow_other"];
            prop_assert!(pieces.iter().all(|piece| ours.contains(piece) || data.split(',').any(|said| said == *piece)));
        }

        #[test]
        fn no_call_gets_flags_or_types_beyond_its_grant(flags: u32, fstype in "[a-z0-9.]{0,10}", data in ".{0,40}") {
            let call = Call { flags: MountFlags::from_bits_retain(flags), fstype: &fstype, data: &data, ..CALL };
            let grant = grant("nfs", "ro");
            let Ok(verdict) = judge(&grant, &call) else { return Ok(()) };
            prop_assert!(grant.types.contains(&verdict.fstype) && verdict.flags.contains(grant.flags));
            prop_assert_eq!(verdict.flags.bits() & !shaping_flags(), 0);
        }
    }
}
