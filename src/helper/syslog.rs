//! What a helper says by syslog(3): a socket at its `/dev/log`, for programs that write nothing to their output once they have
//! gone to the background, as s3fs does.
//!
//! Runs in the mounter. The socket is in a directory of the helper's mount namespace that the helper cannot change. Reading
//! never waits, a message is cut at [`MESSAGE`] bytes, and the kernel holds a few: a helper that says more waits for the mounter, and
//! loses its messages while there is none.

use super::namespace::{place_in, syslog_socket};
use linux::processes::{Process, name_of};
use linux::statx;
use linux::sys::ask::{self, Patience};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::umask;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread;

/// How much of a message is read.
const MESSAGE: usize = 2048;

/// The mounter's end.
#[derive(Debug)]
pub struct Syslog(UnixDatagram);

impl Syslog {
    /// In the calling thread's mount namespace, which is the helper's.
    pub fn listen(state: &Path) -> io::Result<Self> {
        let socket = syslog_socket(state);
        // A thread with a mount namespace of its own has an umask of its own, too (unshare(2)).
        let before = umask(Mode::empty());
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let above = openat(CWD, socket.parent().unwrap_or(&socket), flags, Mode::empty());
        let bound = above.map_err(Into::into).and_then(|above| listen_in(above.as_fd(), &socket));
        umask(before);
        bound
    }

    /// Again, for a helper that an earlier mounter started and that `process` is one of.
    pub fn listen_again(process: &Process, state: &Path) -> io::Result<Self> {
        let socket = syslog_socket(state);
        let above = socket.parent().unwrap_or(&socket);
        let path = process.file("root").join(above.strip_prefix("/").unwrap_or(above));
        // The helper may have led it elsewhere, where nobody answers: it is known by the mount table.
        let place = place_in(&process.mounts()?, state).map(|place| place.device).ok_or(Errno::NOENT)?;
        let directory = ask::open(CWD, &path, OFlags::NOFOLLOW, None, Patience::USUAL)?;
        if statx::mount_root(directory.as_fd())? != Some(place) {
            return Err(Errno::XDEV.into());
        }
        let bind = || {
            unshare(CloneFlags::CLONE_FS)?;
            umask(Mode::empty());
            listen_in(directory.as_fd(), &socket)
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("syslog".into()).spawn_scoped(scope, bind)?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The text of the next message, without its header; `None` if there is none now.
    pub fn next(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; MESSAGE];
        let length = self.0.recv(&mut buffer).ok()?;
        Some(text(&buffer[..length]).to_vec())
    }
}

/// Binds a socket that every user may write to, if the umask is empty. It takes the place of an earlier one.
fn listen_in(above: BorrowedFd<'_>, socket: &Path) -> io::Result<Syslog> {
    // By its name in the directory: a whole path may be too long for an address (unix(7)).
    let name = Path::new(&name_of(above)).join(socket.file_name().unwrap_or_default());
    match fs::remove_file(&name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let bound = UnixDatagram::bind(&name)?;
    bound.set_nonblocking(true)?;
    Ok(Syslog(bound))
}

impl AsFd for Syslog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What follows the priority and the time, `<27>Nov 28 23:00:00 `: the program's name, its pid, and what it says.
fn text(message: &[u8]) -> &[u8] {
    let after_priority = || {
        let inside = message.strip_prefix(b"<")?;
        let digits = inside.iter().take_while(|byte| byte.is_ascii_digit()).count();
        inside.get(digits..)?.strip_prefix(b">")
    };
    let said = after_priority().unwrap_or(message);
    let dated =
        |said: &[u8]| said.len() >= 16 && [said[3], said[6], said[15]] == *b"   " && [said[9], said[12]] == *b"::";
    let said = if dated(said) { &said[16..] } else { said };
    said.trim_ascii_end().strip_suffix(b"\0").unwrap_or(said).trim_ascii_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_a_program_says() {
        for (message, said) in [
            (&b"<27>Nov 28 23:01:02 s3fs[7]: no such bucket\n"[..], &b"s3fs[7]: no such bucket"[..]),
            (b"<30>Nov  8 03:01:02 s3fs: hello\0", b"s3fs: hello"),
            (
                b"<30>tag: without a time, but long enough to have one",
                b"tag: without a time, but long enough to have one",
            ),
            (b"nothing of the kind", b"nothing of the kind"),
            (b"<>x", b"x"),
            (b"<12", b"<12"),
            (b"", b""),
        ] {
            assert_eq!(text(message), said, "{}", String::from_utf8_lossy(message));
        }
    }
}
