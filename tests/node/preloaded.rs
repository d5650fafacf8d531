//! The preload engine's shared object: built as documented, and put into containers. And a helper that loads it.
//!
//! Runs in the tests' process; cargo and make do the work.

use super::Place;
use super::programs::{HOSTMOUNT, build, target_directory};
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

/// `testbed` as a dynamic program, which loads the object; the other one is static.
pub static DYNAMIC_TESTBED: LazyLock<PathBuf> = LazyLock::new(|| {
    let (directory, triple) = (target_directory().join("dynamic"), Path::new(HOSTMOUNT).ancestors().nth(2).unwrap());
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--package", "hostmount-testbed", "--target-dir"]).arg(&directory);
    // As the Makefile has it for the object: undoes the flag in .cargo/config.toml.
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).env("RUSTFLAGS", "-C target-feature=-crt-static");
    build(&mut cargo);
    directory.join(triple.file_name().unwrap()).join("debug/testbed")
});

/// Puts it where the mounter looks for it.
pub fn install(container: &Place) {
    let object = fs::read(&*OBJECT).unwrap();
    container.visit(|| {
        fs::create_dir_all(Path::new(DEFAULT_OBJECT).parent().unwrap()).unwrap();
        fs::write(DEFAULT_OBJECT, object).unwrap();
    });
}
