//! The account that a helper runs under: its uid and gid, and what programs want of one: a name, and a home.
//!
//! Runs in the mounter, on the volume's own thread, in the helper's mount namespace: what is shown there is the helper's alone.

use super::uids::{NoUidLeft, OwnUid, Uids};
use super::world::SOURCE;
use crate::config::user::User;
use rustix::fs::{Gid, Mode, Uid, chown, mkdir};
use rustix::mount::{MountFlags, mount, mount_bind};
use std::env;
use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where programs look for users, and for groups.
const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";
/// What an account is called that has no name in the container.
const NAME: &str = "hostmount-helper";
/// How much it may put into its home.
const HOME_OPTIONS: &str = "size=64m,mode=0700";

/// A helper's uid and gid.
#[derive(Debug)]
pub struct Account<'a> {
    /// The uid.
    pub uid: Uid,
    /// The gid.
    pub gid: Gid,
    /// Keeps the number until a process has it.
    own: Option<OwnUid<'a>>,
}

/// What an account looks like to programs.
#[derive(Debug)]
pub struct Shown {
    /// `USER` and `LOGNAME`.
    pub name: String,
    /// `HOME`.
    pub home: PathBuf,
    /// Whether nothing of the container is in there.
    pub home_is_empty: bool,
}

impl<'a> Account<'a> {
    /// The account for a user.
    pub fn of(user: User, uids: &'a Uids) -> Result<Self, NoUidLeft> {
        let own = if user == User::Own { Some(uids.take()?) } else { None };
        let number = match (user, &own) {
            (User::Number(number), _) => number,
            (_, Some(own)) => own.number(),
            (_, None) => return Ok(Account::root()),
        };
        // Of a number that the container knows the group is known as well.
        let known = if own.is_none() { read(USERS).ok().flatten() } else { None };
        let gid = known.and_then(|users| find(&users, number)?.split(':').nth(3)?.parse().ok()).unwrap_or(number);
        Ok(Self { uid: Uid::from_raw(number), gid: Gid::from_raw(gid), own })
    }

    /// uid 0.
    pub fn root() -> Account<'static> {
        Account { uid: Uid::ROOT, gid: Gid::ROOT, own: None }
    }

    /// Whether it is uid 0.
    pub fn is_root(&self) -> bool {
        self.uid.is_root()
    }

    /// Whether no other process runs under it.
    pub fn is_its_own(&self) -> bool {
        self.own.is_some()
    }

    /// Makes a path the account's.
    pub fn own(&self, path: &Path) -> io::Result<()> {
        Ok(chown(path, Some(self.uid), Some(self.gid))?)
    }

    /// Shows it in the calling thread's mount namespace: lines in the lists of users and groups, where the container has
    /// none, which are written in `state`, a tmpfs there; and a home, which is an empty one in the place of the mounter's. Nothing
    /// is shown of root.
    pub fn show(&self, state: &Path) -> io::Result<Option<Shown>> {
        if self.is_root() {
            return Ok(None);
        }
        let (uid, gid) = (self.uid.as_raw(), self.gid.as_raw());
        let users = read(USERS)?;
        let shown = match users.as_deref().and_then(|users| find(users, uid)) {
            Some(line) => {
                let field = |number: usize| line.split(':').nth(number).unwrap_or_default().to_owned();
                Shown { name: field(0), home: field(5).into(), home_is_empty: false }
            }
            None => {
                let home = self.make_home(state)?;
                let line = format!("{NAME}:x:{uid}:{gid}::{}:/bin/sh\n", home.display());
                add(USERS, users.as_deref(), &state.join("passwd"), &line)?;
                Shown { name: NAME.into(), home, home_is_empty: true }
            }
        };
        let groups = read(GROUPS)?;
        if groups.as_deref().and_then(|groups| find(groups, gid)).is_none() {
            add(GROUPS, groups.as_deref(), &state.join("group"), &format!("{NAME}:x:{gid}:\n"))?;
        }
        Ok(Some(shown))
    }

    /// In the place of the mounter's, so that paths in there are the same for every helper. An image without one gets one.
    fn make_home(&self, state: &Path) -> io::Result<PathBuf> {
        let mounters = mounters_home();
        let usable = mounters.is_absolute() && mounters != Path::new("/") && mounters.is_dir();
        let home = if usable { mounters } else { state.join("home") };
        if !usable {
            mkdir(&home, Mode::RWXU)?;
        }
        let options = format!("{HOME_OPTIONS},uid={},gid={}", self.uid.as_raw(), self.gid.as_raw());
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount(SOURCE, &home, c"tmpfs", flags, CString::new(options)?.as_c_str())?;
        Ok(home)
    }
}

/// The mounter's own home.
pub fn mounters_home() -> PathBuf {
    env::var_os("HOME").map_or_else(|| "/root".into(), PathBuf::from)
}

/// A list; an image that has none has programs that need none.
fn read(list: &str) -> io::Result<Option<String>> {
    match fs::read_to_string(list) {
        Ok(lines) => Ok(Some(lines)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The line of a user, or of a group: both have the number in the third place.
fn find(list: &str, number: u32) -> Option<&str> {
    let number = number.to_string();
    list.lines().find(|line| line.split(':').nth(2) == Some(&number))
}

/// Covers a list, if there is one, with a longer one.
fn add(list: &str, lines: Option<&str>, longer: &Path, line: &str) -> io::Result<()> {
    let Some(lines) = lines else { return Ok(()) };
    let end = if lines.is_empty() || lines.ends_with('\n') { "" } else { "\n" };
    fs::write(longer, [lines, end, line].concat())?;
    Ok(mount_bind(longer, list)?)
}
