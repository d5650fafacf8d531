//! Whether a file of a fresh filesystem is certainly the one that was open in the old one.
//!
//! Pure. The same path is not enough, as others may have removed the file and made another; nor are the same attributes, as the dead
//! helper may have kept what was written. What is not certain is not served.

use rustix::fs::{FileType, Statx};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A file whose times have whole seconds only may have been written twice in one.
const TOO_YOUNG: Duration = Duration::from_secs(10);

/// A file that was open in the old filesystem, as the kernel knew it last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Old<'a> {
    /// Its attributes.
    pub(super) known: &'a Statx,
    /// Its number in the helper's protocol.
    pub(super) node: u64,
    /// Somebody has it open for writing.
    pub(super) written: bool,
    /// Up to where it is written by requests that the dead helper may have carried out.
    pub(super) in_flight: u64,
}

/// Whether `fresh`, at the same path, is it. `through`: the type keeps nothing of what it was given to write, and its inodes have numbers
/// that are theirs.
pub(super) fn is_same(old: Old<'_>, fresh: &Statx, through: bool, now: SystemTime) -> bool {
    let known = old.known;
    let is_file = |stat: &Statx| FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile;
    let whose = |stat: &Statx| (stat.stx_mode, stat.stx_uid, stat.stx_gid);
    if !is_file(fresh)
        || !is_file(known)
        || whose(known) != whose(fresh)
        || known.stx_nlink == 0
        || fresh.stx_nlink == 0
    {
        return false;
    }
    // libfuse numbers inodes as it numbers nodes unless the filesystem has numbers of its own: the next helper begins anew.
    let has_own_number = through || known.stx_ino != old.node;
    if has_own_number && known.stx_ino != fresh.stx_ino {
        return false;
    }
    let modified = |stat: &Statx| (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec);
    if old.written {
        // The kernel knows the size that it has written to, and not when the filesystem says that it was.
        let most = known.stx_size.max(old.in_flight);
        let size = (known.stx_size..=most).contains(&fresh.stx_size);
        return through && size && modified(fresh) >= modified(known);
    }
    known.stx_size == fresh.stx_size
        && modified(known) == modified(fresh)
        && (has_own_number || fresh.stx_mtime.tv_nsec != 0 || is_old(fresh, now))
}

fn is_old(stat: &Statx, now: SystemTime) -> bool {
    let modified = u64::try_from(stat.stx_mtime.tv_sec).ok().map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
    modified.and_then(|modified| now.duration_since(modified).ok()).is_some_and(|age| age > TOO_YOUNG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use linux::statx::known;
    use std::fs::File;
    use std::os::fd::AsFd;

    const NODE: u64 = 7;

    /// Attributes of a file of its own number 1000, written at second 100.
    fn stat(change: impl FnOnce(&mut Statx)) -> Statx {
        let mut stat = known(File::open("/proc/self/stat").unwrap().as_fd()).unwrap();
        (stat.stx_mode, stat.stx_uid, stat.stx_gid, stat.stx_nlink) = (0o100_644, 1, 2, 1);
        (stat.stx_ino, stat.stx_size) = (1000, 50);
        (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec) = (100, 5);
        change(&mut stat);
        stat
    }

    fn judged(written: bool, through: bool, old: impl FnOnce(&mut Statx), fresh: impl FnOnce(&mut Statx)) -> bool {
        let (old, fresh) = (stat(old), stat(fresh));
        let old = Old { known: &old, node: NODE, written, in_flight: 60 };
        is_same(old, &fresh, through, UNIX_EPOCH + Duration::from_secs(105))
    }

    #[test]
    fn what_is_read_must_be_as_it_was() {
        let same = |old: fn(&mut Statx), fresh: fn(&mut Statx)| judged(false, false, old, fresh);
        assert!(same(|_| (), |_| ()));
        let otherwise: [fn(&mut Statx); 8] = [
            |stat| stat.stx_ino += 1,
            |stat| stat.stx_size += 1,
            |stat| stat.stx_mtime.tv_nsec += 1,
            |stat| stat.stx_mode = 0o100_600,
            |stat| stat.stx_uid += 1,
            |stat| stat.stx_gid += 1,
            |stat| stat.stx_nlink = 0,
            |stat| stat.stx_mode = 0o040_644,
        ];
        for change in otherwise {
            assert!(!same(|_| (), change) && !same(change, |_| ()));
        }
        // Numbers that the helper gives, and the next one otherwise.
        assert!(same(|old| old.stx_ino = NODE, |fresh| fresh.stx_ino = 12));
        // Then whole seconds do not tell, as long as the same one may have had another writer.
        let whole = |old: &mut Statx| (old.stx_ino, old.stx_mtime.tv_nsec) = (NODE, 0);
        assert!(!same(whole, |fresh| fresh.stx_mtime.tv_nsec = 0));
        let long_ago = |stat: &mut Statx| (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec) = (1, 0);
        assert!(judged(
            false,
            false,
            |old| {
                old.stx_ino = NODE;
                long_ago(old);
            },
            long_ago
        ));
    }

    #[test]
    fn what_is_written_must_be_written_through_and_have_grown_by_what_was_under_way_at_most() {
        let later = |stat: &mut Statx| stat.stx_mtime.tv_sec += 1;
        assert!(judged(true, true, |_| (), later));
        assert!(!judged(true, false, |_| (), later));
        assert!(!judged(true, true, |old| old.stx_ino = NODE, later), "another number");
        assert!(!judged(true, true, later, |_| ()), "older than it was");
        for (size, expected) in [(49, false), (50, true), (55, true), (60, true), (61, false)] {
            assert_eq!(judged(true, true, |_| (), |fresh| fresh.stx_size = size), expected, "{size}");
        }
    }
}
