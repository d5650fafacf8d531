//! Why a helper has failed, as far as can be known: the line of its words that names the cause, or the server that it waits for.
//!
//! Runs in the mounter, on the volume's own thread. Callers show the beginning of a message and may cut its end, so that line goes to the
//! beginning. Which one it is can only be guessed: all of its words follow.

use crate::engine::helper_processes::HelperProcesses;
use linux::processes::Process;
use linux::sockets::{Contact, Peer, peers};

/// How many characters of a line are shown.
const LINE: usize = 300;

/// What names a cause.
const CAUSES: [&str; 36] = [
    "access denied",
    "bad request",
    "cannot connect",
    "can't connect",
    "certificate",
    "could not authenticate",
    "could not connect",
    "didn't find",
    "does not exist",
    "doesn't exist",
    "doesn't look like",
    "expired",
    "forbidden",
    "incorrect",
    "invalid ",
    "mismatch",
    "name resolution",
    "name or service not known",
    "network is unreachable",
    "no route",
    "no space",
    "no such",
    "not exist",
    "not found",
    "not permitted",
    "not readable",
    "not supported",
    "permission denied",
    "refused",
    "resolution failed",
    "resolve",
    "timed out",
    "unable to connect",
    "unauthorized",
    "verification failed",
    "wrong",
];

/// What only says that something failed.
const TROUBLE: [&str; 12] = [
    "abort",
    "cannot",
    "can't",
    "could not",
    "denied",
    "disconnected",
    "error",
    "failed",
    "failure",
    "fatal",
    "invalid",
    "unable",
];

/// What a program says by the way, or when it tidies up.
const ASIDES: [&str; 6] = [" NOTICE: ", " INFO: ", " DEBUG: ", " using defaults", "Usage: ", "unmount"];

/// Whether a line speaks of trouble at all. The level that a program gives a line says less: GlusterFS writes that it has no
/// connection as information.
pub fn speaks_of_trouble(line: &str) -> bool {
    telling(line) > 0
}

/// The line that names the cause: of those that tell most, the last. Of lines that tell nothing, the last one.
pub fn telling_line(lines: &[String]) -> Option<String> {
    let line = lines
        .iter()
        .map(|line| undated(line.trim()))
        .filter(|line| !line.is_empty())
        .max_by_key(|line| telling(line))?;
    let mut shown: String = line.chars().take(LINE).collect();
    if shown.len() < line.len() {
        shown.push('…');
    }
    Some(shown)
}

fn telling(line: &str) -> u8 {
    if ASIDES.iter().any(|aside| line.contains(aside)) {
        return 0;
    }
    let line = line.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| line.contains(word));
    2 * u8::from(has(&CAUSES)) + u8::from(has(&TROUBLE))
}

/// A line without the time that it begins with: kubelet counts events as one as long as their words are the same.
fn undated(line: &str) -> &str {
    let time = |c: char| c.is_ascii_digit() || " /-:.+".contains(c);
    let year = |text: &str| {
        let mut bytes = text.bytes();
        bytes.by_ref().take(4).filter(u8::is_ascii_digit).count() == 4 && matches!(bytes.next(), Some(b'-' | b'/'))
    };
    match line.strip_prefix('[').and_then(|inside| inside.split_once("] ")) {
        Some((inside, rest)) if year(inside) && inside.chars().all(time) => rest,
        _ if year(line) => line.trim_start_matches(time),
        _ => line,
    }
}

/// What a helper that is not ready is waiting for, by its sockets.
pub fn waits_for(helper: &HelperProcesses) -> Option<String> {
    let processes: Vec<Process> = helper.list().ok()?.into_iter().map(|(process, _)| process).collect();
    in_words(&peers(&processes))
}

