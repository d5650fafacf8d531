//! Which files of the old filesystem processes have open, or mapped, and what each is called there.
//!
//! Nothing here asks a filesystem: the kernel answers, of what it knows. Processes are hostile: what they have open is looked at by
//! a descriptor of our own, once, so that nothing can be exchanged in between.

use super::inherited::Inherited;
use linux::mount_table::Device;
use linux::processes::{Process, all, name_of};
use linux::statx::{identity, known, unique_mount};
use linux::sys::file_handle::fuse_node;
use rustix::fs::{FileType, Mode, OFlags, Statx, open};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How many files are looked after; those beyond are answered as without an heir.
const MOST: usize = 1 << 16;
/// What the kernel puts behind the name of a file that has none any more.
const DELETED: &[u8] = b" (deleted)";

/// A file that is open.
#[derive(Debug)]
pub(super) struct OpenFile {
    /// What it is called, from the filesystem's root; `None`: that is not certain.
    pub(super) path: Option<PathBuf>,
    /// Its attributes, as the kernel knew them last.
    pub(super) known: Statx,
    /// Whether somebody has it open for writing.
    pub(super) written: bool,
}

/// By their numbers in the helper's protocol.
pub(super) type OpenFiles = HashMap<u64, OpenFile>;

/// All regular files of the old filesystem that processes in its places' mount namespaces have open or mapped.
pub(super) fn find(inherited: &Inherited) -> OpenFiles {
    let mut found = OpenFiles::new();
    let processes = all(&inherited.host_proc).unwrap_or_default();
    let lives_there = |process: &Process| process.mount_namespace().is_ok_and(|id| inherited.namespaces.contains(&id));
    for process in processes.into_iter().filter(lives_there) {
        for file in process.open_files() {
            let Some(held) = held(&file, inherited.device) else { continue };
            let number = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let written = process.read(&format!("fdinfo/{number}")).map_or(true, |text| may_write(&text));
            note(inherited, &mut found, &held, written);
        }
        for (range, written) in mapped(&process.read("maps").unwrap_or_default(), inherited.device) {
            let held = held(&process.file(format!("map_files/{range}")), inherited.device);
            held.into_iter().for_each(|held| note(inherited, &mut found, &held, written));
        }
    }
    found
}

/// What is behind a link in /proc, if it is of this filesystem.
fn held(link: &Path, device: Device) -> Option<OwnedFd> {
    let fd = open(link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    identity(fd.as_fd()).is_ok_and(|(of, _)| of == device).then_some(fd)
}

/// Takes in that a process has this open.
fn note(inherited: &Inherited, found: &mut OpenFiles, held: &OwnedFd, written: bool) {
    let Ok(Some(node)) = fuse_node(held.as_fd()) else { return };
    let Ok(known) = known(held.as_fd()) else { return };
    if FileType::from_raw_mode(known.stx_mode.into()) != FileType::RegularFile || found.len() >= MOST {
        return;
    }
    let path = path(inherited, held).ok().flatten();
    match found.entry(node) {
        Entry::Vacant(entry) => _ = entry.insert(OpenFile { path, known, written }),
        Entry::Occupied(mut entry) => {
            let file = entry.get_mut();
            file.written |= written;
            // It has two names, or one of its places is not known.
            if file.path != path {
                file.path = None;
            }
        }
    }
}

/// The path of an open file from its filesystem's root. The kernel names it from the root of the mount that it was opened by, which is
/// detached; `None`: by another mount, or it has no name any more.
fn path(inherited: &Inherited, held: &OwnedFd) -> io::Result<Option<PathBuf>> {
    let place = unique_mount(held.as_fd())?.and_then(|mount| inherited.places.get(&mount));
    let named = rustix::fs::readlink(name_of(held.as_fd()), Vec::new())?.into_bytes();
    Ok(place.and_then(|root| below(root, &named)))
}

fn below(root: &Path, named: &[u8]) -> Option<PathBuf> {
    let inside = named.strip_prefix(b"/").filter(|inside| !inside.ends_with(DELETED))?;
    Some(root.join(OsStr::from_bytes(inside)))
}

/// Whether a descriptor may be written to, by its text in /proc/PID/fdinfo (proc_pid_fdinfo(5)).
fn may_write(text: &str) -> bool {
    let flags = text.lines().find_map(|line| i32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
    flags.is_none_or(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY)
}

/// The ranges of /proc/PID/maps that show files of this filesystem, and whether what is written there is written to the file.
fn mapped(maps: &str, device: Device) -> Vec<(String, bool)> {
    let number = format!("{:02x}:{:02x}", device.major, device.minor);
    let lines = maps.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (range, access, _, of) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let (from, to) = range.split_once('-')?;
        let plain = |number: &str| u64::from_str_radix(number, 16).ok();
        (of == number)
            .then_some((format!("{:x}-{:x}", plain(from)?, plain(to)?), access.contains('w') && access.contains('s')))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_descriptors_and_mappings() {
        assert!(!may_write("pos:\t0\nflags:\t0100000\nmnt_id:\t33\n"));
        for text in ["flags:\t0100001", "flags:\t02100002", "", "flags:\tx"] {
            assert!(may_write(text), "{text}");
        }
        let maps = "00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/x\n\
                    7f10000-7f12000 rw-s 00000000 00:3d 42 /data/a b\n\
                    7ffc0a000000-7ffc0a001000 r--s 00000000 00:3d 43 /data/c\n\
                    7ffc0b000000-7ffc0b001000 rw-p 00000000 00:3d 43 /data/c\n\
                    broken\n";
        let ranges = mapped(maps, Device { major: 0, minor: 0x3d });
        let expected =
            [("7f10000-7f12000", true), ("7ffc0a000000-7ffc0a001000", false), ("7ffc0b000000-7ffc0b001000", false)];
        assert_eq!(ranges, expected.map(|(range, written)| (range.to_owned(), written)));
    }

    #[test]
    fn a_path_is_from_the_filesystems_root() {
        let path = |root: &str, named: &[u8]| below(Path::new(root), named);
        assert_eq!(path("/", b"/a/b"), Some("/a/b".into()));
        assert_eq!(path("/sub", b"/a"), Some("/sub/a".into()));
        assert_eq!(path("/", b"/a (deleted)"), None);
        assert_eq!(path("/", b"pipe:[7]"), None);
        assert_eq!(path("/", b"/a\nb").unwrap().as_os_str().as_bytes(), b"/a\nb");
    }
}
