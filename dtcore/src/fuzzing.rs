//! The decoders of what comes from a peer or a disk, one plain function for each, for fuzzers.
//!
//! Each takes any bytes, must not panic on them, and holds what is read to what must be true of it: it stays within its
//! bounds, and written again it is what it was read from.

use crate::digest::Blake3Digest;
use crate::manifest::Manifest;
use crate::proto::v2::{
    Answer, Demand, FRAME_LEN, HELLO_LEN, Hello, MAX_REASON, Reply, TRAILER_LEN, Trailer, WHOLE_DIGESTS_LEN,
    WholeDigests, WholeDigestsReply, reason_of,
};
use crate::proto::{Marking, RequestLine, Target, TransferRequest, v1};
use crate::sink::JournalContents;

/// A decoder that takes any bytes.
pub type Decoder = fn(&[u8]);

/// All decoders, with their names.
pub const DECODERS: [(&str, Decoder); 12] = [
    ("hello", hello),
    ("demand", demand),
    ("reply", reply),
    ("trailer", trailer),
    ("digests", digests),
    ("refusal", refusal),
    ("answer", answer),
    ("answer_v1", answer_v1),
    ("request", request),
    ("request_line", request_line),
    ("target", target),
    ("journal", journal),
];

/// The first bytes of a stream.
pub fn hello(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk::<HELLO_LEN>() else { return };
    if let Ok(hello) = Hello::decode(bytes) {
        assert_eq!(hello.encode(), *bytes);
    }
}

/// A frame of the receiver.
pub fn demand(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk::<FRAME_LEN>() else { return };
    let Ok(demand) = Demand::decode(bytes) else { return };
    assert_eq!(demand.encode(), *bytes);
    if let Demand::Range(range) = demand {
        assert!(!range.is_empty() && range.start() < range.end());
    }
}

/// A frame header of the sender, and what follows it as far as it is there.
pub fn reply(bytes: &[u8]) {
    let Some((header, rest)) = bytes.split_first_chunk::<FRAME_LEN>() else { return };
    let Ok(reply) = Reply::decode(header) else { return };
    assert_eq!(reply.encode(), *header);
    match reply {
        Reply::Data(range) => {
            assert!(!range.is_empty() && range.start() < range.end());
            trailer(rest);
        }
        Reply::Digests(_) => digests(rest),
        Reply::Refused(code, len) => {
            assert!(len <= MAX_REASON);
            let reason = reason_of(rest.get(..len).unwrap_or(rest));
            assert_printable(&reason);
            let again = Reply::refusal(code, &reason);
            assert!(again.len() <= FRAME_LEN + MAX_REASON);
        }
        Reply::Wait { .. } | Reply::Drain => {}
    }
}

/// What follows a range's bytes.
pub fn trailer(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk::<TRAILER_LEN>() else { return };
    if let Ok(trailer) = Trailer::decode(bytes) {
        assert_eq!(trailer.encode(), *bytes);
    }
}

/// What follows the header of the file's digests.
pub fn digests(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk::<WHOLE_DIGESTS_LEN>() else { return };
    for which in [WholeDigests::Blake3, WholeDigests::Blake3AndMd5] {
        if let Ok(digests) = WholeDigestsReply::decode(which, bytes) {
            let again = digests.encode();
            assert_eq!(again.get(FRAME_LEN..), Some(bytes.as_slice()));
        }
    }
}

/// A peer's words: the body of a refusal, and the reason in a frame.
pub fn refusal(bytes: &[u8]) {
    assert_printable(&reason_of(bytes));
    if let Some(reason) = v1::decode_refusal(bytes) {
        assert_printable(&reason);
        let again = v1::encode_refusal(&reason);
        assert_eq!(v1::decode_refusal(again.as_bytes()), Some(reason));
    }
}

fn assert_printable(words: &str) {
    assert!(words.chars().count() <= 200);
    assert!(!words.contains(char::is_control));
}

/// The answer that grants a session.
pub fn answer(bytes: &[u8]) {
    let Ok(answer) = Answer::decode(bytes) else { return };
    assert!(Answer::is_claimed(bytes));
    let manifest = answer.manifest;
    assert!(u64::from(manifest.n_blocks()) <= Manifest::MAX_BLOCKS && i64::try_from(manifest.size()).is_ok());
    assert_ne!(answer.port, 0);
    assert_eq!(Answer::decode(answer.encode().as_bytes()), Ok(answer));
}

/// The answer of protocol 1.
pub fn answer_v1(bytes: &[u8]) {
    let Ok(answer) = v1::Answer::decode(bytes) else { return };
    assert_ne!(answer.port, 0);
    assert_eq!(v1::Answer::decode(answer.encode().as_bytes()), Ok(answer));
}

/// What a request asks for, in either protocol.
pub fn request(bytes: &[u8]) {
    let Ok(wanted) = TransferRequest::decode(bytes) else { return };
    let again = match wanted {
        TransferRequest::V1(request) => request.encode(),
        TransferRequest::V2(request) => request.encode(),
    };
    assert_eq!(TransferRequest::decode(again.as_bytes()), Ok(wanted));
}

/// The first line of a request.
pub fn request_line(bytes: &[u8]) {
    let Ok(line) = RequestLine::parse(bytes) else { return };
    let plain = line.with_plain_target();
    assert_eq!(RequestLine::parse(&plain).map(|line| line.target()), Ok(b"/".as_slice()));
    target(line.target());
}

/// A name in the request line, as a server reads it and as a client writes it.
pub fn target(bytes: &[u8]) {
    for marking in [Marking::None, Marking::Escaped, Marking::Literal] {
        let names = Target::names(bytes, marking);
        assert!((1..=2).contains(&names.len()));
        assert!(names.iter().all(|name| name.len() <= bytes.len()));
    }
    let target = Target::of(bytes);
    assert!(target.text().bytes().all(|byte| byte.is_ascii_graphic()));
    let names = Target::names(target.text().as_bytes(), target.marking());
    assert_eq!(names.first().map(AsRef::as_ref), Some(bytes));
}

/// A journal as it is, and with the check that its header should have, without which no mutation gets any further.
pub fn journal(bytes: &[u8]) {
    recorded(bytes);
    let (Some(checked), Some(rest)) = (bytes.get(..128), bytes.get(160..)) else { return };
    let check: [u8; 32] = Blake3Digest::of(checked).into();
    recorded(&[checked, &check, rest].concat());
}

fn recorded(bytes: &[u8]) {
    let Some(journal) = JournalContents::decode(bytes) else { return };
    let header = journal.header.encode();
    assert_eq!(bytes.first_chunk(), Some(&header));
    let manifest = &journal.header.source_identity.manifest;
    assert!(journal.records.iter().all(|record| record.block.value() < manifest.n_blocks()));
    let records: Vec<[u8; 56]> =
        journal.records.iter().map(|record| record.encode(&journal.header.nonce)).collect();
    let whole = [header.as_slice(), records.as_flattened()].concat();
    assert!(bytes.starts_with(&whole));
    assert_eq!(u64::try_from(whole.len()), Ok(journal.len()));
}
