//! A helper's mount(2), as the judge sees it.
//!
//! The input is lines: the volume's type, its options, the type in the call, its flags in hexadecimal, and the mount data,
//! which are all that follows.

use api::mount_words::shaping_flags;
use api::options::MountOptions;
use hostmount::engine::judge::{Call, judge};
use hostmount::policy::Grant;
use rustix::mount::MountFlags;

/// Our descriptor for /dev/fuse.
const OURS: i32 = 3_141_592;

/// A grant and a call.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let lines: Vec<&str> = text.splitn(5, '\n').collect();
    let [of, options, fstype, flags, data] = lines[..] else { return };
    let Ok(options) = MountOptions::parse(options) else { return };
    let flags = MountFlags::from_bits_retain(u32::from_str_radix(flags, 16).unwrap_or_default());
    let grant = Grant::of(of, &options);
    let call = Call { fstype, flags, data, fuse_device: Some(OURS), at_mount_point: true, mounted_before: false };
    for never in [
        Call { mounted_before: true, ..call },
        Call { at_mount_point: false, ..call },
        Call { flags: flags | MountFlags::BIND, ..call },
        Call { fuse_device: None, fstype: "fuse.x", ..call },
    ] {
        assert!(judge(&grant, &never).is_err(), "{never:?}");
    }
    let verdict = match judge(&grant, &call) {
        Ok(verdict) => verdict,
        Err(objection) => return assert!(!objection.to_string().is_empty() && objection.errno().raw_os_error() > 0),
    };
    let kernels = ["nfs", "nfs4", "cifs", "smb3", "ceph"].contains(&verdict.fstype.as_str());
    assert_eq!(verdict.fstype, fstype);
    assert!(kernels || verdict.fuse, "{verdict:?}");
    assert!(!verdict.fuse || fstype == "fuse" || fstype.starts_with("fuse."), "{verdict:?}");
    assert!(grant.types.contains(&verdict.fstype), "{verdict:?}");
    assert!(verdict.flags.contains(grant.flags | MountFlags::NOSUID | MountFlags::NODEV), "{verdict:?}");
    assert_eq!(verdict.flags.bits() & !shaping_flags(), 0, "{verdict:?}");
    assert_eq!(verdict.flags, flags | grant.flags, "{verdict:?}");
    let text = verdict.data.to_str().expect("it came from text");
    if !verdict.fuse {
        assert_eq!(text, data, "it is passed as it is");
        return;
    }
    // As the kernel reads them, at each comma, and as its security modules do, who know quotes.
    let ours = format!("fd={OURS}");
    let all: Vec<&str> = text.split(',').collect();
    let named = |name: &str| all.iter().filter(|piece| piece.split('=').next() == Some(name)).count();
    assert_eq!((named("fd"), all.iter().filter(|piece| **piece == ours).count()), (1, 1), "{text}");
    assert_eq!(named("allow_other"), usize::from(grant.allow_other), "{text}");
    // Who may enter is the grant's business.
    for owner in ["user_id", "group_id"] {
        let ours = format!("{owner}=0");
        assert_eq!((named(owner), all.iter().filter(|piece| **piece == ours).count()), (1, 1), "{text}");
        assert_eq!(quoted_count(text, owner), 1, "{text}");
    }
    let quoted = MountOptions::parse(text).expect("the kernel's modules read it too");
    assert_eq!(quoted.value("fd"), Some(OURS.to_string().as_str()), "{text}");
    assert_eq!(quoted_count(text, "fd"), 1, "{text}");
    let theirs = |piece: &&str| data.split(',').any(|said| said == *piece);
    let ours = [ours.as_str(), "allow_other", "user_id=0", "group_id=0"];
    assert!(all.iter().all(|piece| ours.contains(piece) || theirs(piece)), "{text} of {data}");
}

/// How many options of this name those see who know quotes.
fn quoted_count(text: &str, name: &str) -> usize {
    MountOptions::parse(text).map_or(0, |options| options.iter().filter(|option| option.name == name).count())
}
