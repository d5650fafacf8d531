//! What is made, found and removed, in directories of the tests' own.

use super::*;
use rustix::fs::{CWD, Mode, OFlags, fstat, open};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

const PATIENCE: Patience<'_> = Patience::USUAL;

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> (Self, OwnedFd) {
        let path = std::env::temp_dir().join(format!("hostmount-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let opened = open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        (Self(path), opened)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_directory_is_made_once_and_has_the_mode_that_is_asked_for() {
    let (scratch, root) = Scratch::new("made");
    let make = |name: &str, mode| {
        let how = NewDirectory { mode, ..NewDirectory::default() };
        make_directory(root.as_fd(), name.as_ref(), how, PATIENCE)
    };
    assert!(make("a", None).unwrap() && !make("a", None).unwrap());
    assert_eq!(mode(&scratch.0.join("a")), 0o777);
    assert!(!make("a", Some(0o2750)).unwrap());
    assert_eq!(mode(&scratch.0.join("a")), 0o2750);
    assert!(!make("a", None).unwrap());
    assert_eq!(mode(&scratch.0.join("a")), 0o2750, "nothing was asked for");
    fs::write(scratch.0.join("file"), "").unwrap();
    symlink("a", scratch.0.join("link")).unwrap();
    for (bad, errno) in [("file", libc::ENOTDIR), ("link", libc::ENOTDIR), ("a/b", libc::EINVAL), ("..", libc::EINVAL)]
    {
        for mode in [None, Some(0o777)] {
            assert_eq!(make(bad, mode).unwrap_err().raw_os_error(), Some(errno), "{bad}");
        }
    }
    assert_eq!(mode(&scratch.0.join("a")), 0o2750, "no link was followed");
}

#[test]
fn a_name_is_changed_if_the_other_is_free() {
    let (scratch, root) = Scratch::new("renamed");
    fs::create_dir_all(scratch.0.join("a/x")).unwrap();
    fs::create_dir_all(scratch.0.join("b")).unwrap();
    let to = |name: &str| rename(root.as_fd(), "a".as_ref(), name.as_ref(), PATIENCE);
    assert_eq!(to("b").unwrap_err().raw_os_error(), Some(libc::EEXIST));
    assert_eq!(to("../c").unwrap_err().raw_os_error(), Some(libc::EINVAL));
    to("c").unwrap();
    assert!(scratch.0.join("c/x").exists() && !scratch.0.join("a").exists());
}

#[test]
fn everything_below_goes_and_nothing_else() {
    let (scratch, root) = Scratch::new("removed");
    let at = |path: &str| scratch.0.join(path);
    fs::create_dir_all(at("kept/d")).unwrap();
    fs::write(at("kept/file"), "").unwrap();
    fs::create_dir_all(at("gone/empty")).unwrap();
    // More than one buffer of entries, directories among them.
    for number in 0..700 {
        fs::write(at(&format!("gone/a long name of a file, so that many do not fit {number}")), "").unwrap();
        if number % 7 == 0 {
            fs::create_dir_all(at(&format!("gone/d{number}/e/f"))).unwrap();
            fs::write(at(&format!("gone/d{number}/e/file")), "").unwrap();
        }
    }
    for (to, link) in [("../kept", "gone/link"), ("../../kept", "gone/empty/link"), ("/etc", "gone/etc")] {
        symlink(to, at(link)).unwrap();
    }
    remove_all(root.as_fd(), "gone".as_ref(), PATIENCE).unwrap();
    assert!(!at("gone").exists() && at("kept/d").exists() && at("kept/file").exists());
    remove_all(root.as_fd(), "gone".as_ref(), PATIENCE).unwrap();
    // A link and a file are what they are.
    symlink("kept", at("link")).unwrap();
    remove_all(root.as_fd(), "link".as_ref(), PATIENCE).unwrap();
    assert!(at("kept/file").exists() && fs::symlink_metadata(at("link")).is_err());
    for bad in [".", "..", "kept/d", ""] {
        assert_eq!(remove_all(root.as_fd(), bad.as_ref(), PATIENCE).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}

#[test]
fn a_tree_that_is_deeper_than_any_path() {
    let (scratch, root) = Scratch::new("deep");
    let mut here = root.try_clone().unwrap();
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    for _ in 0..1000 {
        rustix::fs::mkdirat(&here, "deep and deeper", Mode::RWXU).unwrap();
        rustix::fs::symlinkat("/", &here, "link").unwrap();
        here = rustix::fs::openat(&here, "deep and deeper", flags, Mode::empty()).unwrap();
    }
    drop(here);
    remove_all(root.as_fd(), "deep and deeper".as_ref(), PATIENCE).unwrap();
    assert!(!scratch.0.join("deep and deeper").exists());
    assert!(fstat(&root).is_ok() && fstat(CWD).is_err());
}

#[test]
fn time_is_up_for_it() {
    let (scratch, root) = Scratch::new("late");
    fs::create_dir_all(scratch.0.join("d")).unwrap();
    let (reader, writer) = io::pipe().unwrap();
    drop(writer);
    // Whoever waits has gone already: a process that is quicker is right as well.
    let gone = Patience { stopping: Some(reader.as_fd()), ..PATIENCE };
    let done = remove_all(root.as_fd(), "d".as_ref(), gone);
    assert!(done.is_ok() || done.unwrap_err().raw_os_error() == Some(libc::ETIMEDOUT));
}
