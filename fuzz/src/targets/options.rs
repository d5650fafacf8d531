//! Mount options, as anybody writes them after `-o`.

use api::mount_words::{acts_on_existing_mounts, in_force, shaping_flags};
use api::options::{MountOptions, OptionsError};
use hostmount::policy::Grant;
use rustix::mount::MountFlags;

/// A value that no error may show.
const SECRET: &str = "hunter2";

/// The text of all options.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    errors_show_no_value(text);
    let parsed = MountOptions::parse(text);
    let plain = !text.contains(['"', '\0']);
    let Ok(options) = parsed else {
        assert!(!plain || parsed == Err(OptionsError::NoName), "{parsed:?}");
        return;
    };
    if plain {
        let pieces = text.split(',').filter(|piece| !piece.is_empty());
        assert!(pieces.eq(options.iter().map(ToString::to_string)), "{options:?}");
    }
    for option in options.iter() {
        assert!(!option.name.is_empty() && !option.name.contains('='), "{option:?}");
        assert!(!option.to_string().contains('\0'), "{option:?}");
    }
    comes_back(&options);
    grants_nothing_beyond(&options);
}

/// What is written of options is read as the same ones.
pub(super) fn comes_back(options: &MountOptions) {
    assert_eq!(MountOptions::parse(&options.to_string()).as_ref(), Ok(options));
    let json = serde_json::to_string(options).expect("text is JSON");
    assert_eq!(&serde_json::from_str::<MountOptions>(&json).expect("what was written is read"), options);
}

/// Whatever the options are, every volume is `nosuid,nodev`, and gets no flag that does more than shape one new mount.
fn grants_nothing_beyond(options: &MountOptions) {
    for fstype in ["fuse.x", "nfs"] {
        let grant = Grant::of(fstype, options);
        assert!(grant.flags.contains(MountFlags::NOSUID | MountFlags::NODEV), "{options}");
        assert_eq!(grant.flags.bits() & !shaping_flags(), 0, "{options}");
        let read_only = in_force(options).contains("ro");
        assert_eq!(grant.flags.contains(MountFlags::RDONLY), read_only, "{options}");
    }
    assert!(in_force(options).iter().all(|word| !acts_on_existing_mounts(word) || options.has_flag(word)), "{options}");
}

fn errors_show_no_value(text: &str) {
    if text.contains(SECRET) {
        return;
    }
    for text in [format!("{text}={SECRET}"), format!("password={SECRET},{text}"), format!("password=\"{SECRET}{text}")]
    {
        if let Err(error) = MountOptions::parse(&text) {
            assert!(!error.to_string().contains(SECRET), "{text:?}: {error}");
        }
    }
}
