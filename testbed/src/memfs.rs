//! `mount.memfs SOURCE TARGET [-o OPTIONS]`: a small, real FUSE filesystem in memory, called as a helper is.
//!
//! Runs as a helper does: uid 0 without any capability, in a private mount namespace, under a filter that hands its
//! mount(2) to the broker. It stands for any helper: it opens /dev/fuse, mounts in the foreground, and goes to the
//! background when it answers; it exits when its last mount is gone.

mod filesystem;
mod inodes;

use api::mount_words::{self, Kind};
use filesystem::Memfs;
use fuser::{Config, INodeNo, MountOption, SessionACL};
use inodes::{Inodes, New};
use linux::sys::fork::{Role, fork_into_background};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, getgid, getuid};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: mount.memfs SOURCE TARGET [-fnsv] [-t TYPE] [-o OPTION[,OPTION…]]\n\
    options: size=BYTES[k|m|g], mode=OCTAL, uid=NUMBER, gid=NUMBER, allow_other, and mount(8)'s own";

/// What one has without options: bytes, and the root directory's owner.
const SIZE: u64 = 256 << 20;
const ROOT: Owner = Owner { mode: 0o755, uid: 0, gid: 0 };

/// The background process sends this when it answers requests; any other message is its error.
const READY: &str = "ready";

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}\n{USAGE}")]
    Usage(String),
    #[error("cannot open /dev/fuse: {0}")]
    Device(io::Error),
    #[error("cannot mount {source_name} on {target}: {error}", source_name = .request.source.display(),
            target = .request.target.display())]
    Mount { request: Box<Invocation>, error: io::Error },
    #[error("cannot go to the background: {0}")]
    Fork(io::Error),
    #[error("the filesystem did not start: {0}")]
    Start(String),
    #[error("the filesystem did not start: {reason}, and its mount is left behind: {error}")]
    StartAndUnmount { reason: String, error: io::Error },
}

/// Runs the program; `args` follow its name. The exit code is mount(8)'s: 1 for usage, 32 for a failed mount.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    match Invocation::parse(args).map_err(Error::Usage).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mount.memfs: {error}");
            ExitCode::from(if matches!(error, Error::Usage(_)) { 1 } else { 32 })
        }
    }
}

fn run(request: Invocation) -> Result<(), Error> {
    if request.fake {
        return Ok(());
    }
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(Error::Device)?;
    // A plain mount(2), neither fuser's own nor fusermount3's: its failure then has one reason, the kernel's.
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions{}",
        device.as_raw_fd(),
        getuid(),
        getgid(),
        if request.allow_other { ",allow_other" } else { "" },
    );
    let mounted =
        mount(Some(&*request.source), &request.target, Some("fuse.memfs"), request.flags, Some(data.as_str()));
    if let Err(errno) = mounted {
        return Err(Error::Mount { request: Box::new(request), error: errno.into() });
    }
    let went = match fork_into_background() {
        Ok(Role::Background(writer)) => serve(&request, device.into(), writer),
        Ok(Role::Foreground(reader)) => wait_until_ready(reader),
        Err(error) => Err(Error::Fork(error)),
    };
    went.map_err(|error| match umount2(&request.target, MntFlags::MNT_DETACH) {
        Ok(()) => error,
        Err(errno) => Error::StartAndUnmount { reason: error.to_string(), error: errno.into() },
    })
}

fn wait_until_ready(mut background: PipeReader) -> Result<(), Error> {
    let mut said = String::new();
    match background.read_to_string(&mut said) {
        Ok(_) if said == READY => Ok(()),
        Ok(0) => Err(Error::Start("the background process exited without a message".into())),
        Ok(_) => Err(Error::Start(said)),
        Err(error) => Err(Error::Start(error.to_string())),
    }
}

/// The background process. The foreground reports and cleans up a failure before it is ready; after that no process
/// reads its messages.
fn serve(request: &Invocation, device: OwnedFd, mut foreground: PipeWriter) -> Result<(), Error> {
    let session = session(device, Inodes::new(request.size, request.root))
        .and_then(|session| let_go_of_the_caller().map(|()| session));
    match session {
        Ok(session) => {
            let _ = foreground.write_all(READY.as_bytes());
            drop(foreground);
            let _ = session.run();
        }
        Err(error) => {
            let _ = write!(foreground, "{error}");
        }
    }
    Ok(())
}

/// A filesystem whose INIT has been answered.
pub(crate) struct Session(fuser::Session<Memfs>);

impl Session {
    /// Answers requests until the filesystem is no more.
    pub(crate) fn run(self) -> io::Result<()> {
        self.0.run()
    }
}

/// Answers the INIT of an empty filesystem that is, or is being mounted.
pub(crate) fn start(device: OwnedFd) -> io::Result<Session> {
    session(device, Inodes::new(SIZE, ROOT))
}

/// The same; everybody may write to it, and to the directory that it has from its beginning, if it has one.
pub(crate) fn start_for_all(device: OwnedFd, directory: Option<&str>) -> io::Result<Session> {
    let all = Owner { mode: 0o777, ..ROOT };
    let mut inodes = Inodes::new(SIZE, all);
    if let Some(name) = directory {
        inodes.add(INodeNo::ROOT.0, name.as_ref(), all, &New::Directory).map_err(|_| io::ErrorKind::InvalidInput)?;
    }
    session(device, inodes)
}

