//! The inodes of the files and directories, in memory: pure, without a word of FUSE's protocol.
//!
//! Runs in the helper `mount.memfs`.

use super::Owner;
use fuser::{Errno, FileAttr, FileType, INodeNo};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

type Result<T> = std::result::Result<T, Errno>;

/// All inodes, and the limit for their size.
#[derive(Debug)]
pub(super) struct Inodes {
    inodes: HashMap<u64, Inode>,
    last: u64,
    used: u64,
    limit: u64,
}

#[derive(Debug)]
struct Inode {
    content: Content,
    owner: Owner,
    accessed: SystemTime,
    modified: SystemTime,
    changed: SystemTime,
    /// Whether a name leads here.
    linked: bool,
    /// How many answers of ours the kernel has not yet forgotten: it may use a removed file while it has it open.
    known: u64,
}

#[derive(Debug)]
enum Content {
    File(Vec<u8>),
    Directory { parent: u64, entries: BTreeMap<OsString, u64> },
    Symlink(OsString),
}

/// What to make with [`Inodes::add`].
#[derive(Debug)]
pub(super) enum New<'a> {
    File,
    Directory,
    Symlink(&'a OsStr),
}

/// What to change with [`Inodes::change`].
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) size: Option<u64>,
    pub(super) accessed: Option<SystemTime>,
    pub(super) modified: Option<SystemTime>,
}

/// Space and files: limit, used, number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) limit: u64,
    pub(super) used: u64,
    pub(super) inodes: u64,
}

const ROOT: u64 = INodeNo::ROOT.0;
const SET_GID: u16 = 0o2000;

impl Inodes {
    /// An empty root directory, for files of `limit` bytes in all.
    pub(super) fn new(limit: u64, root: Owner) -> Self {
        let content = Content::Directory { parent: ROOT, entries: BTreeMap::new() };
        Self { inodes: HashMap::from([(ROOT, Inode::new(content, root))]), last: ROOT, used: 0, limit }
    }

    /// Finds `name` in a directory; the kernel knows the inode from now on.
    pub(super) fn look_up(&mut self, parent: u64, name: &OsStr) -> Result<FileAttr> {
        let number = self.child(parent, name)?;
        self.inode_mut(number)?.known += 1;
        self.attributes(number)
    }

    /// The kernel forgets `times` answers about an inode.
    pub(super) fn forget(&mut self, number: u64, times: u64) {
        if let Ok(inode) = self.inode_mut(number) {
            inode.known = inode.known.saturating_sub(times);
            self.drop_if_unused(number);
        }
    }

