//! One module for each kind of input, each with a function `check`, which panics if something does not hold.

pub mod config;
pub mod documents;
pub mod flexvolume;
pub mod message;
pub mod mount_data;
pub mod mount_table;
pub mod options;
pub mod pod;
pub mod preload_message;
pub mod record;

/// A target: its name, which its seeds' directory has too, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: &[Target] = &[
    ("config", config::check),
    ("documents", documents::check),
    ("flexvolume", flexvolume::check),
    ("message", message::check),
    ("mount_data", mount_data::check),
    ("mount_table", mount_table::check),
    ("options", options::check),
    ("pod", pod::check),
    ("preload_message", preload_message::check),
    ("record", record::check),
];
