//! `user`: the uid that a type's helpers run as; `readable`: what such a one reads all the same; `[helpers] uids`: the numbers
//! for those that have one of their own.
//!
//! Read by the mounter, in the container; pure.

use serde::Deserialize;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// The user that a helper runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub enum User {
    /// A uid and gid of its own, which no other process of the node has.
    Own,
    /// uid 0, without any capability.
    Root,
    /// This uid.
    Number(u32),
}

/// Why a type's helpers are root unless its settings say otherwise.
const ROOT_BY_DEFAULT: [(&str, &[&str]); 2] = [
    // They insist on it, and what they prepare is mounted for the node's root.
    ("the kernel's own filesystems", &["nfs", "nfs4", "cifs", "smb3", "ceph", "davfs"]),
    // A uid that is new each time could neither write to the container's files nor read what the one before it has written.
    (
        "what it serves are the container's own files",
        &[
            "archivemount",
            "bindfs",
            "cryfs",
            "encfs",
            "fuse-overlayfs",
            "fuse-zip",
            "fuse2fs",
            "gocryptfs",
            "mergerfs",
            "unionfs",
            "unionfs-fuse",
        ],
    ),
];

impl User {
    /// For a type, by its name without `fuse.`, that has no setting.
    pub fn by_default(fstype: &str) -> Self {
        let root = ROOT_BY_DEFAULT.iter().any(|(_, types)| types.contains(&fstype));
        if root { Self::Root } else { Self::Own }
    }
}

/// What the programs of some types look for without being asked to, in files that often only root can read.
const READ_BY_THEMSELVES: [(&str, &[&str]); 4] = [
    ("ceph-fuse", &["/etc/ceph"]),
    ("rclone", &["~/.config/rclone", "~/.rclone.conf"]),
    ("s3fs", &["/etc/passwd-s3fs", "~/.passwd-s3fs", "~/.aws"]),
    ("sshfs", &["~/.ssh"]),
];

/// Files and directories of the container that a helper of another uid than root is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readable {
    /// These; one that is missing is an error.
    All(Vec<PathBuf>),
    /// Those of them that are there.
    WhatIsThere(Vec<PathBuf>),
}

/// What a type's program looks for by itself.
pub(super) fn read_by_itself(fstype: &str, home: &Path) -> Vec<PathBuf> {
    let known = READ_BY_THEMSELVES.iter().find(|(known, _)| *known == fstype);
    let path = |path: &&str| path.strip_prefix("~/").map_or_else(|| path.into(), |below| home.join(below));
    known.into_iter().flat_map(|(_, paths)| paths.iter().map(path)).collect()
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u32),
    Word(String),
}

/// Not a user.
#[derive(Debug, thiserror::Error)]
#[error("a user is \"own\", \"root\" or a uid below 4294967295")]
pub struct BadUser;

impl TryFrom<Written> for User {
    type Error = BadUser;

    fn try_from(written: Written) -> Result<Self, BadUser> {
        match written {
            Written::Number(0) => Ok(Self::Root),
            // The kernel's word for "none".
            Written::Number(u32::MAX) => Err(BadUser),
            Written::Number(uid) => Ok(Self::Number(uid)),
            Written::Word(word) => match word.as_str() {
                "own" => Ok(Self::Own),
                "root" => Ok(Self::Root),
                _ => Err(BadUser),
            },
        }
    }
}

/// Uids that nothing else on the node has, written `FIRST-LAST`. Each stands for the gid of the same number, too.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct UidRange(RangeInclusive<u32>);

/// Not a range, or one that holds others' numbers.
#[derive(Debug, thiserror::Error)]
#[error("a range of uids is written as 1900000000-1900065535; 0, 65534 and 4294967295 cannot be in it")]
pub struct BadUidRange;

impl UidRange {
    /// The numbers.
    pub fn numbers(&self) -> RangeInclusive<u32> {
        self.0.clone()
    }
}

impl Default for UidRange {
    /// Of the numbers that systemd's list (UIDS-GIDS) leaves unused, and above all that kubelet gives to pods.
    fn default() -> Self {
        Self(1_900_000_000..=1_900_065_535)
    }
}

impl fmt::Display for UidRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.start(), self.0.end())
    }
}

impl TryFrom<String> for UidRange {
    type Error = BadUidRange;

    fn try_from(text: String) -> Result<Self, BadUidRange> {
        let (first, last) = text.split_once('-').ok_or(BadUidRange)?;
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| BadUidRange);
        let range = number(first)?..=number(last)?;
        let others = [0, 65534, u32::MAX];
        if range.is_empty() || others.iter().any(|other| range.contains(other)) {
            return Err(BadUidRange);
        }
        Ok(Self(range))
    }
}
