//! One question to the mount table: is this device number a FUSE filesystem's?
//!
//! Runs in the process copy of [`node`](crate::node). statfs(2) would show it as well, but asks the daemon, and a
//! volume may be unmounted because its daemon does not answer.

use crate::sys::{self, Errno};

/// Whether the filesystem with this device number is mounted here, as type `fuse` or `fuse.anything`.
pub(crate) fn is_fuse((major, minor): (u32, u32)) -> Result<bool, Errno> {
    let table = sys::open(c"/proc/self/mountinfo", libc::O_RDONLY)?;
    let mut line = Line::default();
    let mut buffer = [0; 4096];
    loop {
        let length = sys::read(&table, &mut buffer)?;
        let Some(bytes @ [_, ..]) = buffer.get(..length) else { return Ok(false) };
        for &byte in bytes {
            line.take(byte);
            if byte == b'\n' {
                if (line.major, line.minor) == (major, minor) && line.fuse {
                    return Ok(true);
                }
                line = Line::default();
            }
        }
    }
}

/// What was read of a line so far: `id parent MAJOR:MINOR root target flags [optional…] - TYPE source options`.
#[derive(Default)]
struct Line {
    field: usize,
    /// The field with the lone hyphen, once it was read. It cannot be one of the first fields.
    hyphen: Option<usize>,
    /// The first bytes of this field, and how many it has.
    start: [u8; 5],
    length: usize,
    colon: bool,
    major: u32,
    minor: u32,
    fuse: bool,
}

impl Line {
    fn take(&mut self, byte: u8) {
        match byte {
            b' ' | b'\n' => self.end_field(),
            _ => {
                if self.field == 2 {
                    match byte {
                        b':' => self.colon = true,
                        b'0'..=b'9' => {
                            let number = if self.colon { &mut self.minor } else { &mut self.major };
                            *number = number.wrapping_mul(10).wrapping_add(u32::from(byte - b'0'));
                        }
                        _ => {}
                    }
                }
                if let Some(slot) = self.start.get_mut(self.length) {
                    *slot = byte;
                }
                self.length += 1;
            }
        }
    }

    fn end_field(&mut self) {
        if self.hyphen == Some(self.field.wrapping_sub(1)) {
            self.fuse = match self.length {
                4 => self.start.starts_with(b"fuse"),
                length => length > 5 && self.start == *b"fuse.",
            };
        }
        if self.field >= 6 && self.hyphen.is_none() && self.length == 1 && self.start[0] == b'-' {
            self.hyphen = Some(self.field);
        }
        self.field += 1;
        self.length = 0;
    }
}
