//! The programs under test: the one that cargo has built for this test, and the other packages' programs, built the
//! same way.
//!
//! Runs in the tests' process; cargo does the work, and does none if they are there already. Where there is no cargo
//! (a machine that the tests were copied to) `HOSTMOUNT_TESTS_BUILT` says that all of it is there.

use super::Place;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use testbed::machine::Recipe;

/// `hostmount`. In tests of another package it is beside that package's program, once it is [`built`].
pub const HOSTMOUNT: &str = match option_env!("CARGO_BIN_EXE_hostmount") {
    Some(path) => path,
    None => match option_env!("CARGO_BIN_EXE_hostmount-csi") {
        // The same but for its last four letters.
        Some(path) => path.split_at(path.len() - "-csi".len()).0,
        None => panic!("these are tests of a package that has a program"),
    },
};

/// Sees to it that it is there.
static MADE: LazyLock<()> = LazyLock::new(|| {
    if option_env!("CARGO_BIN_EXE_hostmount").is_none() {
        built("hostmount", "hostmount");
    }
});

/// `hostmount-shim`: what the node runs as `mount` and `umount`. What is measured is the one that is shipped.
pub static SHIM: LazyLock<PathBuf> =
    LazyLock::new(|| if is_release() { SHIPPED_SHIM.clone() } else { built("hostmount-shims", "hostmount-shim") });

/// The same as it is shipped.
pub static SHIPPED_SHIM: LazyLock<PathBuf> = LazyLock::new(|| made("shims", "shim/hostmount-shim"));

/// `hostmount-csi`, which the image has as well.
pub static CSI: LazyLock<PathBuf> = LazyLock::new(|| built("hostmount-csi", "hostmount-csi"));

/// `hostmount-pod`: what a FUSE program in a pod has beside it.
pub static POD: LazyLock<PathBuf> = LazyLock::new(|| built("hostmount-pod", "hostmount-pod"));

/// `kubectl-hostmount`, which an administrator's machine has.
pub static KUBECTL: LazyLock<PathBuf> = LazyLock::new(|| built("hostmount-kubectl", "kubectl-hostmount"));

/// `hostmount-pod` as it is shipped.
pub static SMALL_POD: LazyLock<PathBuf> = LazyLock::new(|| made("pod", "pod/hostmount-pod"));

/// `testbed`, which is the helper `mount.memfs` when it is called so.
pub static TESTBED: LazyLock<PathBuf> = LazyLock::new(|| built("hostmount-testbed", "testbed"));

/// The target directory of cargo: HOSTMOUNT is TARGET-DIRECTORY/TRIPLE/PROFILE/hostmount.
pub fn target_directory() -> &'static Path {
    Path::new(HOSTMOUNT).ancestors().nth(3).unwrap()
}

fn is_release() -> bool {
    Path::new(HOSTMOUNT).parent().unwrap().ends_with("release")
}

/// Puts the program that is shipped on a node, in a directory of its own, under all its names; returns the directory.
pub fn show_shipped(node: &Place) -> &'static str {
    const DIRECTORY: &str = "/opt/hostmount/shipped";
    node.sh_ok(&format!("mkdir {DIRECTORY}"));
    let program = std::fs::read(&*SHIPPED_SHIM).unwrap();
    for name in ["mount", "umount", "fuse"] {
        node.program(&format!("{DIRECTORY}/{name}"), &program);
    }
    DIRECTORY
}

/// By make: what is to be made, and where that is then, below TARGET-DIRECTORY/TRIPLE.
fn made(what: &str, program: &str) -> PathBuf {
    let mut make = Command::new("make");
    // Of the project's directory: this file is part of csi/'s tests too.
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|at| at.join("Makefile").is_file()).unwrap();
    make.arg("-C").arg(project).args([what, concat!("CARGO=", env!("CARGO"))]);
    build(&mut make);
    Path::new(HOSTMOUNT).ancestors().nth(2).unwrap().join(program)
}

fn built(package: &str, program: &str) -> PathBuf {
    let beside = Path::new(HOSTMOUNT).with_file_name(program);
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--package", package]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if is_release() {
        cargo.arg("--release");
    }
    build(&mut cargo);
    beside
}

/// Runs cargo, or a make that runs it, unless everything is built.
pub(super) fn build(command: &mut Command) {
    if std::env::var_os("HOSTMOUNT_TESTS_BUILT").is_some() {
        return;
    }
    // What cargo has given to this program is about its package: crates whose build depends on it (ring) would be built again.
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_a_package(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    let made = command.env("CARGO_TARGET_DIR", target_directory()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn is_of_a_package(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_"].iter().any(|begin| variable.starts_with(begin))
}

/// Shows hostmount's programs in a directory of a room.
pub fn show_programs(recipe: Recipe, directory: &str) -> Recipe {
    LazyLock::force(&MADE);
    recipe.bind(HOSTMOUNT, format!("{directory}/hostmount")).bind(&*SHIM, format!("{directory}/hostmount-shim"))
}
