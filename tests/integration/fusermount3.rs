//! `fusermount3` of ours beside libfuse's own: the same command lines, as a user without privilege, and the same exit status, words,
//! descriptor and mount. The mounter is `testbed`'s `pod-mounter` here.

use crate::harness::{Test, tests};
use crate::node::Done;
use crate::node::fusermount3::{Outcome, REAL, USER, command, receive, run};
use crate::node::pod_volume::{DIRECTORY, MOUNT_POINT, OURS, PodVolume, SHOWN};
use rustix::net::RecvFlags;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::thread;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        command_lines_that_are_wrong_have_the_same_words.needs(&["fusermount3"]).quick(),
        options_are_followed_or_refused_alike.needs(&["fusermount3"]).quick(),
        mount_points_are_looked_at_alike.needs(&["fusermount3"]).quick(),
        unmounting_alike.needs(&["fusermount3"]).quick(),
        deliberate_differences.needs(&["fusermount3"]).quick(),
        what_libfuse_3_19_asks_for.quick(),
        auto_unmount_waits_for_the_programs_end.quick(),
        several_mounts_in_a_pod.quick(),
        without_a_socket_it_says_what_is_missing.quick(),
        whatever_is_at_the_sockets_path.quick(),
        what_never_answers_is_not_waited_for,
    ]
}

/// The real one's outcome, and ours.
fn both(test: &PodVolume, arguments: &[&str]) -> (Outcome, Outcome) {
    let real = run(test, REAL, MOUNT_POINT, arguments);
    (real, run(test, &format!("{OURS}/fusermount3"), SHOWN, arguments))
}

#[track_caller]
fn same(test: &PodVolume, arguments: &[&str]) -> Outcome {
    let (real, ours) = both(test, arguments);
    assert_eq!(ours, real, "ours and the real one's: fusermount3 {arguments:?}");
    ours
}

/// A machine whose mount point is the user's, where users may allow others and, as on most, open /dev/fuse.
fn start() -> PodVolume {
    let test = PodVolume::start(&[]);
    test.place.sh_ok(
        "mkdir /run/dev && mount -t tmpfs dev /run/dev && mknod -m 666 /run/dev/fuse c 10 229 \
         && mount --bind /run/dev/fuse /dev/fuse",
    );
    test.place.sh_ok(&format!("echo user_allow_other >/etc/fuse.conf; chown {USER}:{USER} {DIRECTORY} {MOUNT_POINT}"));
    test
}

fn command_lines_that_are_wrong_have_the_same_words() {
    let test = start();
    let place = MOUNT_POINT;
    let lines: &[&[&str]] = &[
        &[],
        &["-x", place],
        &["-ux", place],
        &["--nothing", place],
        &["--nothing=much", place],
        &["--unmount=now", place],
        &["-o"],
        &[place, "-o"],
        &["-z", place],
        &["-qz", place],
        &[place, place],
        &["-u"],
        &["--", "-u"],
        &["-"],
        &["--quiet"],
    ];
    for line in lines {
        assert_eq!(same(&test, line).code, Some(1), "{line:?}");
    }
    assert_eq!(test.was_asked(), [""; 0]);
    // Without a socket to send anything to.
    for program in [REAL, &format!("{OURS}/fusermount3")] {
        let (mut command, _caller) = command(program, &[place]);
        command.env_remove("_FUSE_COMMFD");
        let done: Done = test.place.0.output(command).unwrap().into();
        assert_eq!(
            (done.code, &*done.stderr),
            (Some(1), "fusermount3: old style mounting not supported\n"),
            "{program}"
        );
    }
}

