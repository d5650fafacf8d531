//! FUSE's requests, answered from the inodes.
//!
//! Runs in the helper `mount.memfs`, on fuser's thread.

use super::Owner;
use super::inodes::{Change, Inodes, New};
use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Nothing changes here except through the kernel, so it may cache attributes.
const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);
/// Inode numbers are never used twice.
const GENERATION: Generation = Generation(0);
const NO_HANDLE: FileHandle = FileHandle(0);
const BLOCK: u32 = 4096;

/// The filesystem as fuser wants it.
#[derive(Debug)]
pub(super) struct Memfs(Mutex<Inodes>);

impl Memfs {
    pub(super) fn new(inodes: Inodes) -> Self {
        Self(Mutex::new(inodes))
    }

    fn inodes(&self) -> MutexGuard<'_, Inodes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, new: &New<'_>) -> Result<FileAttr, Errno> {
        // The kernel has applied the umask; masked to twelve bits the cast loses nothing.
        let owner = Owner { mode: (mode & 0o7777) as u16, uid: req.uid(), gid: req.gid() };
        self.inodes().add(parent.0, name, owner, new)
    }
}

fn answer_entry(result: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match result {
        Ok(attr) => reply.entry(&FOREVER, &attr, GENERATION),
        Err(error) => reply.error(error),
    }
}

fn answer_attr(result: Result<FileAttr, Errno>, reply: ReplyAttr) {
    match result {
        Ok(attr) => reply.attr(&FOREVER, &attr),
        Err(error) => reply.error(error),
    }
}

fn answer(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Memfs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // With default_permissions the kernel alone judges owners, so it may also map them. Before 6.12 it does not.
        let _ = config.add_capabilities(InitFlags::FUSE_ALLOW_IDMAP);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer_entry(self.inodes().look_up(parent.0, name), reply);
    }

    fn forget(&self, _: &Request, ino: INodeNo, nlookup: u64) {
        self.inodes().forget(ino.0, nlookup);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer_attr(self.inodes().attributes(ino.0), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let time = |time| match time {
            TimeOrNow::SpecificTime(time) => time,
            TimeOrNow::Now => SystemTime::now(),
        };
        let change = Change { mode, uid, gid, size, accessed: atime.map(time), modified: mtime.map(time) };
        answer_attr(self.inodes().change(ino.0, &change), reply);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.inodes().symlink_target(ino.0) {
            Ok(target) => reply.data(target.as_bytes()),
            Err(error) => reply.error(error),
        }
    }

    fn mknod(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, _: u32, reply: ReplyEntry) {
        if mode & libc::S_IFMT != libc::S_IFREG {
            return reply.error(Errno::EPERM);
        }
        answer_entry(self.add(req, parent, name, mode, &New::File), reply);
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        answer_entry(self.add(req, parent, name, mode, &New::Directory), reply);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        answer_entry(self.add(req, parent, name, 0o777, &New::Symlink(target.as_os_str())), reply);
    }

    fn create(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, _: i32, reply: ReplyCreate) {
        match self.add(req, parent, name, mode, &New::File) {
            Ok(attr) => reply.created(&FOREVER, &attr, GENERATION, NO_HANDLE, FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.inodes().remove(parent.0, name, false), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.inodes().remove(parent.0, name, true), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.intersects(!RenameFlags::RENAME_NOREPLACE) {
            return reply.error(Errno::EINVAL);
        }
        let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        answer(self.inodes().rename((parent.0, name), (newparent.0, newname), replace), reply);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.inodes().read(ino.0, offset, size) {
            Ok(data) => reply.data(data),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.inodes().write(ino.0, offset, data) {
            // A request is at most 16 MiB.
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let inodes = self.inodes();
        match inodes.list(ino.0, offset) {
            Ok(entries) => {
                for (place, inode, kind, name) in entries {
                    if reply.add(INodeNo(inode), place, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let usage = self.inodes().usage();
        let free = (usage.limit - usage.used) / u64::from(BLOCK);
        let free_inodes = u64::from(u32::MAX) - usage.inodes;
        reply.statfs(
            usage.limit / u64::from(BLOCK),
            free,
            free,
            usage.inodes + free_inodes,
            free_inodes,
            BLOCK,
            255,
            BLOCK,
        );
    }
}
