//! The decoders of bytes from a peer or a disk, each as a plain function, for fuzzers.
//!
//! Each takes any bytes, must not panic on them, and checks that a decoded value is within its bounds and encodes to the same
//! bytes.

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
pub const DECODERS: &[(&str, Decoder)] = &[
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

/// A stream's first bytes.
pub fn hello(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk::<HELLO_LEN>() else { return };
    if let Ok(hello) = Hello::decode(bytes) {
        assert_eq!(hello.encode(), *bytes);
    }
}

/// A frame from the receiver.
pub fn demand(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk::<FRAME_LEN>() else { return };
    let Ok(demand) = Demand::decode(bytes) else { return };
    assert_eq!(demand.encode(), *bytes);
    if let Demand::Range(range) = demand {
        assert!(!range.is_empty() && range.start() < range.end());
    }
}

/// A frame header from the sender, and the payload after it, as much as there is.
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

/// The trailer after a range's bytes.
pub fn trailer(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk::<TRAILER_LEN>() else { return };
    if let Ok(trailer) = Trailer::decode(bytes) {
        assert_eq!(trailer.encode(), *bytes);
    }
}

/// The digests of the file, after their header.
pub fn digests(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk::<WHOLE_DIGESTS_LEN>() else { return };
    for which in [WholeDigests::Blake3, WholeDigests::Blake3AndMd5] {
        if let Ok(digests) = WholeDigestsReply::decode(which, bytes) {
            let again = digests.encode();
            assert_eq!(again.get(FRAME_LEN..), Some(bytes.as_slice()));
        }
    }
}

/// A peer's text: the body of a refusal, and the reason in a frame.
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

/// The answer that offers a session.
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

/// The body of a request, in either protocol.
pub fn request(bytes: &[u8]) {
    let Ok(wanted) = TransferRequest::decode(bytes) else { return };
    let again = match wanted {
        TransferRequest::V1(request) => request.encode(),
        TransferRequest::V2(request) => request.encode(),
    };
    assert_eq!(TransferRequest::decode(again.as_bytes()), Ok(wanted));
}

/// A request line.
pub fn request_line(bytes: &[u8]) {
    let Ok(line) = RequestLine::parse(bytes) else { return };
    let plain = line.with_plain_target();
    assert_eq!(RequestLine::parse(&plain).map(|line| line.target()), Ok(b"/".as_slice()));
    target(line.target());
}

/// A name in a request line, as a server decodes it and a client encodes it.
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

/// A journal as it is, and with the correct check of its header, as otherwise mutations end there.
pub fn journal(bytes: &[u8]) {
    journal_contents(bytes);
    let (Some(checked), Some(rest)) = (bytes.get(..128), bytes.get(160..)) else { return };
    let check: [u8; 32] = Blake3Digest::of(checked).into();
    journal_contents(&[checked, &check, rest].concat());
}

fn journal_contents(bytes: &[u8]) {
    let Some(journal) = JournalContents::decode(bytes) else { return };
    let header = journal.header.encode();
    assert_eq!(bytes.first_chunk(), Some(&header));
    let manifest = &journal.header.source_identity.manifest;
    assert!(journal.records.iter().all(|record| record.block.value() < manifest.n_blocks()));
    let records: Vec<[u8; 56]> =
        journal.records.iter().map(|record| record.encode(&journal.header.nonce)).collect();
    let encoded = [header.as_slice(), records.as_flattened()].concat();
    assert!(bytes.starts_with(&encoded));
    assert_eq!(u64::try_from(encoded.len()), Ok(journal.len()));
}
