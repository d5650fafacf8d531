//! The datagrams on the preload engine's socket, which every process in a helper's mount namespace can write.

use hostmount::engine::preload::message::{Call, HEADER, LIMIT, LONGEST, Operation, header, parse};
use std::ffi::CStr;

/// One datagram; and the same bytes behind a header that is right.
pub fn check(bytes: &[u8]) {
    check_call(bytes);
    for operation in [Operation::Mount, Operation::Unmount] {
        check_call(&[&header(operation, 0x6), bytes].concat());
    }
}

fn check_call(bytes: &[u8]) {
    let Some(call) = parse(bytes) else { return };
    assert!(bytes.len() <= LIMIT && bytes.len() >= HEADER + 3);
    let strings = [call.source, call.fstype, call.data];
    assert!(strings.iter().all(|string| string.count_bytes() < LONGEST), "{call:?}");
    assert_eq!(written(&call), bytes, "there is nothing else in it");
    assert_eq!(parse(&bytes[..bytes.len() - 1]), None, "it is whole or nothing");
    assert_eq!(parse(&[bytes, b"\0"].concat()), None, "nothing follows");
}

fn written(call: &Call<'_>) -> Vec<u8> {
    let strings = [call.source, call.fstype, call.data].map(CStr::to_bytes_with_nul).concat();
    [&header(call.operation, call.flags)[..], &strings].concat()
}
