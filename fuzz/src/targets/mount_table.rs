//! The mount table: users choose the names in it, for sources, targets and directories.

use linux::mount_table::{Mount, parse};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// A whole table.
pub fn check(bytes: &[u8]) {
    let mounts = parse(bytes);
    assert!(mounts.len() <= bytes.split(|byte| *byte == b'\n').count());
    let written: Vec<u8> = mounts.iter().flat_map(line).collect();
    assert_eq!(parse(&written), mounts);
    // No line reaches into another.
    let both = [bytes, b"\n", bytes].concat();
    assert_eq!(parse(&both), [&mounts[..], &mounts[..]].concat());
    for mount in &mounts {
        assert!(!mount.is_fuse() || mount.fstype.as_bytes().starts_with(b"fuse"), "{mount:?}");
    }
}

/// A mount as the kernel writes it.
fn line(mount: &Mount) -> Vec<u8> {
    let mut line = format!("{} {} {} ", mount.id, mount.parent, mount.device).into_bytes();
    line.extend(escape(mount.root.as_os_str()));
    line.push(b' ');
    line.extend(escape(mount.target.as_os_str()));
    line.extend(format!(" {}", mount.options).into_bytes());
    line.extend(mount.shared.into_iter().flat_map(|group| format!(" shared:{group}").into_bytes()));
    line.extend(mount.master.into_iter().flat_map(|group| format!(" master:{group}").into_bytes()));
    line.extend(b" - ");
    line.extend(escape(&mount.fstype));
    line.push(b' ');
    line.extend(escape(&mount.source));
    line.extend(format!(" {}\n", mount.super_options).into_bytes());
    line
}

fn escape(name: &OsStr) -> Vec<u8> {
    let byte = |byte: &u8| match byte {
        b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
        _ => vec![*byte],
    };
    name.as_bytes().iter().flat_map(byte).collect()
}
