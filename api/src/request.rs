//! A caller's request: one volume at one target.
//!
//! Pure. Every front door turns its caller's arguments into a [`Request`]; the mounter knows nothing else. The terms
//! are mount(8)'s: type, source, target, options.

use crate::options::MountOptions;
use crate::secret::Secrets;
use serde::{Deserialize, Serialize};

/// One volume to mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The type as the caller named it: `glusterfs`, `fuse.bindfs`.
    pub fstype: String,
    /// What to mount: `host:/volume`, `bucket`, a path in the container.
    pub source: String,
    /// Where, as a path on the node.
    pub target: String,
    /// The options of every `-o`, in the caller's order.
    pub options: MountOptions,
    /// What mount(8) passes to a helper beside the options.
    #[serde(default)]
    pub switches: Switches,
    /// What the helper needs and no other process may read.
    #[serde(default)]
    pub secrets: Secrets,
}

/// How long the words of a request may be, in bytes. They are remembered with the volume, logged and listed.
const LONGEST: [(&str, usize); 4] = [("type", 255), ("source", 16 << 10), ("target", 4096), ("options", 64 << 10)];

/// A word of a request is too long.
#[derive(Debug, thiserror::Error)]
#[error("the {what} is {length} bytes long, at most {limit} are taken")]
pub struct TooLong {
    what: &'static str,
    length: usize,
    limit: usize,
}

impl Request {
    /// The name of the filesystem, and its source: type `fuse.s3fs` is `s3fs`, and so is `fuse` with a source `s3fs#…`, of
    /// which `mount.fuse` makes the program and what it is to mount.
    pub fn filesystem(&self) -> (&str, &str) {
        match self.fstype.strip_prefix("fuse.").unwrap_or(&self.fstype) {
            "fuse" | "fuse3" => self.source.split_once('#').unwrap_or((&self.source, "")),
            name => (name, &self.source),
        }
    }

    /// Whether no word of it is too long.
    pub fn check_lengths(&self) -> Result<(), TooLong> {
        let lengths = [self.fstype.len(), self.source.len(), self.target.len(), self.options.to_string().len()];
        match LONGEST.iter().zip(lengths).find(|((_, limit), length)| length > limit) {
            Some(((what, limit), length)) => Err(TooLong { what, length, limit: *limit }),
            None => Ok(()),
        }
    }
}

/// Whether a place that is asked for is not too long to be one.
pub fn check_place(place: &str) -> Result<(), TooLong> {
    let [_, _, (what, limit), _] = LONGEST;
    if place.len() > limit { Err(TooLong { what, length: place.len(), limit }) } else { Ok(()) }
}

/// The single-letter switches of mount(8) that its helpers understand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switches {
    /// `-s`: tolerate options that the helper does not know.
    pub sloppy: bool,
    /// `-n`: leave mtab alone.
    pub no_mtab: bool,
    /// `-v`: verbose.
    pub verbose: bool,
}

/// The type of the mounter's own placeholders in mount tables, where their source says whose they are. Nobody else's filesystem may
/// have it.
pub const PLACEHOLDER: &str = "fuse.placeholder";

/// Whether `fstype` is `fuse` or `fuse.anything`.
pub fn is_fuse(fstype: &str) -> bool {
    fstype == "fuse" || fstype.starts_with("fuse.")
}
