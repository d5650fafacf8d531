//! What is done for files that are open when a volume's helper dies.
//!
//! Read by the mounter, in the container; pure.

use serde::Deserialize;
use std::fmt;

/// How far the fresh filesystem answers for them (docs/open-files.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OpenFiles {
    /// Not at all: a process that has one open gets an error.
    None,
    /// They can go on being read.
    Read,
    /// They can go on being written as well. For types alone that pass everything on before they answer: what a dead helper had
    /// kept is lost, and an application must hear of that.
    Write,
}

/// Types that write through, by their names without `fuse.`, and how that is known.
const WRITES_THROUGH: &[(&str, &str)] = &[(
    "bindfs",
    "each write(2) is one to the file below, which the kernel has from then on, and its numbers of inodes are that file's",
)];

impl OpenFiles {
    /// What a type has that has no setting for it.
    pub fn of_type(fstype: &str) -> Self {
        let name = fstype.strip_prefix("fuse.").unwrap_or(fstype);
        if WRITES_THROUGH.iter().any(|(known, _)| *known == name) { Self::Write } else { Self::Read }
    }
}

impl fmt::Display for OpenFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_writes_through_is_written() {
        assert_eq!(OpenFiles::of_type("fuse.bindfs"), OpenFiles::Write);
        assert_eq!(OpenFiles::of_type("glusterfs"), OpenFiles::Read);
    }
}