/// The same, mounted by the library.
pub(crate) fn mounted_by_fuser(place: &Path, auto_unmount: bool) -> io::Result<Session> {
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.mount_options = vec![MountOption::DefaultPermissions];
    if auto_unmount {
        config.mount_options.push(MountOption::AutoUnmount);
    }
    let inodes = Inodes::new(SIZE, Owner { mode: 0o777, ..ROOT });
    fuser::Session::new(Memfs::new(inodes), place, &config).map(Session)
}

fn session(device: OwnedFd, inodes: Inodes) -> io::Result<Session> {
    // fuser would answer only its own user; the kernel decides by `allow_other` which users may enter.
    fuser::Session::from_fd(Memfs::new(inodes), device, SessionACL::All, Config::default()).map(Session)
}

/// The process that reads our caller's output reads until it is closed everywhere; a working directory keeps a mount
/// busy.
pub(crate) fn let_go_of_the_caller() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(chdir("/")?)
}

/// Owner and mode of the filesystem's root directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    mode: u16,
    uid: u32,
    gid: u32,
}

/// A command line, parsed.
#[derive(Debug, PartialEq, Eq)]
struct Invocation {
    source: OsString,
    target: PathBuf,
    flags: MsFlags,
    allow_other: bool,
    fake: bool,
    size: u64,
    root: Owner,
}

impl Invocation {
    fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut request = Self {
            source: OsString::new(),
            target: PathBuf::new(),
            flags: MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            allow_other: false,
            fake: false,
            size: SIZE,
            root: ROOT,
        };
        let mut places = Vec::new();
        while let Some(arg) = args.next() {
            match arg.to_str() {
                Some("-o") => request.options(&value_of("-o", &mut args)?)?,
                // The type is in our name already: mount(8) only repeats it.
                Some("-t") => drop(value_of("-t", &mut args)?),
                Some(flags) if flags.len() > 1 && flags.starts_with('-') => {
                    if let Some(unknown) = flags.chars().skip(1).find(|flag| !"fnsv".contains(*flag)) {
                        return Err(format!("unknown flag -{unknown}"));
                    }
                    request.fake |= flags.contains('f');
                }
                _ => places.push(arg),
            }
        }
        let [source, target]: [OsString; 2] =
            places.try_into().map_err(|_| "a source and a target are needed".to_owned())?;
        (request.source, request.target) = (source, target.into());
        Ok(request)
    }

    fn options(&mut self, list: &str) -> Result<(), String> {
        list.split(',').filter(|option| !option.is_empty()).try_for_each(|option| self.option(option))
    }

    fn option(&mut self, option: &str) -> Result<(), String> {
        let bad_value = |_| format!("option {option}: not a number in range");
        match option.split_once('=') {
            Some(("size", value)) => self.size = parse_size(value).ok_or_else(|| bad_value(()))?,
            Some(("mode", value)) => {
                self.root.mode = u16::from_str_radix(value, 8).map_err(|_| bad_value(()))? & 0o7777;
            }
            Some(("uid", value)) => self.root.uid = value.parse().map_err(|_| bad_value(()))?,
            Some(("gid", value)) => self.root.gid = value.parse().map_err(|_| bad_value(()))?,
            _ if option == "allow_other" => self.allow_other = true,
            // These are always passed to the kernel.
            _ if option == "default_permissions" => (),
            _ => match flag(option) {
                Some((flag, on)) => self.flags.set(flag, on),
                None if is_for_mount8_alone(option) => (),
                None => return Err(format!("unknown option {option}")),
            },
        }
        Ok(())
    }
}

fn value_of(flag: &str, args: &mut impl Iterator<Item = OsString>) -> Result<String, String> {
    let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
    value.into_string().map_err(|value| format!("{flag} {}: not valid UTF-8", value.display()))
}

fn parse_size(value: &str) -> Option<u64> {
    let (number, shift) = match value.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G']) {
        None => (value, 0),
        Some(number) if value.ends_with(['k', 'K']) => (number, 10),
        Some(number) if value.ends_with(['m', 'M']) => (number, 20),
        Some(number) => (number, 30),
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// An option that is a flag of mount(2), and whether it sets or clears it.
fn flag(option: &str) -> Option<(MsFlags, bool)> {
    let (known, set) = mount_words::find(option).filter(|(known, _)| known.flag != 0)?;
    Some((MsFlags::from_bits_retain(known.flag.into()), set))
}

/// Options about when and by which user something is mounted: they are for mount(8) and the readers of fstab.
fn is_for_mount8_alone(option: &str) -> bool {
    let known = mount_words::find(option).is_some_and(|(known, _)| matches!(known.kind, Kind::User | Kind::Mount8));
    known || option.starts_with("x-") || option.starts_with("comment=")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Invocation, String> {
        Invocation::parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn options_are_used_passed_on_or_refused() {
        let request =
            parse("mem /mnt/a -n -o rw,noexec,suid,size=4m,mode=1777,uid=7,_netdev,x-a.b=c -o gid=8").unwrap();
        assert_eq!(request.flags, MsFlags::MS_NODEV | MsFlags::MS_NOEXEC);
        assert_eq!(request.size, 4 << 20);
        assert_eq!(request.root, Owner { mode: 0o1777, uid: 7, gid: 8 });
        assert!(parse("mem /mnt/a -o speed=11").unwrap_err().contains("speed=11"));
        assert!(parse("mem /mnt/a -o size=99999999999g").unwrap_err().contains("size="));
        assert!(parse("mem").is_err());
        assert!(parse("mem /mnt/a /mnt/b").is_err());
    }
}
