//! A log file on the node for a helper in the container: kubelet names one for each GlusterFS volume, and reads its last
//! lines into the pod's event when the mount has failed.
//!
//! Runs in the mounter, on a visit to the node. Options may come from a pod, and a helper must not write to any other file of
//! the node's: so only GlusterFS has one, and only in the directory that kubelet's own plugin for it makes them in.

use super::target::{Target, TargetError};
use super::tree::Tree;
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid, fchown, fstat, openat};
use std::io;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

/// The mount option that names it.
pub const OPTION: &str = "log-file";
/// Below kubelet's directory.
const GLUSTERFS: &str = "plugins/kubernetes.io/glusterfs";

/// It cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LogFileError {
    /// It might lead anywhere on the node.
    #[error("it must be a file below {directory}, without '..'", directory = directory.display())]
    Outside {
        /// Where kubelet has them.
        directory: PathBuf,
    },
    /// Its directory, which kubelet makes.
    #[error("the directory of the log file")]
    Directory(#[source] TargetError),
    /// The file itself.
    #[error("cannot open the log file")]
    Open(#[source] io::Error),
    /// What is there is not to be written to.
    #[error("the log file is none: a device, a pipe, or a file with another name elsewhere")]
    NoFile,
}

/// Whether `path`, as the option of a volume of type `fstype`, names a file on the node and not in the container.
pub fn is_on_node(fstype: &str, path: &Path, kubelet_dir: &Path) -> bool {
    fstype.strip_prefix("fuse.").unwrap_or(fstype) == "glusterfs" && path.starts_with(kubelet_dir.join(GLUSTERFS))
}

/// Opens the file, and makes it if need be; it becomes the helper's, `owner`. The tree is the file alone.
pub fn open(path: &Path, kubelet_dir: &Path, owner: (Uid, Gid)) -> Result<Tree, LogFileError> {
    let allowed = kubelet_dir.join(GLUSTERFS);
    // Below kubelet's directory no symbolic link is followed, and without `..` no path leads out of a directory that it
    // begins with.
    let inside = path.strip_prefix(&allowed).is_ok_and(|below| below.components().all(is_normal));
    let (Some(directory), Some(name), true) = (path.parent(), path.file_name(), inside && path != allowed) else {
        return Err(LogFileError::Outside { directory: allowed });
    };
    let directory =
        Target::open(directory, kubelet_dir, linux::sys::ask::Patience::USUAL).map_err(LogFileError::Directory)?;
    // Not followed, and not written by us: a link or a device there is none of ours.
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = openat(&directory, name, flags, Mode::RUSR | Mode::WUSR);
    let file = opened.map_err(|errno| LogFileError::Open(errno.into()))?;
    let stat = fstat(&file).map_err(|errno| LogFileError::Open(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(LogFileError::NoFile);
    }
    let (uid, gid) = owner;
    if (stat.st_uid, stat.st_gid) != (uid.as_raw(), gid.as_raw()) {
        // A name for a file that has another one elsewhere is none of ours.
        if stat.st_nlink != 1 {
            return Err(LogFileError::NoFile);
        }
        fchown(&file, Some(uid), Some(gid)).map_err(|errno| LogFileError::Open(errno.into()))?;
    }
    Tree::copy_at(file.as_fd()).map_err(LogFileError::Open)
}

fn is_normal(component: Component<'_>) -> bool {
    matches!(component, Component::Normal(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_glusterfs_has_one_and_only_in_its_own_directory() {
        let kubelet = Path::new("/k");
        let on_node = |fstype, path: &str| is_on_node(fstype, Path::new(path), kubelet);
        assert!(on_node("glusterfs", "/k/plugins/kubernetes.io/glusterfs/v/p.log"));
        assert!(on_node("fuse.glusterfs", "/k/plugins/kubernetes.io/glusterfs/v/p.log"));
        for fstype in ["sshfs", "fuse.glusterfs.x", "s3fs", "nfs"] {
            assert!(!on_node(fstype, "/k/plugins/kubernetes.io/glusterfs/v/p.log"), "{fstype}");
        }
        for path in
            ["/k/plugins/kubernetes.io/x", "/k/pki/kubelet.key", "/var/log/x", "/k/plugins/kubernetes.io/glusterfsx/y"]
        {
            assert!(!on_node("glusterfs", path), "{path}");
        }
        for path in ["", "/..", "/../../../pki/kubelet.key", "/v/../../x.log", "/v/.."] {
            let path = format!("/k/plugins/kubernetes.io/glusterfs{path}");
            assert!(
                matches!(open(Path::new(&path), kubelet, (Uid::ROOT, Gid::ROOT)), Err(LogFileError::Outside { .. })),
                "{path}"
            );
        }
    }
}
