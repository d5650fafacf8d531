//! The command lines of `fusermount3` and `hostmount-pod start`, their options, and what the mounter makes of these.
//!
//! The input is lines, each an argument.

use api::options::MountOptions;
use hostmount::config::Config;
use hostmount::engine::judge::{Call, judge};
use hostmount::mounter::pods::mount_options::Asked;
use hostmount::policy::grant_of_program;
use hostmount_pod::fusermount::command_line::{Parsed, parse};
use hostmount_pod::options::read;
use hostmount_pod::start::command_line::Start;
use rustix::mount::MountFlags;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Our descriptor for /dev/fuse.
const OURS: i32 = 3_141_592;

/// A command line of each.
pub fn check(bytes: &[u8]) {
    let words: Vec<_> = bytes.split(|byte| *byte == b'\n').map(|word| OsString::from_vec(word.to_vec())).collect();
    match parse(&words) {
        Ok(Parsed::Work(arguments)) => {
            assert!(words.contains(&arguments.mount_point), "{arguments:?}");
            check_options(&arguments.options);
        }
        Ok(_) => {}
        Err(error) => assert!(!error.is_empty()),
    }
    match Start::parse(&words) {
        Ok(start) => {
            assert!(words.ends_with(&start.arguments), "{start:?}");
            assert!(start.arguments.iter().any(|word| word.to_string_lossy().contains("{}")), "{start:?}");
            check_options(&start.options);
        }
        Err(error) => assert!(!error.is_empty()),
    }
    // Each of them as options, too.
    std::str::from_utf8(bytes).into_iter().for_each(check_options);
}

/// What is asked for is what is read, and what the mounter mounts by it is within its grant.
fn check_options(text: &str) {
    let options = match read(text, |_| {}) {
        Ok(options) => options.for_mounter,
        Err(error) => return assert!(!error.is_empty()),
    };
    let read = MountOptions::parse(&options.to_string()).expect("what is asked for can be read");
    assert_eq!(read, options);
    // Some values are no number, and some are too long.
    let Ok(asked) = Asked::with(&read) else { return };
    let source = options.value("fsname").map_or("program", |name| name.trim_matches('"'));
    assert_eq!(asked.source, source, "{text}");
    for read_only in [false, true] {
        let grant = grant_of_program(read_only, &Config::default());
        let call = Call {
            fstype: &asked.fstype,
            flags: asked.flags,
            data: &asked.data,
            fuse_device: Some(OURS),
            at_mount_point: true,
            mounted_before: false,
        };
        let verdict = judge(&grant, &call).expect("what is let through is what the judge grants");
        assert!(verdict.flags.contains(MountFlags::NOSUID | MountFlags::NODEV), "{verdict:?}");
        assert!(!read_only || verdict.flags.contains(MountFlags::RDONLY), "{verdict:?}");
        let ours = [format!("fd={OURS}"), "rootmode=40000".into(), "user_id=0".into(), "group_id=0".into()];
        let data = verdict.data.to_str().expect("it came from text");
        let number = |piece: &str| {
            let value = ["max_read=", "blksize="].into_iter().find_map(|name| piece.strip_prefix(name));
            value.is_some_and(|value| value.parse::<u32>().is_ok())
        };
        let known = |piece: &str| {
            ours.iter().any(|ours| ours == piece)
                || ["allow_other", "default_permissions"].contains(&piece)
                || number(piece)
        };
        assert!(data.split(',').all(known), "{data}");
    }
}
