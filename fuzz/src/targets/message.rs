//! The messages on the mounter's socket, in both directions.

use api::message::{
    Call, Failure, MAX_ANSWER, MAX_BODY, MessageError, Mounted, Replaced, Reply, receive, receive_answer, send,
};
use api::program::ProgramCall;
use api::volume::{VolumeDetail, VolumeView};
use serde_json::Value;
use std::io::{self, Read};

/// What arrives, whole; and the same bytes as the body of a message, whose header is right.
pub fn check(bytes: &[u8]) {
    check_call(bytes);
    let mut framed = Vec::from(*b"HMNT");
    framed.extend(api::message::VERSION.to_be_bytes());
    framed.extend((bytes.len() as u32).to_be_bytes());
    framed.extend(bytes);
    check_call(&framed);
    check_answer(&framed);
}

fn check_call(bytes: &[u8]) {
    let mut reader = Counted { bytes, at: 0, most: usize::MAX };
    let whole = receive::<Call>(&mut reader);
    assert!(reader.at <= 12 + MAX_BODY as usize, "it reads more than a message");
    check_programs_call(bytes);
    // However it arrives.
    let dripped = receive::<Call>(&mut Counted { bytes, at: 0, most: 1 });
    match (whole, dripped) {
        (Ok(call), Ok(again)) => {
            let mut written = Vec::new();
            send(&mut written, &call).expect("a call that was read can be sent");
            let back = receive::<Call>(&mut written.as_slice()).expect("a call that was sent is read");
            assert_eq!(value(&back), value(&call));
            assert_eq!(value(&again), value(&call));
            if let Call::Mount(mount) = &call {
                super::options::comes_back(&mount.request.options);
                let secrets = format!("{:?}", mount.request.secrets);
                assert_eq!(secrets.matches("(a secret)").count(), mount.request.secrets.len());
            }
        }
        (Err(one), Err(other)) => {
            assert_eq!(one.to_string(), other.to_string());
            assert!(!matches!(one, MessageError::Io(_) | MessageError::TimedOut), "{one}");
        }
        (one, other) => panic!("it depends on how it arrives: {one:?}, {other:?}"),
    }
}

/// What a program of a pod says, or anybody in there.
fn check_programs_call(bytes: &[u8]) {
    let Ok(call) = receive::<ProgramCall>(&mut &*bytes) else { return };
    let mut written = Vec::new();
    send(&mut written, &call).expect("a call that was read can be sent");
    assert_eq!(receive::<ProgramCall>(&mut written.as_slice()).expect("a call that was sent is read"), call);
}

/// Answers come from the mounter, and tell what helpers and callers have said.
fn check_answer(bytes: &[u8]) {
    let answer = |bytes: &[u8]| -> [Option<Value>; 5] {
        let mut reader = Counted { bytes, at: 0, most: usize::MAX };
        let mounted = receive_answer::<Mounted>(&mut reader).ok().map(|reply| value(&reply));
        assert!(reader.at <= 12 + MAX_ANSWER as usize);
        let read = |bytes: &[u8]| receive_answer::<Replaced>(&mut &*bytes).ok().map(|reply| value(&reply));
        let list = |bytes: &[u8]| receive_answer::<Vec<VolumeView>>(&mut &*bytes).ok().map(|reply| value(&reply));
        let detail = |bytes: &[u8]| receive_answer::<VolumeDetail>(&mut &*bytes).ok().map(|reply| value(&reply));
        let text = |bytes: &[u8]| receive_answer::<String>(&mut &*bytes).ok().map(|reply| value(&reply));
        [mounted, read(bytes), list(bytes), detail(bytes), text(bytes)]
    };
    if let Ok(Err(failure)) = receive_answer::<()>(&mut &*bytes) {
        let mut written = Vec::new();
        let reply: Reply<()> = Err(Failure { ..failure.clone() });
        api::message::answer(&mut written, &reply).expect("a failure can be sent");
        assert_eq!(receive_answer::<()>(&mut written.as_slice()).expect("it is read"), Err(failure));
    }
    for read in answer(bytes).into_iter().flatten() {
        // What is shown of it makes no terminal act.
        let json = read.to_string();
        let shown = api::shown::shown_json(&json);
        assert_eq!(serde_json::from_str::<Value>(&shown).expect("it stays JSON"), read);
        assert!(!shown.contains(|character: char| character.is_control()), "{shown:?}");
    }
}

fn value<T: serde::Serialize>(of: &T) -> Value {
    serde_json::to_value(of).expect("it was read from JSON")
}

/// Gives a few bytes at a time, and counts them.
struct Counted<'a> {
    bytes: &'a [u8],
    at: usize,
    most: usize,
}

impl Read for Counted<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let rest = &self.bytes[self.at..];
        let count = rest.len().min(into.len()).min(self.most);
        into[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}
