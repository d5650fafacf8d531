//! The grant: what one helper may do, whatever it asks for.
//!
//! Runs in the mounter; pure.

use api::mount_words::{self, MOUNT_WORDS, MountWord};
use api::options::{MountOption, MountOptions};
use api::request::is_fuse;
use rustix::mount::MountFlags;

/// What one helper may mount: one filesystem, of one of these types, with these flags.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    /// The types that the helper may name.
    pub types: GrantedTypes,
    /// Mount flags that the volume gets whatever the helper asks for. `nosuid` and `nodev` are always among them.
    pub flags: MountFlags,
    /// Whether every user may enter, not only the helper's, whatever the helper asks for.
    pub allow_other: bool,
}

impl Grant {
    /// The flags in mount(8)'s words.
    pub fn flag_words(&self) -> Vec<String> {
        let set = |known: &&MountWord| known.flag != 0 && self.flags.contains(MountFlags::from_bits_retain(known.flag));
        MOUNT_WORDS.iter().filter(set).map(|known| known.word.to_owned()).collect()
    }

    /// What a request's type and options ask for.
    pub fn of(fstype: &str, options: &MountOptions) -> Self {
        let allow_other = !options.has_flag("noallow_other");
        Self { types: GrantedTypes::of(fstype), flags: forced_flags(options), allow_other }
    }
}

/// The kernel's own types that have helpers, by families: a helper for one of them may mount all of its family.
const KERNELS: [&[&str]; 3] = [&["nfs", "nfs4"], &["cifs", "smb3"], &["ceph"]];

/// The filesystem types that a helper may name in mount(2): FUSE's, and these of the kernel's own, whose helper
/// prepares their options. A FUSE program may serve these, too, on a kernel that lacks them.
#[derive(Debug, Clone, Copy)]
pub struct GrantedTypes(&'static [&'static str]);

impl GrantedTypes {
    /// The types that a helper for `fstype` mounts.
    fn of(fstype: &str) -> Self {
        let family = |family: &&&[&str]| family.contains(&fstype);
        Self(KERNELS.iter().find(family).copied().unwrap_or_default())
    }

    /// Whether the kernel serves filesystems of this type by itself, once a helper has mounted them.
    pub fn is_kernels(fstype: &str) -> bool {
        KERNELS.iter().any(|family| family.contains(&fstype))
    }

    /// Whether `fstype`, as passed to mount(2), is one of them.
    pub fn contains(self, fstype: &str) -> bool {
        is_fuse(fstype) || self.0.contains(&fstype)
    }
}

/// The first option that contradicts the flags that every grant forces.
pub(super) fn contradiction(options: &MountOptions) -> Option<&MountOption> {
    let takes_back = |(known, itself): (&MountWord, bool)| !itself && ["nosuid", "nodev"].contains(&known.word);
    options.iter().find(|option| mount_words::find_option(option).is_some_and(takes_back))
}

/// The mount flags of the options that are forced onto the volume; `nosuid` and `nodev` always.
fn forced_flags(options: &MountOptions) -> MountFlags {
    let words = mount_words::in_force(options);
    let forced = MOUNT_WORDS.iter().filter(|known| known.forced && words.contains(known.word));
    let flags = forced.map(|known| MountFlags::from_bits_retain(known.flag)).collect::<MountFlags>();
    flags | MountFlags::NOSUID | MountFlags::NODEV
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(options: &str) -> Grant {
        Grant::of("x", &MountOptions::parse(options).unwrap())
    }

    #[test]
    fn nosuid_and_nodev_are_always_there_and_the_last_flag_counts() {
        let always = MountFlags::NOSUID | MountFlags::NODEV;
        assert_eq!(grant("ro,noexec,rw").flags, always | MountFlags::NOEXEC);
        assert_eq!(grant("suid,dev").flags, always);
        assert_eq!(grant("ro,noexec,suid").flag_words(), ["ro", "noexec", "nosuid", "nodev"]);
    }

    #[test]
    fn every_user_may_enter_unless_the_caller_says_otherwise() {
        assert!(grant("").allow_other);
        assert!(!grant("noallow_other").allow_other);
    }

    #[test]
    fn types_of_fuse_and_of_the_helpers_own_kind() {
        assert!(GrantedTypes::of("glusterfs").contains("fuse.glusterfs"));
        assert!(!GrantedTypes::of("glusterfs").contains("ext4"));
        assert!(!GrantedTypes::of("glusterfs").contains("fuseblk"));
        assert!(GrantedTypes::of("nfs").contains("nfs4"));
        assert!(GrantedTypes::of("ceph").contains("fuse.ceph-fuse"));
    }
}
