use super::*;
use crate::node::own_fuse::OwnFuse;
use crate::node::own_mounts::{in_own_mounts, mounted_at, new_tmpfs, own_table};
use linux::processes::{OWN, Process};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, open};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_remount};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// All mounts of a filesystem in the calling thread's namespace.
fn mounts_of(device: Device) -> Vec<VisibleMount> {
    let handle = MountNamespace::of_this_thread().unwrap();
    let this = Process::at(Path::new(OWN), rustix::thread::gettid());
    let populated = PopulatedNamespace { id: handle.id().unwrap(), processes: vec![this] };
    let namespace = Arc::new(Namespace { handle, populated, host_proc: OWN.into() });
    in_table(&own_table(), &namespace, |of| of == device).remove(&device).unwrap_or_default().0
}

/// Puts the filesystem at `new` in the place of all mounts of the one at `old`. Returns what is lost.
fn replace_all(old: &str, new: &str) -> Vec<String> {
    let mut replaced: Vec<VisibleMount> = Vec::new();
    let mut lost = Vec::new();
    let mut mounts = mounts_of(mounted_at(old).device);
    let root = open(new, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let new = Fresh { root: root.as_fd(), patience: Patience::USUAL, dead: None, cover: true };
    mounts.iter_mut().for_each(|mount| mount.copy_inner_mounts(new));

    for mut mount in mounts {
        let master = replaced.iter().find(|other| mount.follows(other));
        lost.extend(mount.replace_by(new, None, master).unwrap());
        replaced.push(mount);
    }
    lost.iter().map(|lost| api::exit::chain(lost)).collect()
}

/// A pod makes as many as it likes.
#[test]
fn mounts_on_each_other_have_an_end() {
    let table = |on_top: bool, count: u64| {
        let line = |id: u64| format!("{id} {} 0:61 / /data rw - fuse.x y rw\n", if on_top { id - 1 } else { 1 });
        linux::mount_table::parse((1..=count).map(line).collect::<String>().as_bytes())
    };
    let on_first = |table: &[Mount]| MountedOn::of(table).all_on(&table[0]).map(|inner| inner.len());
    assert_eq!(on_first(&table(true, 30)), Some(1));
    assert_eq!(on_first(&table(true, 100_000)), None);
    assert_eq!(on_first(&table(false, 200)), Some(199));
    assert_eq!(on_first(&table(false, 300)), None);
    // All of them together, but not those without any.
    let long = table(true, 100_000);
    let mut on = MountedOn::of(&long);
    assert!(long[..99_000].iter().all(|mount| on.all_on(mount).is_none()));
    assert_eq!(on.all_on(&long[99_999]).map(|inner| inner.len()), Some(0));
}

/// What a pod mounts in a `Bidirectional` volume shows on the node, and it must do so after healing as well.
#[test]
#[ignore = "a mount namespace needs root: make test-quick"]
fn mounts_that_propagate_to_each_other_still_do() {
    in_own_mounts(|| {
        use MountPropagationFlags as P;
        new_tmpfs("/mnt/volume");
        mount_change("/mnt/volume", P::SHARED).unwrap();
        new_tmpfs("/mnt/pods");
        let pods: [(&str, &[P]); 3] =
            [("bidirectional", &[]), ("slave", &[P::DOWNSTREAM]), ("nested", &[P::DOWNSTREAM, P::SHARED])];
        for (pod, changes) in pods {
            let path = format!("/mnt/pods/{pod}");
            fs::create_dir(&path).unwrap();
            mount_bind("/mnt/volume", &*path).unwrap();
            changes.iter().for_each(|change| mount_change(&*path, *change).unwrap());
        }
        new_tmpfs("/mnt/fresh");
        replace_all("/mnt/volume", "/mnt/fresh");
        let fresh = mounted_at("/mnt/fresh").device;
        let [volume, bidirectional, slave, nested] = ["volume", "pods/bidirectional", "pods/slave", "pods/nested"]
            .map(|path| mounted_at(&format!("/mnt/{path}")));
        for mount in [&volume, &bidirectional, &slave, &nested] {
            assert_eq!(mount.device, fresh, "{mount:?}");
        }
        let group = volume.shared;
        assert!(group.is_some(), "{volume:?}");
        assert_eq!((slave.master, slave.shared), (group, None));
        assert_eq!((nested.master, nested.shared.is_some()), (group, true));
        assert_eq!((bidirectional.master, bidirectional.shared), (None, group));
    });
}

/// A volume of FUSE at /mnt/volume, and at /mnt/fresh the filesystem that shall take its place, with these directories.
fn volume(directories: &[&str]) -> OwnFuse {
    new_tmpfs("/mnt/fresh");
    directories.iter().for_each(|directory| fs::create_dir_all(format!("/mnt/fresh/{directory}")).unwrap());
    OwnFuse::mount("/mnt/volume")
}

/// A directory of the node's with a file in it, as an emptyDir is one.
fn empty_dir(path: &str) {
    fs::create_dir_all(path).unwrap();
    fs::write(format!("{path}/file"), "").unwrap();
}

fn there(path: &str) -> bool {
    fs::exists(path).unwrap()
}

fn assert_dead(path: &str) {
    assert_eq!(fs::read_dir(path).unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
}

/// As a container runtime mounts a pod's other volumes inside of this one: the node has a mount of each.
#[test]
#[ignore = "a mount namespace needs root: make test-quick"]
fn what_a_dead_volume_has_inside_comes_from_another_mount_of_it() {
    in_own_mounts(|| {
        let fuse = volume(&["cache", "config", "secret"]);
        new_tmpfs("/mnt/node");
        mount_change("/mnt/node", MountPropagationFlags::SHARED).unwrap();
        empty_dir("/mnt/node/cache");
        empty_dir("/mnt/node/cache/inner");
        mount_bind("/mnt/node/cache", "/mnt/volume/cache").unwrap();
        mount_change("/mnt/volume/cache", MountPropagationFlags::DOWNSTREAM).unwrap();
        mount_remount("/mnt/volume/cache", MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
        new_tmpfs("/mnt/elsewhere");
        empty_dir("/mnt/elsewhere/secret");
        mount_bind("/mnt/elsewhere/secret", "/mnt/volume/cache/inner").unwrap();
        fs::write("/mnt/node/config", "").unwrap();
        fs::write("/mnt/fresh/config.map", "").unwrap();
        let before = mounted_at("/mnt/volume/cache");
        drop(fuse);
        assert_dead("/mnt/volume");
        assert_eq!(replace_all("/mnt/volume", "/mnt/fresh"), Vec::<String>::new());
        assert!(there("/mnt/volume/cache/file") && there("/mnt/volume/cache/inner/file"));
        let after = mounted_at("/mnt/volume/cache");
        assert_eq!((&after.options, after.master, after.shared), (&before.options, before.master, before.shared));
        assert!(before.options.starts_with("ro") && before.master.is_some(), "{before:?}");
        assert_eq!(mounted_at("/mnt/volume/cache/inner").root, Path::new("/secret"));
    });
}

/// A file can be mounted as well: a key of a ConfigMap with `subPath`.
#[test]
#[ignore = "a mount namespace needs root: make test-quick"]
fn a_single_file_inside_a_dead_volume_is_kept() {
    in_own_mounts(|| {
        // A dead filesystem of our own has directories only: a file is on another that is inside of it.
        let fuse = volume(&["config"]);
        new_tmpfs("/mnt/node");
        empty_dir("/mnt/node/config");
        mount_bind("/mnt/node/config", "/mnt/volume/config").unwrap();
        fs::write("/mnt/node/key", "value").unwrap();
        mount_bind("/mnt/node/key", "/mnt/volume/config/file").unwrap();
        drop(fuse);
        assert_eq!(replace_all("/mnt/volume", "/mnt/fresh"), Vec::<String>::new());
        assert_eq!(fs::read_to_string("/mnt/volume/config/file").unwrap(), "value");
    });
}

#[test]
#[ignore = "a mount namespace needs root: make test-quick"]
fn what_a_dead_volume_has_inside_comes_from_a_process_that_is_in_it() {
    in_own_mounts(|| {
        let fuse = volume(&["private"]);
        mount(c"test", "/mnt/volume/private", c"tmpfs", MountFlags::empty(), c"").unwrap();
        empty_dir("/mnt/volume/private/deep/down");
        // The calling thread is one of the processes of the namespace.
        unshare(CloneFlags::CLONE_FS).unwrap();
        rustix::process::chdir("/mnt/volume/private/deep").unwrap();
        drop(fuse);
        assert_eq!(replace_all("/mnt/volume", "/mnt/fresh"), Vec::<String>::new());
        assert!(there("/mnt/volume/private/deep/down/file"));
        rustix::process::chdir("/").unwrap();
    });
}

#[test]
#[ignore = "a mount namespace needs root: make test-quick"]
fn what_cannot_be_kept_is_reported_and_the_rest_is_kept() {
    in_own_mounts(|| {
        let fuse = volume(&["a", "private", "z"]);
        new_tmpfs("/mnt/node");
        for name in ["a", "z"] {
            empty_dir(&format!("/mnt/node/{name}"));
            mount_bind(format!("/mnt/node/{name}"), format!("/mnt/volume/{name}")).unwrap();
        }
        mount(c"test", "/mnt/volume/private", c"tmpfs", MountFlags::empty(), c"").unwrap();
        drop(fuse);
        let lost = replace_all("/mnt/volume", "/mnt/fresh");
        assert!(there("/mnt/volume/a/file") && there("/mnt/volume/z/file"));
        let [lost] = &lost[..] else { panic!("{lost:?}") };
        assert!(lost.contains("at /mnt/volume/private of"), "{lost}");
    });
}

#[test]
#[ignore = "a mount namespace needs root: make test-quick"]
fn what_a_live_volume_has_inside_is_kept() {
    in_own_mounts(|| {
        let _fuse = volume(&["private"]);
        mount(c"test", "/mnt/volume/private", c"tmpfs", MountFlags::empty(), c"").unwrap();
        empty_dir("/mnt/volume/private/directory");
        assert_eq!(replace_all("/mnt/volume", "/mnt/fresh"), Vec::<String>::new());
        assert!(there("/mnt/volume/private/directory/file"));
    });
}

/// The fresh filesystem's directories are whatever its server likes.
#[test]
#[ignore = "a mount namespace needs root: make test-quick"]
fn no_link_in_the_fresh_filesystem_is_followed() {
    in_own_mounts(|| {
        let fuse = volume(&[]);
        new_tmpfs("/mnt/node");
        empty_dir("/mnt/node/cache");
        fs::create_dir("/mnt/etc").unwrap();
        symlink("/mnt/etc", "/mnt/fresh/cache").unwrap();
        mount_bind("/mnt/node/cache", "/mnt/volume/cache").unwrap();
        drop(fuse);
        let lost = replace_all("/mnt/volume", "/mnt/fresh");
        assert!(!there("/mnt/etc/file"));
        assert_eq!(lost.len(), 1, "{lost:?}");
    });
}

/// What is mounted inside of a volume on the node shows in pods, and it must not be there twice after healing.
#[test]
#[ignore = "a mount namespace needs root: make test-quick"]
fn what_propagates_is_there_once() {
    in_own_mounts(|| {
        use MountPropagationFlags as P;
        let fuse = volume(&[]);
        let _fresh = OwnFuse::mount("/mnt/fresh");
        mount_change("/mnt/volume", P::SHARED).unwrap();
        new_tmpfs("/mnt/pods");
        for (pod, change) in [("bidirectional", P::SHARED), ("slave", P::DOWNSTREAM)] {
            let path = format!("/mnt/pods/{pod}");
            fs::create_dir(&path).unwrap();
            mount_bind("/mnt/volume", &*path).unwrap();
            mount_change(&*path, change).unwrap();
        }
        mount(c"test", "/mnt/volume/private", c"tmpfs", MountFlags::empty(), c"").unwrap();
        empty_dir("/mnt/volume/private/directory");
        unshare(CloneFlags::CLONE_FS).unwrap();
        let inside = own_table().into_iter().filter(|mount| mount.target.ends_with("private")).count();
        assert_eq!(inside, 3);
        // For each of them a process that is in it would have to be there; so it is not dead, but swapped.
        assert_eq!(replace_all("/mnt/volume", "/mnt/fresh"), Vec::<String>::new());
        drop(fuse);
        for path in ["volume", "pods/bidirectional", "pods/slave"] {
            assert!(there(&format!("/mnt/{path}/private/directory/file")), "{path}");
        }
        let inside: Vec<_> = own_table().into_iter().filter(|mount| mount.target.ends_with("private")).collect();
        assert_eq!(inside.len(), 3, "{inside:#?}");
    });
}
