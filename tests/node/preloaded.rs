//! The preload engine's shared object: built as documented, and put into containers.
//!
//! Runs in the tests' process; cargo and make do the work.

use super::Place;
use super::programs::{HOSTMOUNT, build};
use hostmount::engine::preload::DEFAULT_OBJECT;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The shared object.
pub static OBJECT: LazyLock<PathBuf> = LazyLock::new(|| {
    let triple = Path::new(HOSTMOUNT).ancestors().nth(2).unwrap();
    let mut make = Command::new("make");
    make.args(["-C", env!("CARGO_MANIFEST_DIR"), "preload", concat!("CARGO=", env!("CARGO"))]);
    build(&mut make);
    triple.join("preload/libhostmount_preload.so")
});

/// Puts it where the mounter looks for it.
pub fn install(container: &Place) {
    let object = fs::read(&*OBJECT).unwrap();
    container.visit(|| {
        fs::create_dir_all(Path::new(DEFAULT_OBJECT).parent().unwrap()).unwrap();
        fs::write(DEFAULT_OBJECT, object).unwrap();
    });
}