    pub(super) fn attributes(&self, number: u64) -> Result<FileAttr> {
        let inode = self.inode(number)?;
        let (kind, size, links) = match &inode.content {
            Content::File(data) => (FileType::RegularFile, data.len(), 1),
            Content::Symlink(target) => (FileType::Symlink, target.len(), 1),
            Content::Directory { entries, .. } => {
                let directories = entries.values().filter(|child| self.is_directory(**child)).count();
                (FileType::Directory, 0, 2 + directories)
            }
        };
        Ok(FileAttr {
            ino: INodeNo(number),
            size: size as u64,
            blocks: (size as u64).div_ceil(512),
            atime: inode.accessed,
            mtime: inode.modified,
            ctime: inode.changed,
            crtime: SystemTime::UNIX_EPOCH,
            kind,
            perm: inode.owner.mode,
            nlink: if inode.linked { u32::try_from(links).unwrap_or(u32::MAX) } else { 0 },
            uid: inode.owner.uid,
            gid: inode.owner.gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    /// Makes something new in a directory; the kernel knows it from now on.
    pub(super) fn add(&mut self, parent: u64, name: &OsStr, mut owner: Owner, new: &New<'_>) -> Result<FileAttr> {
        if name.len() > 255 {
            return Err(Errno::ENAMETOOLONG);
        }
        let above = self.inode(parent)?.owner;
        // A directory with the set-group-id bit passes on its group: Kubernetes' fsGroup relies on it.
        if above.mode & SET_GID != 0 {
            owner.gid = above.gid;
            owner.mode |= if matches!(new, New::Directory) { SET_GID } else { 0 };
        }
        let number = self.last + 1;
        let entries = self.entries_mut(parent)?;
        if entries.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        entries.insert(name.to_owned(), number);
        let content = match new {
            New::File => Content::File(Vec::new()),
            New::Directory => Content::Directory { parent, entries: BTreeMap::new() },
            New::Symlink(target) => Content::Symlink((*target).to_owned()),
        };
        self.last = number;
        self.inodes.insert(number, Inode { known: 1, ..Inode::new(content, owner) });
        self.touch(parent)?;
        self.attributes(number)
    }

    /// Removes a name: of an empty directory if `directory`, else of anything but a directory.
    pub(super) fn remove(&mut self, parent: u64, name: &OsStr, directory: bool) -> Result<()> {
        let number = self.child(parent, name)?;
        match (&self.inode(number)?.content, directory) {
            (Content::Directory { entries, .. }, true) if !entries.is_empty() => return Err(Errno::ENOTEMPTY),
            (Content::Directory { .. }, true) => (),
            (Content::Directory { .. }, false) => return Err(Errno::EISDIR),
            (_, true) => return Err(Errno::ENOTDIR),
            (_, false) => (),
        }
        self.entries_mut(parent)?.remove(name);
        self.touch(parent)?;
        let inode = self.inode_mut(number)?;
        inode.linked = false;
        inode.changed = SystemTime::now();
        self.drop_if_unused(number);
        Ok(())
    }

    /// Moves a name, over an existing one if `replace`.
    pub(super) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr), replace: bool) -> Result<()> {
        let number = self.child(from.0, from.1)?;
        let directory = self.is_directory(number);
        match self.child(to.0, to.1) {
            Ok(_) if !replace => return Err(Errno::EEXIST),
            Ok(same) if same == number => return Ok(()),
            Ok(_) => self.remove(to.0, to.1, directory)?,
            Err(Errno::ENOENT) => (),
            Err(error) => return Err(error),
        }
        self.entries_mut(from.0)?.remove(from.1);
        self.entries_mut(to.0)?.insert(to.1.to_owned(), number);
        if let Content::Directory { parent, .. } = &mut self.inode_mut(number)?.content {
            *parent = to.0;
        }
        self.inode_mut(number)?.changed = SystemTime::now();
        self.touch(from.0)?;
        self.touch(to.0)
    }

    /// The bytes of a file from `offset` on, up to `size`.
    pub(super) fn read(&self, number: u64, offset: u64, size: u32) -> Result<&[u8]> {
        let data = self.inode(number)?.file()?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
        let end = start.saturating_add(size as usize).min(data.len());
        Ok(&data[start..end])
    }

    pub(super) fn write(&mut self, number: u64, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(Errno::EFBIG)?;
        if end > self.inode(number)?.file()?.len() as u64 {
            self.resize(number, end)?;
        }
        let inode = self.inode_mut(number)?;
        // In range: the file reaches to `end`, and its length is a usize.
        let (start, end) = (offset as usize, end as usize);
        inode.file_mut()?[start..end].copy_from_slice(bytes);
        inode.modified = SystemTime::now();
        inode.changed = inode.modified;
        Ok(())
    }

    pub(super) fn change(&mut self, number: u64, change: &Change) -> Result<FileAttr> {
        if let Some(size) = change.size {
            self.resize(number, size)?;
        }
        let now = SystemTime::now();
        let inode = self.inode_mut(number)?;
        let owner = &mut inode.owner;
        // Masked to twelve bits, so the cast loses nothing.
        owner.mode = change.mode.map_or(owner.mode, |mode| (mode & 0o7777) as u16);
        owner.uid = change.uid.unwrap_or(owner.uid);
        owner.gid = change.gid.unwrap_or(owner.gid);
        inode.accessed = change.accessed.unwrap_or(inode.accessed);
        let written = if change.size.is_some() { now } else { inode.modified };
        inode.modified = change.modified.unwrap_or(written);
        inode.changed = now;
        self.attributes(number)
    }

    pub(super) fn symlink_target(&self, number: u64) -> Result<&OsStr> {
        match &self.inode(number)?.content {
            Content::Symlink(target) => Ok(target),
            _ => Err(Errno::EINVAL),
        }
    }

    /// A directory's entries with a place above `after`, in the order of their places.
    ///
    /// The place comes from the inode's number, which no other entry ever gets: so a reader neither misses nor repeats
    /// an entry when others are removed meanwhile.
    pub(super) fn list(&self, number: u64, after: u64) -> Result<Vec<(u64, u64, FileType, &OsStr)>> {
        let Content::Directory { parent, entries } = &self.inode(number)?.content else {
            return Err(Errno::ENOTDIR);
        };
        let dots = [(1, number, OsStr::new(".")), (2, *parent, OsStr::new(".."))];
        let children = entries.iter().map(|(name, child)| (child + 1, *child, name.as_os_str()));
        let mut rest: Vec<_> = dots
            .into_iter()
            .chain(children)
            .filter(|(place, ..)| *place > after)
            .map(|(place, inode, name)| (place, inode, self.kind(inode), name))
            .collect();
        rest.sort_unstable_by_key(|(place, ..)| *place);
        Ok(rest)
    }

    pub(super) fn usage(&self) -> Usage {
        Usage { limit: self.limit, used: self.used, inodes: self.inodes.len() as u64 }
    }

    fn resize(&mut self, number: u64, size: u64) -> Result<()> {
        let old = self.inode(number)?.file()?.len() as u64;
        let used = (self.used - old).checked_add(size).filter(|used| *used <= self.limit).ok_or(Errno::ENOSPC)?;
        let length = usize::try_from(size).map_err(|_| Errno::EFBIG)?;
        let data = self.inode_mut(number)?.file_mut()?;
        data.try_reserve(length.saturating_sub(data.len())).map_err(|_| Errno::ENOSPC)?;
        data.resize(length, 0);
        self.used = used;
        Ok(())
    }

    fn drop_if_unused(&mut self, number: u64) {
        if self.inodes.get(&number).is_some_and(|inode| !inode.linked && inode.known == 0)
            && let Some(Inode { content: Content::File(data), .. }) = self.inodes.remove(&number)
        {
            self.used -= data.len() as u64;
        }
    }

    fn touch(&mut self, directory: u64) -> Result<()> {
        let inode = self.inode_mut(directory)?;
        inode.modified = SystemTime::now();
        inode.changed = inode.modified;
        Ok(())
    }

    fn child(&self, parent: u64, name: &OsStr) -> Result<u64> {
        match &self.inode(parent)?.content {
            Content::Directory { entries, .. } => entries.get(name).copied().ok_or(Errno::ENOENT),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn entries_mut(&mut self, number: u64) -> Result<&mut BTreeMap<OsString, u64>> {
        match &mut self.inode_mut(number)?.content {
            Content::Directory { entries, .. } => Ok(entries),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn kind(&self, number: u64) -> FileType {
        match self.inodes.get(&number).map(|inode| &inode.content) {
            Some(Content::Directory { .. }) => FileType::Directory,
            Some(Content::Symlink(_)) => FileType::Symlink,
            _ => FileType::RegularFile,
        }
    }

    fn is_directory(&self, number: u64) -> bool {
        self.kind(number) == FileType::Directory
    }

    fn inode(&self, number: u64) -> Result<&Inode> {
        self.inodes.get(&number).ok_or(Errno::ENOENT)
    }

    fn inode_mut(&mut self, number: u64) -> Result<&mut Inode> {
        self.inodes.get_mut(&number).ok_or(Errno::ENOENT)
    }
}

impl Inode {
    fn new(content: Content, owner: Owner) -> Self {
        let now = SystemTime::now();
        Self { content, owner, accessed: now, modified: now, changed: now, linked: true, known: 0 }
    }

    fn file(&self) -> Result<&Vec<u8>> {
        match &self.content {
            Content::File(data) => Ok(data),
            Content::Directory { .. } => Err(Errno::EISDIR),
            Content::Symlink(_) => Err(Errno::EINVAL),
        }
    }

    fn file_mut(&mut self) -> Result<&mut Vec<u8>> {
        match &mut self.content {
            Content::File(data) => Ok(data),
            Content::Directory { .. } => Err(Errno::EISDIR),
            Content::Symlink(_) => Err(Errno::EINVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner { mode: 0o755, uid: 0, gid: 0 };

    fn name(name: &str) -> &OsStr {
        OsStr::new(name)
    }

    #[test]
    fn a_removed_file_lives_until_it_is_forgotten() {
        let mut inodes = Inodes::new(1000, OWNER);
        let file = inodes.add(ROOT, name("a"), OWNER, &New::File).unwrap().ino.0;
        inodes.write(file, 10, b"hello").unwrap();
        inodes.remove(ROOT, name("a"), false).unwrap();
        assert_eq!(inodes.read(file, 8, 100).unwrap(), b"\0\0hello");
        assert_eq!(inodes.attributes(file).unwrap().nlink, 0);
        inodes.forget(file, 1);
        assert!(inodes.read(file, 0, 1).is_err());
        assert_eq!(inodes.usage(), Usage { limit: 1000, used: 0, inodes: 1 });
    }

    #[test]
    fn space_is_limited() {
        let mut inodes = Inodes::new(10, OWNER);
        let file = inodes.add(ROOT, name("a"), OWNER, &New::File).unwrap().ino.0;
        assert_eq!(inodes.write(file, 9, b"ab"), Err(Errno::ENOSPC));
        assert_eq!(inodes.write(file, u64::MAX, b"ab"), Err(Errno::EFBIG));
        inodes.write(file, 8, b"ab").unwrap();
        inodes.change(file, &Change { size: Some(1), ..Change::default() }).unwrap();
        assert_eq!(inodes.usage().used, 1);
    }

    #[test]
    fn rename_replaces_and_moves_directories() {
        let mut inodes = Inodes::new(10, OWNER);
        let a = inodes.add(ROOT, name("a"), OWNER, &New::Directory).unwrap().ino.0;
        let b = inodes.add(ROOT, name("b"), OWNER, &New::Directory).unwrap().ino.0;
        inodes.add(b, name("file"), OWNER, &New::File).unwrap();
        assert_eq!(inodes.rename((ROOT, name("a")), (ROOT, name("b")), true), Err(Errno::ENOTEMPTY));
        assert_eq!(inodes.rename((ROOT, name("a")), (ROOT, name("b")), false), Err(Errno::EEXIST));
        inodes.rename((ROOT, name("b")), (a, name("c")), true).unwrap();
        assert_eq!(inodes.list(b, 1).unwrap()[0].1, a);
        assert_eq!(inodes.attributes(a).unwrap().nlink, 3);
    }

    #[test]
    fn a_group_is_handed_on() {
        let mut inodes = Inodes::new(10, Owner { mode: 0o2775, uid: 0, gid: 500 });
        let directory = inodes.add(ROOT, name("a"), OWNER, &New::Directory).unwrap();
        let file = inodes.add(directory.ino.0, name("b"), OWNER, &New::File).unwrap();
        assert_eq!((directory.perm, directory.gid), (0o2755, 500));
        assert_eq!((file.perm, file.gid), (0o755, 500));
    }
}
