//! The helpers in the container, and the versions of their packages.
//!
//! Runs in the container; it reads files. No helper is run: what one does with `--version` is not known.

use super::finding::Trial;
use crate::config::Config;
use crate::helper::find;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// Debian's record of its packages.
const DPKG: &str = "/var/lib/dpkg";

/// Each type and its program, with its package's version where there is one.
pub(super) fn types(config: &Config) -> Trial {
    let configured: Vec<&str> = config.types_with_command().collect();
    let mut found = Vec::new();
    for fstype in find::types().iter().map(String::as_str).filter(|fstype| !configured.contains(fstype)) {
        found.push((fstype.to_owned(), Ok(find::helper(fstype, "", config.settings_of(fstype))?.path), ""));
    }
    for fstype in configured {
        let program = find::helper(fstype, "", config.settings_of(fstype)).map(|program| program.path);
        found.push((fstype.to_owned(), program, " (configured)"));
    }
    let paths: Vec<&Path> = found.iter().filter_map(|(_, path, _)| path.as_deref().ok()).collect();
    let versions = versions(Path::new(DPKG), &paths);
    let line = |(fstype, program, note): &(String, Result<std::path::PathBuf, find::NoHelper>, &str)| match program {
        Ok(path) => {
            let version = versions.get(path.as_path()).map(|version| format!("  {version}")).unwrap_or_default();
            format!("{fstype:<24}{}{note}{version}", path.display())
        }
        Err(error) => format!("{fstype:<24}not served: {error}"),
    };
    let lines: Vec<_> = found.iter().map(line).collect();
    if lines.is_empty() { Err("there is no helper in this container".into()) } else { Ok(lines.join("\n")) }
}

/// The packages of these files, and their versions: `sshfs 3.7.3-1.1`.
fn versions<'a>(dpkg: &Path, files: &[&'a Path]) -> HashMap<&'a Path, String> {
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
        let found = versions(&dpkg, &files);
        assert_eq!(found, HashMap::from([(files[0], "sshfs 3.7-1".to_owned())]));
        fs::remove_dir_all(dpkg).unwrap();
    }
}
