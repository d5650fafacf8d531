//! Whom processes talk to over the network, as /proc shows it: the addresses at the other ends of their sockets.
//!
//! Runs in the mounter, as root. It sends nothing, asks no name server, and how much it reads has a bound: a process may have any number of
//! descriptors, and a node any number of sockets.

use crate::processes::Process;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How many descriptors of all the processes are looked at.
const DESCRIPTORS: usize = 4096;
/// How much of a table of sockets is read: some hundred thousand of them.
const TABLE: u64 = 32 << 20;
/// How many addresses are of interest.
const PEERS: usize = 8;

/// The states of tcp(7) that matter here, as the kernel numbers them.
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;

/// What a socket has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contact {
    /// TCP: the other end has not answered yet.
    Connecting,
    /// UDP: packets go to this address, and whether any comes back is not known.
    Datagrams,
    /// TCP: connected.
    Connected,
}

/// The other end of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// How far it has come.
    pub contact: Contact,
    /// Its address.
    pub address: SocketAddr,
}

/// The other ends of the sockets that processes of one network namespace have, those first that have not answered; each once.
pub fn peers(processes: &[Process]) -> Vec<Peer> {
    let inodes: HashSet<u64> = processes.iter().flat_map(descriptors).take(DESCRIPTORS).flatten().collect();
    let Some(process) = processes.first().filter(|_| !inodes.is_empty()) else { return Vec::new() };
    let mut found = Vec::new();
    for (table, datagrams) in [("net/tcp", false), ("net/tcp6", false), ("net/udp", true), ("net/udp6", true)] {
        // A kernel without IPv6 has no table of it.
        let Ok(file) = File::open(process.file(table)) else { continue };
        let lines = BufReader::new(file.take(TABLE)).lines().map_while(Result::ok);
        let ours = lines.filter_map(|line| entry(&line, datagrams)).filter(|(inode, _)| inodes.contains(inode));
        found.extend(ours.map(|(_, peer)| peer));
    }
    found.sort_unstable();
    found.dedup();
    found.truncate(PEERS);
    found
}

/// For each descriptor of a process the inode of its socket, if it is one.
fn descriptors(process: &Process) -> impl Iterator<Item = Option<u64>> {
    let descriptors = fs::read_dir(process.file("fd")).into_iter().flatten().flatten();
    descriptors.map(|descriptor| {
        let leads_to = fs::read_link(descriptor.path()).ok()?;
        leads_to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}

/// The inode and the other end of one line of a table, if it has another end.
fn entry(line: &str, datagrams: bool) -> Option<(u64, Peer)> {
    let mut fields = line.split_ascii_whitespace();
    let address = address(fields.nth(2)?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let contact = match (state, datagrams) {
        (ESTABLISHED, true) => Contact::Datagrams,
        (ESTABLISHED, false) => Contact::Connected,
        (SYN_SENT, false) => Contact::Connecting,
        _ => return None,
    };
    let inode = fields.nth(5)?.parse().ok()?;
    Some((inode, Peer { contact, address }))
}

/// An address as these tables have it: words of 32 bits as they are in memory, in network order there, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = address.get(8 * at..8 * at + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (at, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::OWN;
    use proptest::prelude::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::path::Path;

    #[test]
    fn what_this_process_talks_to() {
        let this = [Process::at(Path::new(OWN), rustix::process::getpid())];
        let of = |address| peers(&this).into_iter().find(|peer| peer.address == address).map(|peer| peer.contact);
        for local in ["127.0.0.1:0", "[::1]:0"] {
            // Without IPv6 there is no such address.
            let Ok(listener) = TcpListener::bind(local) else { continue };
            let address = listener.local_addr().unwrap();
            assert_eq!(of(address), None, "one that listens has no other end");
            let stream = TcpStream::connect(address).unwrap();
            assert_eq!(of(address), Some(Contact::Connected));
            drop(stream);
            let socket = UdpSocket::bind(local).unwrap();
            socket.connect(address).unwrap();
            assert_eq!(of(address), Some(Contact::Datagrams));
        }
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn one_that_waits_for_an_answer() {
        let line = "  15: 020A4E0A:B3C4 010A4E0A:08AE 02 00000001:00000000 01:00000064 00000001  1000        0 987654 2 00 100 0 0 10 -1";
        let peer = Peer { contact: Contact::Connecting, address: "10.78.10.1:2222".parse().unwrap() };
        assert_eq!(entry(line, false), Some((987_654, peer)));
        assert_eq!(entry(line, true), None);
        let six = line.replace("010A4E0A:", "B80D01200000000000000000010000 00:".replace(' ', "").as_str());
        assert_eq!(entry(&six, false).unwrap().1.address, "[2001:db8::1]:2222".parse().unwrap());
        let mapped = line.replace("010A4E0A:", "0000000000000000FFFF0000010A4E0A:");
        assert_eq!(entry(&mapped, false), Some((987_654, peer)));
        assert_eq!(entry("  sl  local_address rem_address   st tx_queue", false), None);
    }

    proptest! {
        #[test]
        fn any_line_can_be_read(line in any::<String>(), fields in prop::collection::vec("[0-9A-Fé:]{0,40}", 0..14)) {
            let _ = entry(&line, false);
            let _ = entry(&fields.join(" "), true);
        }
    }
}
