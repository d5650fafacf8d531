//! Sockets: other families, other processes.

use super::sys::{address, call, place};
use super::{Attempts, BYSTANDERS_SOCKET};
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

pub(super) fn list(attempts: &mut Attempts) {
    const SURFACE: &str = "parts of the kernel in which faults are found again and again";
    const NETWORK: &str = "the node's network";
    let (stream, datagram, raw) = (1_u64, 2_u64, 3_u64);
    for (name, gives, family, kind, protocol) in [
        ("packets of an interface", NETWORK, 17, raw, 0x0300),
        ("IP packets", NETWORK, 2, raw, 1),
        ("IPv6 packets", NETWORK, 10, raw, 58),
        ("the hypervisor's (vsock)", "services of the machine below", 40, stream, 0),
        ("the kernel's ciphers (AF_ALG)", SURFACE, 38, 5, 0),
        ("TIPC", SURFACE, 30, stream, 0),
        ("RDS", SURFACE, 21, 5, 0),
        ("CAN", SURFACE, 29, raw, 1),
        ("Bluetooth", SURFACE, 31, raw, 1),
        ("keys of IPsec", NETWORK, 15, raw, 2),
        ("XDP", NETWORK, 44, raw, 0),
        ("SMC", SURFACE, 43, stream, 0),
        ("QIPCRTR", SURFACE, 42, datagram, 0),
        ("PPP over what not", SURFACE, 24, stream, 0),
        ("AX.25", SURFACE, 3, datagram, 0),
        ("NFC", SURFACE, 39, stream, 0),
        ("LLC", SURFACE, 26, stream, 0),
        ("phonet", SURFACE, 35, datagram, 0),
        ("MCTP", SURFACE, 45, datagram, 0),
        ("SCTP", SURFACE, 2, stream, 132),
        ("SCTP, by its type alone", SURFACE, 10, 5, 0),
        ("DCCP", SURFACE, 2, 6, 33),
        ("DCCP, by its type alone", SURFACE, 10, 6, 0),
        ("UDP-Lite", SURFACE, 2, datagram, 136),
        ("L2TP", SURFACE, 2, datagram, 115),
        ("MPTCP", "nothing that TCP does not", 2, stream, 262),
        ("netlink: routes", "to see the node's addresses and routes", 16, raw, 0),
        ("netlink: sockets", "to see who is connected", 16, raw, 4),
        ("netlink: audit", "the node's audit log", 16, raw, 9),
        ("netlink: uevents", "to see devices come and go", 16, raw, 15),
        ("netlink: netfilter", NETWORK, 16, raw, 12),
        ("netlink: SELinux", "to see the policy change", 16, raw, 7),
        ("netlink: generic", SURFACE, 16, raw, 16),
        ("netlink: ciphers", SURFACE, 16, raw, 21),
    ] {
        attempts.call(format!("a socket for {name}"), gives, libc::SYS_socket, &[family, kind, protocol]);
    }
    attempts.add("a pair of sockets for TIPC", SURFACE, move |_| {
        let mut pair = [0_i32; 2];
        Ok(call(libc::SYS_socketpair, &[30, stream, 0, place(&mut pair)]).map(drop)?)
    });
    attempts.add("add a route to the node", NETWORK, |_| {
        let socket = call(libc::SYS_socket, &[16, 3, 0])?.cast_unsigned();
        // struct nlmsghdr (RTM_NEWLINK, request and acknowledge) and ifinfomsg: a dummy interface.
        let mut message = [0_u8; 48];
        message[..4].copy_from_slice(&48_u32.to_ne_bytes());
        message[4..8].copy_from_slice(&(16_u32 | 0x605 << 16).to_ne_bytes());
        message[32..36].copy_from_slice(&(16_u32 | 18 << 16).to_ne_bytes());
        message[36..40].copy_from_slice(&(10_u32 | 1 << 16).to_ne_bytes());
        message[40..45].copy_from_slice(b"dummy");
        let at = address(&message);
        call(libc::SYS_sendto, &[socket, at, 48, 0, 0, 0])?;
        let mut answer = [0_u8; 128];
        call(libc::SYS_recvfrom, &[socket, place(&mut answer), 128, 0, 0, 0])?;
        let errno = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
        if errno < 0 { Err(rustix::io::Errno::from_raw_os_error(-errno).into()) } else { Ok(()) }
    });
    attempts.add("listen on a privileged port of the node", "calls for others' services", |_| {
        Ok(TcpListener::bind("0.0.0.0:80").map(drop)?)
    });
    attempts.add("listen on a port of the node", "nothing that a process of the node's network has not", |_| {
        Ok(TcpListener::bind("0.0.0.0:0").map(drop)?)
    });
    attempts.add("send a datagram to the node's loopback", "services that listen there", |_| {
        Ok(UdpSocket::bind("127.0.0.1:0")?.send_to(b"x", "127.0.0.1:9").map(drop)?)
    });
    attempts.add("connect to an abstract socket of the node's", "services that listen there", |_| {
        let address = SocketAddr::from_abstract_name(BYSTANDERS_SOCKET)?;
        Ok(UnixStream::connect_addr(&address).map(drop)?)
    });
    for path in [
        "/run/hostmount/hostmount.sock",
        "/run/hostmount/kubelet.sock",
        "/run/hostmount/flexvolume.sock",
        "/run/hostmount-csi/mounter.sock",
        "/run/containerd/containerd.sock",
        "/run/crio/crio.sock",
        "/run/docker.sock",
        "/run/dbus/system_bus_socket",
        "/run/systemd/private",
        "/run/systemd/notify",
        "/var/lib/kubelet/pod-resources/kubelet.sock",
        "/var/lib/kubelet/device-plugins/kubelet.sock",
    ] {
        attempts.add(format!("connect to {path}"), "everything", move |_| Ok(UnixStream::connect(path).map(drop)?));
    }
}
