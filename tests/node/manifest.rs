//! The mounter's container as static-pods/mounter.yaml makes it, of the image as Containerfile makes that: the root is read-only,
//! and nothing of the node is there but the state directory and the configuration.
//!
//! Runs in the tests' process, as root.

use super::programs::show_programs;
use super::{Place, TestNode, preloaded};
use hostmount::engine::preload::DEFAULT_OBJECT;
use std::fs;
use std::io;
use std::path::Path;
use testbed::machine::Recipe;

/// Where config.toml is. It is writable for the test.
pub const CONFIGURATION: &str = "/etc/hostmount";

/// The recipe for [`container`], to which a test may add.
pub fn recipe() -> Recipe {
    let recipe = show_programs(Recipe::userland(), "/usr/local/bin").fuse().read_only();
    recipe.share("socket", "/run/hostmount").writable([CONFIGURATION])
}

/// Such a container. `setup` runs while its root is still writable, as the image is made.
pub fn container(test: &TestNode, recipe: Recipe, setup: impl FnOnce() -> io::Result<()> + Send + 'static) -> Place {
    let object = fs::read(&*preloaded::OBJECT).unwrap();
    test.room(recipe.setup(move || {
        fs::create_dir_all(Path::new(DEFAULT_OBJECT).parent().unwrap())?;
        fs::write(DEFAULT_OBJECT, object)?;
        fs::write("/etc/ld.so.preload", "")?;
        setup()
    }))
}