fn options_are_followed_or_refused_alike() {
    let test = start();
    let options = [
        "",
        "ro",
        "rw",
        "ro,rw",
        "rw,ro",
        "suid",
        "nosuid",
        "dev,suid",
        "nodev",
        "exec",
        "noexec",
        "noexec,exec",
        "async",
        "sync",
        "atime",
        "noatime",
        "dirsync",
        "nonempty",
        "allow_other",
        "allow_other,allow_other,ro",
        "default_permissions",
        "max_read=131072",
        "blksize=4096",
        "fsname=host:/directory",
        "fsname=one,fsname=two",
        "fsname=a\\,b",
        "fsname=a\\\\b",
        "subtype=some",
        "subtype=some,fsname=thing",
        "subtype=a.b",
        "fd=17",
        "rootmode=100000,user_id=0,group_id=0",
        "rw,nosuid,nodev,default_permissions,allow_other,max_read=65536,fsname=x,subtype=y",
        "ro,,noatime",
        ",",
        // Refused.
        "blkdev",
        "allow_root",
        "uid=0",
        "user=daemon",
        "context=x",
        "nothing",
        "ro=1",
        "Ro",
        "ro ",
        "suid,nothing",
        "max_read",
        "default_permissions=1",
    ];
    for option in options {
        let arguments = ["-o", option, "--", MOUNT_POINT];
        let (mut real, mut ours) = both(&test, &arguments);
        if option.contains("blksize") {
            // Which only a block device has, says the kernel to both.
            (real.stderr, ours.stderr) = (String::new(), String::new());
        }
        assert_eq!(ours, real, "ours and the real one's: -o {option}");
        assert_eq!(ours.sent, ours.code == Some(0), "-o {option}");
        assert_eq!(ours.mount.is_some(), ours.sent, "-o {option}");
    }
    // The last one takes the place of the others.
    assert!(same(&test, &["-o", "ro", MOUNT_POINT, "-onoexec"]).mount.unwrap().starts_with("rw,nosuid,nodev,noexec"));
}

fn mount_points_are_looked_at_alike() {
    let test = start();
    test.place.sh_ok(&format!("ln -s volume {DIRECTORY}/link; ln -s {DIRECTORY} /run/way; mkfifo {DIRECTORY}/fifo"));
    for (place, mounts) in [
        ("/run/hostmount/volume", true),
        ("/run/hostmount/volume//", true),
        ("/run/hostmount/../hostmount/./volume", true),
        ("/run/hostmount/volume/.", true),
        ("hostmount/volume", true),
        ("/run/way/volume", true),
        ("/run/hostmount/link", false),
        ("/run/hostmount/fifo", false),
        ("/run/hostmount/nothing", false),
        ("/nothing/volume", false),
        ("/nothing/volume/..", false),
        ("/run/hostmount/volume.sock", false),
        ("", false),
    ] {
        assert_eq!(same(&test, &[place]).sent, mounts, "{place}");
    }
}

fn unmounting_alike() {
    let test = start();
    let ours = format!("{OURS}/fusermount3");
    for (program, shown) in [(REAL, MOUNT_POINT), (&*ours, SHOWN)] {
        let unmount = |arguments: &[&str]| {
            let (command, caller) = command(program, arguments);
            let done: Done = test.place.0.output(command).unwrap().into();
            assert!(receive(&caller, RecvFlags::DONTWAIT).is_none());
            (done.code, done.stdout, done.stderr)
        };
        let is_mounted = || test.place.mount_at(shown).is_some_and(|line| line.contains(" - fuse"));
        let mount = || {
            let (command, caller) = command(program, &[MOUNT_POINT]);
            Done::from(test.place.0.output(command).unwrap()).ok(program);
            (receive(&caller, RecvFlags::DONTWAIT).unwrap(), caller)
        };
        let nothing = |code| (Some(code), String::new(), String::new());
        let missing = format!("fusermount3: entry for {MOUNT_POINT} not found in /etc/mtab\n");
        assert_eq!(unmount(&["-u", MOUNT_POINT]), (Some(1), String::new(), missing), "{program}");
        assert_eq!(unmount(&["-u", "-q", "-z", "--", MOUNT_POINT]), nothing(1), "{program}");
        for arguments in [&["-u", MOUNT_POINT][..], &["--unmount", "--quiet", "--lazy", "--", MOUNT_POINT]] {
            let mounted = mount();
            assert!(is_mounted(), "{program}");
            assert_eq!(unmount(arguments), nothing(0), "{program}");
            assert!(!is_mounted(), "{program}");
            drop(mounted);
        }
        // In use: by a mount on top of a dead filesystem, which needs no answer of it.
        let mounted = mount();
        drop(mounted);
        let busy = test.place.sh(&format!("exec 3<{shown}"));
        assert_ne!(busy.code, Some(0), "it is dead");
        assert_eq!(unmount(&["-u", "-z", MOUNT_POINT]), nothing(0), "{program}");
    }
    while test.asked() != "volume unmount true" {}
}