fn in_words(peers: &[Peer]) -> Option<String> {
    let of = |contact| {
        let of = peers.iter().filter(|peer| peer.contact == contact).map(|peer| peer.address.to_string());
        Some(of.collect::<Vec<_>>().join(", ")).filter(|addresses| !addresses.is_empty())
    };
    if let Some(addresses) = of(Contact::Connecting) {
        return Some(format!("it is trying to connect to {addresses}, which does not answer"));
    }
    if let Some(addresses) = of(Contact::Datagrams) {
        return Some(format!("it has sent to {addresses} (UDP) and waits for an answer"));
    }
    of(Contact::Connected).map(|addresses| format!("it is connected to {addresses} and waits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str]) -> Option<String> {
        telling_line(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_line_that_names_the_cause_is_found() {
        for (lines, telling) in [
            (
                &["ssh: connect to host h port 22: Connection refused", "read: Connection reset by peer"][..],
                "ssh: connect to host h port 22: Connection refused",
            ),
            (
                &[
                    "No ED25519 host key is known for [h]:22",
                    "Host key verification failed.",
                    "read: Connection reset by peer",
                ],
                "Host key verification failed.",
            ),
            (
                &[
                    "Mounting glusterfs on /t failed.",
                    "[2026-11-29 11:47:21.3 +0000] E [a.c:1:f] 0-mgmt: failed to fetch volume file (key:/v)",
                    "[2026-11-29 11:47:21.4 +0000] E [b.c:2:g] 0-fuse: fuse: failed to unmount /t: Invalid argument",
                ],
                "E [a.c:1:f] 0-mgmt: failed to fetch volume file (key:/v)",
            ),
            (
                &[
                    "2026/11/29 11:46:47 NOTICE: Config file \"/root/rclone.conf\" not found - using defaults",
                    "2026/11/29 11:46:47 Failed to create file system for \"x:\": didn't find section in config file",
                ],
                "Failed to create file system for \"x:\": didn't find section in config file",
            ),
            (
                &[
                    "s3fs[9]: f(1): Failed to connect by sigv4, so retry to connect by signature version 2.",
                    "s3fs[9]: f(2): Bad Request(host=http://h) - result of checking service.",
                ],
                "s3fs[9]: f(2): Bad Request(host=http://h) - result of checking service.",
            ),
            (
                &["s3fs[9]: f(3): unable to connect(host=http://h)", "s3fs[9]: init v1.90(commit:unknown)"],
                "s3fs[9]: f(3): unable to connect(host=http://h)",
            ),
            (
                &[
                    "mount.rclone[3]: Failed to create: didn't find section",
                    "rclone[3]: Config file not found - using defaults",
                ],
                "mount.rclone[3]: Failed to create: didn't find section",
            ),
            (&["one", "two", " "], "two"),
            (&["2026 is a year", "[2026] too"], "[2026] too"),
        ] {
            assert_eq!(of(lines).as_deref(), Some(telling));
        }
        assert_eq!(of(&["", " "]), None);
        assert_eq!(of(&[&"é".repeat(5000)]).unwrap().chars().count(), LINE + 1);
    }

    #[test]
    fn what_it_waits_for_is_the_first_that_did_not_answer() {
        let peer = |contact, address: &str| Peer { contact, address: address.parse().unwrap() };
        let name_server = peer(Contact::Datagrams, "10.0.0.10:53");
        let connected = peer(Contact::Connected, "10.0.0.1:22");
        let words = |peers: &[Peer]| in_words(peers).unwrap_or_default();
        assert_eq!(words(&[name_server, connected]), "it has sent to 10.0.0.10:53 (UDP) and waits for an answer");
        assert_eq!(words(&[connected]), "it is connected to 10.0.0.1:22 and waits");
        let connecting = ["10.1.0.1:22", "[2001:db8::1]:22"].map(|address| peer(Contact::Connecting, address));
        assert_eq!(
            words(&[connecting[0], connecting[1], connected]),
            "it is trying to connect to 10.1.0.1:22, [2001:db8::1]:22, which does not answer"
        );
        assert_eq!(words(&[]), "");
    }
}
