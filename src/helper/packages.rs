//! The packages that helpers are from, and their versions, where Debian's packages made the container.
//!
//! Runs in the mounter and in `hostmount doctor`, in the container; it reads files. No helper is run: what one does with `--version` is not known.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// Debian's record of its packages.
const DPKG: &str = "/var/lib/dpkg";

/// The packages of these files of the container, and their versions: `sshfs 3.7.3-1.1`.
pub fn versions<'a>(files: &[&'a Path]) -> HashMap<&'a Path, String> {
    versions_in(Path::new(DPKG), files)
}

fn versions_in<'a>(dpkg: &Path, files: &[&'a Path]) -> HashMap<&'a Path, String> {
    // A merged /usr has what the lists have in /bin.
    let names = |file: &Path| {
        let name = file.to_string_lossy().into_owned();
        let unmerged = name.strip_prefix("/usr").map(str::to_owned);
        std::iter::once(name).chain(unmerged)
    };
    let mut wanted: HashMap<String, Vec<&Path>> = HashMap::new();
    files.iter().for_each(|file| names(file).for_each(|name| wanted.entry(name).or_default().push(file)));
    let status = fs::read_to_string(dpkg.join("status")).unwrap_or_default();
    let version = |package: &str| {
        let begins = |paragraph: &&str| paragraph.lines().next() == Some(&format!("Package: {package}"));
        let paragraph = status.split("\n\n").find(begins)?;
        paragraph.lines().find_map(|line| line.strip_prefix("Version: "))
    };
    let mut found = HashMap::new();
    for list in fs::read_dir(dpkg.join("info")).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let name = list.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(package) = name.strip_suffix(".list").and_then(|name| name.split(':').next()) else { continue };
        for file in fs::read_to_string(&list).unwrap_or_default().lines() {
            for wanted in wanted.get(file).into_iter().flatten() {
                if let Some(version) = version(package) {
                    found.insert(*wanted, format!("{package} {version}"));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_package_has_a_version() {
        let dpkg = std::env::temp_dir().join(format!("hostmount-dpkg-{}", std::process::id()));
        fs::create_dir_all(dpkg.join("info")).unwrap();
        fs::write(dpkg.join("status"), "Package: sshfs-x\nVersion: 9\n\nPackage: sshfs\nStatus: x\nVersion: 3.7-1\n")
            .unwrap();
        fs::write(dpkg.join("info/sshfs:amd64.list"), "/.\n/bin\n/bin/sshfs\n").unwrap();
        let files = [Path::new("/usr/bin/sshfs"), Path::new("/opt/mine")];
        let found = versions_in(&dpkg, &files);
        assert_eq!(found, HashMap::from([(files[0], "sshfs 3.7-1".to_owned())]));
        fs::remove_dir_all(dpkg).unwrap();
    }
}
