//! `doctor --support FILE`: one file to attach to a report, without secrets.
//!
//! Runs in the container; it asks the mounter, and reads files. What helpers wrote and what sources are called is looked through for secrets;
//! of config.toml only values that can be none are in it.

use super::finding::Found;
use crate::cli::Complaint;
use crate::cli::show;
use crate::cli::show::document::{Detail, Event, Volume};
use crate::config::Config;
use crate::policy::{line_without_secrets, source_without_secrets, without_secrets};
use api::client::Client;
use api::exit::Exit;
use api::options::MountOptions;
use api::volume::VolumeDetail;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use tar::{Builder, Header};
use toml::Value;

/// Of how many volumes all is told.
const VOLUMES: usize = 200;
/// How much of a file of the kernel's.
const LONGEST: usize = 1 << 20;
const DIRECTORY: &str = "hostmount-support";

const ABOUT: &str = "\
What hostmount doctor --support has found. Secrets are left out as far as they can be known: passwords in URLs, values of options and in
lines of helpers whose names tell (pass, secret, token, key, cred, auth, sas, cookie), and in config.toml all that goes into helpers' files,
environment and standard input. Read it before you send it: names of pods, volumes, servers and paths are in it.
";

/// What is in a report: its name, and its text.
type Entry = (String, String);

/// Writes the file.
pub(super) fn write(
    file: &Path,
    client: &Client,
    findings: &[Found],
    config: &Path,
    host_proc: &Path,
) -> Result<(), Complaint> {
    let mut entries = vec![("README".to_owned(), ABOUT.to_owned()), ("doctor.json".to_owned(), show::json(&findings))];
    entries.extend(of_mounter(client));
    entries.push(("config.toml".to_owned(), of_config(config)));
    entries.extend(of_node(host_proc));
    let failed = |error: io::Error| {
        Complaint::new(Exit::System, format!("cannot write the report to {}: {error}", file.display()))
    };
    if file == Path::new("-") {
        let mut bytes = Vec::new();
        archive(&mut bytes, &entries).map_err(failed)?;
        linux::standard::put_bytes(&bytes);
        return Ok(());
    }
    let create = || File::options().write(true).create_new(true).mode(0o600).open(file);
    create().and_then(|file| archive(file, &entries)).map_err(failed)?;
    linux::say!("{}: {} files; read README in it first", file.display(), entries.len());
    Ok(())
}