/// Where it is different on purpose: docs/fusermount3.md.
fn deliberate_differences() {
    let test = start();
    // Who may let others in is the volume's users' affair, and no node's.
    test.place.sh_ok("rm /etc/fuse.conf");
    let (real, ours) = both(&test, &["-o", "allow_other", MOUNT_POINT]);
    assert_eq!((real.code, real.sent, ours.code, ours.sent), (Some(1), false, Some(0), true));
    assert!(ours.mount.unwrap().contains("allow_other"));
    // Nothing is mounted at the mount point, so it need not be the user's.
    test.place.sh_ok(&format!("chown root:root {MOUNT_POINT}"));
    let (real, ours) = both(&test, &[MOUNT_POINT]);
    assert_eq!((real.code, ours.code), (Some(1), Some(0)), "{real:?} {ours:?}");
    // A volume is a directory.
    test.place.sh_ok(&format!("echo x >{DIRECTORY}/file; chown {USER} {DIRECTORY}/file"));
    let ours = run(&test, &format!("{OURS}/fusermount3"), SHOWN, &["/run/hostmount/file"]);
    assert_eq!((ours.code, ours.sent), (Some(1), false));
    assert!(ours.stderr.contains("a volume is a directory"), "{}", ours.stderr);
    // A double quote cannot be passed on.
    let ours = run(&test, &format!("{OURS}/fusermount3"), SHOWN, &["-o", "fsname=a\"b", MOUNT_POINT]);
    assert!(ours.code == Some(1) && ours.stderr.contains("double quote"), "{}", ours.stderr);
    // An empty source is none: libfuse's own shows it.
    let (real, ours) = both(&test, &["-o", "fsname=", "/run/hostmount/volume"]);
    assert!(real.code == Some(1) && ours.mount.unwrap().contains(" fuse /dev/fuse "), "{real:?}");
    // What later versions know.
    let options = "nosymfollow,nodiratime,x-gvfs-hide";
    let ours = run(&test, &format!("{OURS}/fusermount3"), SHOWN, &["-o", options, MOUNT_POINT]);
    assert!(ours.mount.unwrap().contains("nodiratime"));
    // The first words are those that programs look for.
    let version = |program: &str| run(&test, program, SHOWN, &["-V"]).stdout;
    assert!(version(REAL).starts_with("fusermount3 version: 3."));
    assert!(version(&format!("{OURS}/fusermount3")).starts_with("fusermount3 version: 3."));
    // The real one's help, and two lines that it has since 3.19.
    let help = |program: &str| run(&test, program, SHOWN, &["--help"]);
    let (real, ours) = (help(REAL), help(&format!("{OURS}/fusermount3")));
    assert!(ours.stdout.starts_with(real.stdout.trim_end()) && ours.code == real.code, "{ours:?} {real:?}");
}

