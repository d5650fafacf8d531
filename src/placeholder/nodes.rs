//! The numbers that the kernel knows a placeholder's files by, and what each is called in the volume.
//!
//! Pure. Only who looks on the node gives a file a number: kubelet, for the directories of `subPath`.

use crate::node::fuse_requests::ROOT;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How many files have a number at most.
const MOST: usize = 4096;
/// How long a path may be.
const LONGEST: usize = 4095;

/// A file, by its path below the volume's root, and how often the kernel has been told its number.
#[derive(Debug)]
struct Node {
    path: PathBuf,
    told: u64,
}

/// All that have a number; the root has one without being here.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    by_number: HashMap<u64, Node>,
    numbers: HashMap<PathBuf, u64>,
    last: u64,
}

impl Nodes {
    /// Which file has this number.
    pub(super) fn path(&self, number: u64) -> Option<&Path> {
        if number == ROOT { Some(Path::new("")) } else { self.by_number.get(&number).map(|node| &*node.path) }
    }

    /// The path of `name` in the directory with this number, if `name` is one name.
    pub(super) fn path_in(&self, directory: u64, name: &[u8]) -> Option<PathBuf> {
        let is_name = !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0);
        let path = self.path(directory).filter(|_| is_name)?.join(OsStr::from_bytes(name));
        (path.as_os_str().len() <= LONGEST).then_some(path)
    }

    /// The number of the file at `path`, for the kernel. `None`: there are too many.
    pub(super) fn tell(&mut self, path: &Path) -> Option<u64> {
        let number = match self.numbers.get(path) {
            Some(number) => *number,
            None if self.by_number.len() >= MOST => return None,
            None => {
                self.last = self.last.max(ROOT) + 1;
                self.numbers.insert(path.to_owned(), self.last);
                self.by_number.insert(self.last, Node { path: path.to_owned(), told: 0 });
                self.last
            }
        };
        self.by_number.entry(number).and_modify(|node| node.told += 1);
        Some(number)
    }

    /// The kernel forgets a number that it was told so often.
    pub(super) fn forget(&mut self, number: u64, told: u64) {
        let Some(node) = self.by_number.get_mut(&number) else { return };
        node.told = node.told.saturating_sub(told);
        if node.told == 0
            && let Some(node) = self.by_number.remove(&number)
        {
            self.numbers.remove(&node.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_one_files_until_it_is_forgotten_and_no_others_ever() {
        let mut nodes = Nodes::default();
        let sub = nodes.path_in(ROOT, b"sub").unwrap();
        let number = nodes.tell(&sub).unwrap();
        assert_eq!(nodes.tell(&sub), Some(number));
        assert_eq!(nodes.path_in(number, b"x").unwrap(), Path::new("sub/x"));
        nodes.forget(number, 1);
        assert_eq!(nodes.path(number), Some(&*sub));
        nodes.forget(number, 1);
        assert_eq!(nodes.path(number), None);
        assert!(nodes.tell(&sub).unwrap() > number);
        assert_eq!(nodes.path(ROOT), Some(Path::new("")));
        nodes.forget(ROOT, 5);
        assert_eq!(nodes.path(ROOT), Some(Path::new("")));
    }

    #[test]
    fn names_lead_nowhere_and_there_is_an_end_of_them() {
        let mut nodes = Nodes::default();
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'a'; LONGEST + 1]] {
            assert_eq!(nodes.path_in(ROOT, name), None);
        }
        assert_eq!(nodes.path_in(7, b"a"), None);
        for number in 0..MOST {
            assert!(nodes.tell(Path::new(&number.to_string())).is_some());
        }
        assert_eq!(nodes.tell(Path::new("one more")), None);
        assert!(nodes.tell(Path::new("7")).is_some());
    }
}