fn archive(output: impl Write, entries: &[Entry]) -> io::Result<()> {
    let mut archive = Builder::new(output);
    for (name, text) in entries {
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(show::words::now());
        archive.append_data(&mut header, format!("{DIRECTORY}/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.flush()
}

/// What the mounter says; of what it does not answer, why.
fn of_mounter(client: &Client) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut add = |name: &str, text: Result<String, api::client::CallError>| {
        entries.push((name.to_owned(), text.unwrap_or_else(|error| error.into_failure().message + "\n")));
    };
    add("about.json", client.about().map(|about| show::json(&about)));
    let volumes = client.list();
    let targets: Vec<_> = volumes.iter().flatten().take(VOLUMES).map(|volume| volume.target.clone()).collect();
    add("volumes.json", volumes.map(|volumes| show::json(&volumes.iter().map(Volume::from).collect::<Vec<_>>())));
    for (number, target) in targets.iter().enumerate() {
        let detail = client.status(target).map(detail);
        add(&format!("volumes/{number}.json"), detail.map(|detail| show::json(&Detail::from(&detail))));
    }
    let events = client.events(0).map(|mut events| {
        events.events.iter_mut().for_each(|event| event.message = line_without_secrets(&event.message));
        show::json(&events.events.iter().map(Event::from).collect::<Vec<_>>())
    });
    add("events.json", events);
    add("policy.toml", client.policy());
    add("metrics.txt", client.metrics());
    entries
}

fn detail(detail: VolumeDetail) -> VolumeDetail {
    let lines = detail.lines.iter().map(|line| line_without_secrets(line)).collect();
    VolumeDetail { lines, ..detail }
}

/// The configuration without what may be a secret, or why it is not understood.
fn of_config(path: &Path) -> String {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return format!("# {}: {error}\n", path.display()),
    };
    // Its words may be in the error: no line of the file is shown then.
    let understood = Config::parse(&text, path).is_ok();
    match text.parse::<toml::Table>() {
        Ok(table) if understood => toml::to_string_pretty(&masked("", Value::Table(table))).unwrap_or_default(),
        _ => "# it is not valid: see the finding 'configuration'\n".to_owned(),
    }
}

fn masked(key: &str, value: Value) -> Value {
    match (key, value) {
        ("environment" | "stdin" | "content" | "command", value) => hidden(value),
        ("default_options" | "forced_options", Value::String(text)) => MountOptions::parse(&text)
            .map_or_else(|_| "***".into(), |options| without_secrets(&options).to_string().into()),
        (_, Value::Table(table)) => {
            Value::Table(table.into_iter().map(|(key, value)| (key.clone(), masked(&key, value))).collect())
        }
        (key, Value::Array(values)) => Value::Array(values.into_iter().map(|value| masked(key, value)).collect()),
        (_, Value::String(text)) => Value::String(source_without_secrets(&text)),
        (_, value) => value,
    }
}

/// The names stay, and the values go.
fn hidden(value: Value) -> Value {
    match value {
        Value::Table(table) => Value::Table(table.into_iter().map(|(key, value)| (key, hidden(value))).collect()),
        Value::Array(values) => Value::Array(values.into_iter().map(hidden).collect()),
        _ => "***".into(),
    }
}

/// What the kernel says.
fn of_node(host_proc: &Path) -> Vec<Entry> {
    let own = ["version", "cmdline", "self/status", "self/cgroup", "self/attr/current", "filesystems", "meminfo"];
    let own = own.iter().map(|name| (format!("proc/{name}"), Path::new("/proc").join(name)));
    let files = own.chain([
        ("sys/lsm".to_owned(), "/sys/kernel/security/lsm".into()),
        ("sys/cgroup.controllers".to_owned(), "/sys/fs/cgroup/cgroup.controllers".into()),
    ]);
    let read = |path: &Path| match fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST)]).into_owned();
            text.lines().map(|line| line_without_secrets(line) + "\n").collect()
        }
        Err(error) => format!("{error}\n"),
    };
    let mut entries: Vec<Entry> = files.map(|(name, path)| (name, read(&path))).collect();
    // Other mounts may hold what is nobody's business.
    let table = read(&host_proc.join("1/mountinfo"));
    let fuse = table.lines().filter(|line| line.contains(" - fuse")).map(|line| format!("{line}\n")).collect();
    entries.push(("proc/1/mountinfo".to_owned(), fuse));
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_configuration_no_secret_is_left() {
        let file = std::env::temp_dir().join(format!("hostmount-support-{}.toml", std::process::id()));
        let text = "heal = true\n[filesystem.x]\nenvironment = { A = 'hunter1' }\nstdin = 'hunter2'\n\
                    command = ['/x', '--password', 'hunter3', '{source}', '{target}', '{options}']\nfiles.f = { content = 'hunter4', option = 'o' }\n\
                    default_options = 'ro,password=hunter5'\nforced_options = 'url=https://me:hunter6@h'\n\
                    [policy.csi.filesystem.x]\nsources = ['https://me:hunter7@h/**']\n";
        fs::write(&file, text).unwrap();
        let shown = of_config(&file);
        assert!(!shown.contains("hunter"), "{shown}");
        for words in ["heal = true", "A = \"***\"", "option = \"o\"", "ro,password=***"] {
            assert!(shown.contains(words), "{words}: {shown}");
        }
        fs::write(&file, "heal = hunter2").unwrap();
        assert!(!of_config(&file).contains("hunter"));
        fs::remove_file(&file).unwrap();
    }
}