fn what_libfuse_3_19_asks_for() {
    let test = start();
    let ours = format!("{OURS}/fusermount3");
    for (option, answer) in [
        ("--features", "0000000000000003\n"),
        ("--features=text", "FUSERMOUNT_FEATURE_NEW_MOUNT_API FUSERMOUNT_FEATURE_SYNC_INIT\n"),
    ] {
        let done = run(&test, &ours, SHOWN, &[option]);
        assert_eq!((done.code, &*done.stdout), (Some(0), answer));
    }
    // The descriptor comes first; the caller reads it, and says so; then it is told that the mount is there.
    let (command, mut caller) = command(&ours, &["--sync-init", "-o", "ro", "--", MOUNT_POINT]);
    let mut process = test.place.spawn(command);
    let descriptor = receive(&caller, RecvFlags::empty()).unwrap();
    assert_eq!(test.asked(), "volume mount ro");
    caller.write_all(&[0]).unwrap();
    let mut status = [1; 4];
    caller.read_exact(&mut status).unwrap();
    assert_eq!((status, process.wait().unwrap().code()), ([0; 4], Some(0)));
    drop(descriptor);
    test.place.sh_ok(&format!("umount --lazy {SHOWN}"));
    // A caller that goes instead has no mount either.
    let (command, caller) = self::command(&ours, &["--sync-init", "--", MOUNT_POINT]);
    let mut process = test.place.spawn(command);
    receive(&caller, RecvFlags::empty()).unwrap();
    drop(caller);
    assert_eq!(process.wait().unwrap().code(), Some(1));
    let mut said = String::new();
    process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "fusermount3: connection closed while waiting for signal\n");
    assert_eq!([test.asked(), test.asked()], ["volume mount ", "volume unmount true"]);
    // Its number as an argument, and what is no socket.
    let done = run(&test, &ours, SHOWN, &["--comm-fd=0", MOUNT_POINT]);
    assert!(done.sent);
    for (number, words) in
        [("1x", "invalid _FUSE_COMMFD: 1x"), ("77", "fstat of comm fd 77 failed: Bad file descriptor")]
    {
        let done = run(&test, &ours, SHOWN, &["--comm-fd", number, MOUNT_POINT]);
        assert_eq!((done.code, done.stderr), (Some(1), format!("fusermount3: {words}\n")));
    }
    let (mut command, _caller) = self::command(&ours, &[MOUNT_POINT]);
    command.stdin(Stdio::null());
    let done: Done = test.place.0.output(command).unwrap().into();
    let words = "fusermount3: file descriptor 0 is not a socket, can't send fuse fd\n";
    assert_eq!((done.code, &*done.stderr), (Some(1), words));
}

fn auto_unmount_waits_for_the_programs_end() {
    let test = start();
    let ours = format!("{OURS}/fusermount3");
    let start = |arguments: &[&str]| {
        let (command, caller) = command(&ours, arguments);
        (test.place.spawn(command), caller)
    };
    let (mut process, caller) = start(&["-o", "auto_unmount", "--", MOUNT_POINT]);
    let descriptor = receive(&caller, RecvFlags::empty()).unwrap();
    assert_eq!(test.asked(), "volume mount ");
    // It has let go of its caller's output, and stays.
    let mut said = String::new();
    process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((said, process.try_wait().unwrap()), (String::new(), None));
    // The program dies: its descriptor and its end of the socket are closed.
    drop(descriptor);
    drop(caller);
    assert_eq!(test.asked(), "volume unmount true");
    assert_eq!(process.wait().unwrap().code(), Some(0));
    assert_eq!(test.place.fuse_mounts(), [""; 0]);
    // The same for a program that has mounted by itself.
    let (mut process, caller) = start(&["--auto-unmount", "--", MOUNT_POINT]);
    drop(caller);
    process.wait().unwrap();
    assert_eq!(test.asked(), "volume unmount true");
    // Another program serves the volume by now: what it serves stays.
    let (mut process, caller) = start(&["--auto-unmount", "--", MOUNT_POINT]);
    test.place.sh_ok(&format!("mount -t tmpfs served {SHOWN}"));
    drop(caller);
    assert_eq!(process.wait().unwrap().code(), Some(0));
    assert_eq!(test.was_asked(), [""; 0]);
}

fn several_mounts_in_a_pod() {
    let test = PodVolume::start(&["second", "third"]);
    let ours = format!("{OURS}/fusermount3");
    for (name, options) in [("volume", "ro"), ("third", "noexec"), ("second", "")] {
        let (command, caller) = command(&ours, &["-o", options, "--", &format!("{DIRECTORY}/{name}")]);
        Done::from(test.place.0.output(command).unwrap()).ok(name);
        assert!(receive(&caller, RecvFlags::DONTWAIT).is_some());
        assert_eq!(test.asked(), format!("{name} mount {options}"));
        let line = test.place.mount_at(&format!("/mnt/{name}")).unwrap();
        assert!(line.contains(" - fuse "), "{line}");
    }
    let (command, _caller) = command(&ours, &["-uz", "/run/hostmount/third"]);
    Done::from(test.place.0.output(command).unwrap()).ok("third");
    assert_eq!(test.place.fuse_mounts().len(), 2);
}

