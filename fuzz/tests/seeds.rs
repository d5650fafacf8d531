//! What must hold for any bytes holds for the seeds: inputs of every kind, and what fuzzers have found.

use hostmount_fuzz::targets::ALL;
use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

#[test]
fn the_seeds_of_all_targets_hold() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mut broken = Vec::new();
    for (name, check) in ALL {
        let mut files = 0;
        for file in fs::read_dir(seeds.join(name)).unwrap_or_else(|error| panic!("{name}: {error}")) {
            let file = file.unwrap().path();
            let bytes = fs::read(&file).unwrap();
            files += 1;
            if catch_unwind(|| check(&bytes)).is_err() {
                broken.push(file);
            }
        }
        assert!(files >= 5, "{name} has hardly any seeds");
    }
    assert!(broken.is_empty(), "these do not hold: {broken:#?}");
}

#[test]
fn every_target_has_seeds_and_a_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = |directory: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(root.join(directory)).unwrap();
        entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let all: BTreeSet<String> = ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("targets"), all);
    assert_eq!(names("seeds"), all);
}
