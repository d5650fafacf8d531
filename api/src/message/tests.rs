use super::*;
use proptest::prelude::*;

/// A caller that the mounter refuses before it has received the call still gets the message.
#[test]
fn a_failure_answers_every_call() {
    let refused: Reply<()> = Err(Failure::new(Exit::Usage, "no"));
    let mut bytes = Vec::new();
    send(&mut bytes, &refused).unwrap();
    assert_eq!(receive::<Reply<Mounted>>(&mut bytes.as_slice()).unwrap().unwrap_err().message, "no");
    assert_eq!(receive::<Reply<String>>(&mut bytes.as_slice()).unwrap().unwrap_err().exit, Exit::Usage);
}

fn message() -> Vec<u8> {
    let mut bytes = Vec::new();
    send(&mut bytes, &Call::List).unwrap();
    bytes
}

#[test]
fn a_message_comes_back() {
    assert!(matches!(receive::<Call>(&mut message().as_slice()).unwrap(), Call::List));
}

#[test]
fn every_prefix_is_truncated() {
    let bytes = message();
    assert!(matches!(receive::<Call>(&mut [].as_slice()), Err(MessageError::Closed)));
    for length in 1..bytes.len() {
        assert!(matches!(receive::<Call>(&mut &bytes[..length]), Err(MessageError::Truncated)), "{length}");
    }
}

#[test]
fn headers_that_lie() {
    let change = |at: usize, byte: u8| {
        let mut bytes = message();
        bytes[at] = byte;
        receive::<Call>(&mut bytes.as_slice())
    };
    assert!(matches!(change(0, b'X'), Err(MessageError::Foreign)));
    assert!(matches!(change(7, 9), Err(MessageError::Version { theirs: 9 })));
    assert!(matches!(change(8, 0xff), Err(MessageError::TooLong { .. })));
    assert!(matches!(change(12, b'{'), Err(MessageError::Body(_))));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = receive::<Call>(&mut bytes.as_slice());
    }
}
