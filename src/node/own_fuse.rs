//! For tests: a FUSE filesystem that is served by a thread, for as long as the test wants it to be.
//!
//! Every name in it is an empty directory, for no time at all: the kernel asks anew at each walk. Layout of the messages:
//! include/uapi/linux/fuse.h.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{MountFlags, mount};
use std::fs::{self, File};
use std::io::{PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::thread::{self, JoinHandle};

/// Dropped, its server is gone and the mount is dead.
pub(super) struct OwnFuse {
    life: Option<PipeWriter>,
    server: Option<JoinHandle<()>>,
}

impl OwnFuse {
    /// Mounts it at `path`, which is made, in the calling thread's mount namespace.
    pub(super) fn mount(path: &str) -> Self {
        fs::create_dir_all(path).unwrap();
        let device = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/fuse").unwrap();
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let data = std::ffi::CString::new(data).unwrap();
        mount(c"own", path, c"fuse.own", MountFlags::empty(), data.as_c_str()).unwrap();
        let (end, life) = std::io::pipe().unwrap();
        let serve = move || loop {
            let mut fds = [PollFd::new(&device, PollFlags::IN), PollFd::new(&end, PollFlags::IN)];
            poll(&mut fds, None).unwrap();
            if !fds[1].revents().is_empty() {
                return;
            }
            let mut request = vec![0; 1 << 20];
            match (&device).read(&mut request) {
                Ok(length) => {
                    // A caller may have been killed meanwhile, and does not wait for it.
                    let _ = reply(&request[..length]).map(|reply| (&device).write_all(&reply));
                }
                // The last mount is gone.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return,
                Err(_) => {}
            }
        };
        Self { life: Some(life), server: Some(thread::spawn(serve)) }
    }
}

impl Drop for OwnFuse {
    fn drop(&mut self) {
        self.life.take();
        self.server.take().map(JoinHandle::join);
    }
}

fn reply(request: &[u8]) -> Option<Vec<u8>> {
    let (operation, unique, node) = (&request[4..8], &request[8..16], &request[16..24]);
    let (error, body) = match u32::from_le_bytes(operation.try_into().unwrap()) {
        // FORGET, INTERRUPT and BATCH_FORGET are not answered.
        2 | 36 | 42 => return None,
        // LOOKUP: the number of a directory is the sum of the bytes of its name, behind its parent's.
        1 => {
            let parent = u64::from_le_bytes(node.try_into().unwrap());
            let name: u64 = request[40..].iter().map(|byte| u64::from(*byte)).sum();
            let number = parent * 4096 + name;
            (0, [number.to_le_bytes().as_slice(), &[0; 32], &attributes(number)].concat())
        }
        // GETATTR.
        3 => (0, [&[0; 16], attributes(u64::from_le_bytes(node.try_into().unwrap())).as_slice()].concat()),
        // INIT: version 7.31, and nothing that it does not have to have.
        26 => {
            let mut body = vec![0; 64];
            body[0] = 7;
            body[4] = 31;
            body[20..24].copy_from_slice(&4096u32.to_le_bytes());
            (0, body)
        }
        // STATFS, ACCESS and all others.
        _ => (-libc::ENOSYS, Vec::new()),
    };
    let length = u32::try_from(16 + body.len()).unwrap();
    Some([length.to_le_bytes().as_slice(), &error.to_le_bytes(), unique, &body].concat())
}

/// Those of a directory.
fn attributes(number: u64) -> [u8; 88] {
    let mut attributes = [0; 88];
    attributes[..8].copy_from_slice(&number.to_le_bytes());
    attributes[60..64].copy_from_slice(&(libc::S_IFDIR | 0o755).to_le_bytes());
    attributes[64] = 2;
    attributes
}