fn without_a_socket_it_says_what_is_missing() {
    let test = start();
    test.place.sh_ok("mkdir -p /run/elsewhere/volume");
    let ours = format!("{OURS}/fusermount3");
    let done = run(&test, &ours, SHOWN, &["/run/elsewhere/volume"]);
    assert_eq!((done.code, done.sent), (Some(1), false));
    for words in ["mount failed", "no socket /run/elsewhere/volume.sock", "emptyDir"] {
        assert!(done.stderr.contains(words), "{}", done.stderr);
    }
    // A root has nothing beside it.
    assert!(run(&test, &ours, SHOWN, &["/"]).stderr.contains("is no place for a volume"));
    let quiet = run(&test, &ours, SHOWN, &["-uqz", "/run/elsewhere/volume"]);
    assert_eq!((quiet.code, &*quiet.stderr), (Some(1), ""));
}

/// What `fusermount3` does with a mount point beside whose socket something else of the pod's answers: never a descriptor, a panic,
/// or a wait without end. Returns its words.
fn asks(test: &PodVolume, name: &str, answer: impl FnOnce(UnixStream) + Send + 'static) -> String {
    let path = format!("{DIRECTORY}/{name}");
    let listener = test.place.visit(|| {
        std::fs::create_dir(&path).unwrap();
        let listener = UnixListener::bind(format!("{path}.sock")).unwrap();
        std::fs::set_permissions(format!("{path}.sock"), PermissionsExt::from_mode(0o666)).unwrap();
        listener
    });
    let other = thread::spawn(move || answer(listener.accept().unwrap().0));
    let done = run(test, &format!("{OURS}/fusermount3"), SHOWN, &[&path]);
    other.join().unwrap();
    assert_eq!((done.code, done.sent, done.mount), (Some(1), false, None), "{name}");
    assert!(done.stderr.starts_with("fusermount3: mount failed: "), "{name}: {}", done.stderr);
    assert_eq!(done.stderr.lines().count(), 1, "{name}: {}", done.stderr);
    done.stderr
}

fn whatever_is_at_the_sockets_path() {
    let test = start();
    let reply = |body: &str| {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [b"HMNT\0\0\0\x04", &length[..], body.as_bytes()].concat()
    };
    asks(&test, "closes", drop);
    let granted = reply("{\"Ok\":{\"filesystem\":1}}");
    let said = asks(&test, "grants", move |mut caller| caller.write_all(&granted).unwrap());
    assert!(said.contains("no descriptor"), "{said}");
    let words = reply("{\"Err\":{\"exit\":\"usage\",\"message\":\"\\u001b[2J\",\"output\":[]}}");
    let said = asks(&test, "colours", move |mut caller| caller.write_all(&words).unwrap());
    assert!(said.contains("\\u{1b}[2J"), "{said}");
    asks(&test, "foreign", |mut caller| caller.write_all(&[b'x'; 4096]).unwrap());
    // As much as it likes: it is read no further, and the connection is closed.
    let endless = [b"HMNT\0\0\0\x04\0\x80\0\0".as_slice(), &[b' '; 1 << 16]].concat();
    asks(&test, "endless", move |mut caller| while caller.write_all(&endless).is_ok() {});
}

/// It is given up in the end, also where a byte comes now and then.
fn what_never_answers_is_not_waited_for() {
    let test = start();
    thread::scope(|scope| {
        scope.spawn(|| {
            asks(&test, "silent", |mut caller| while caller.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {});
        });
        asks(&test, "drips", |mut caller| {
            let head = b"HMNT\0\0\0\x04\0\0\xff\xff";
            // Slower than a whole reply may be.
            while head.iter().chain(&[b' '; 1 << 14]).all(|byte| {
                thread::sleep(std::time::Duration::from_millis(20));
                caller.write_all(&[*byte]).is_ok()
            }) {}
        });
    });
}
