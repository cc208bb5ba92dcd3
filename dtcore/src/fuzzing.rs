//! The decoders of bytes from a peer or a disk, each as a plain function, for fuzzers.
//!
//! Each takes any bytes, must not panic on them, and checks that a decoded value is within its bounds and encodes to the same
//! bytes.

use crate::digest::{Blake3Digest, RangeDigest};
use crate::manifest::Manifest;
use crate::proto::v2::{
    FRAME_LEN, Growth, HELLO_LEN, Hello, MAX_REASON, PAYLOAD_CHECK_LEN, ReportedDigests, Request, Response,
    SessionOffer, TRAILER_LEN, TrailerHead, WHOLE_DIGESTS_LEN, WholeDigests, checked_payload, encode_trailer,
    reason_of,
};
use crate::proto::{Marking, RequestLine, Target, TransferRequest, v1};
use crate::sink::JournalContents;

/// A decoder that takes any bytes.
pub type Decoder = fn(&[u8]);

/// All decoders, with their names.
pub const DECODERS: &[(&str, Decoder)] = &[
    ("hello", hello),
    ("request", request),
    ("response", response),
    ("trailer", trailer),
    ("digests", digests),
    ("refusal", refusal),
    ("offer", offer),
    ("legacy_answer", legacy_answer),
    ("transfer_request", transfer_request),
    ("request_line", request_line),
    ("target", target),
    ("journal", journal),
];

/// A stream's first bytes.
pub fn hello(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk::<HELLO_LEN>() else { return };
    if let Some(hello) = Hello::decode(bytes) {
        assert_eq!(hello.encode(), *bytes);
    }
}

/// A frame from the receiver.
pub fn request(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk::<FRAME_LEN>() else { return };
    let Ok(request) = Request::decode(bytes) else { return };
    assert_eq!(request.encode(), *bytes);
    if let Request::Run(run) | Request::Proof(run) = request {
        assert!(run.count > 0 && run.length > 0);
    }
}

/// A frame header from the sender, and what follows it, as much as there is.
pub fn response(bytes: &[u8]) {
    let Some((header, rest)) = bytes.split_first_chunk::<FRAME_LEN>() else { return };
    let Ok(response) = Response::decode(header) else { return };
    assert_eq!(response.encode(), *header);
    let payload = |len: usize| {
        let payload = rest.get(..len + PAYLOAD_CHECK_LEN)?;
        checked_payload(header, payload).ok().inspect(|payload| assert_eq!(payload.len(), len))
    };
    match response {
        Response::Data(run) | Response::Proof(run) => {
            assert!(run.count > 0 && run.length > 0);
            trailer(rest);
        }
        Response::Offer(len) => payload(len).into_iter().for_each(offer),
        Response::Digests(_) => payload(WHOLE_DIGESTS_LEN).into_iter().for_each(digests),
        Response::Refused(code, len) => {
            assert!(len <= MAX_REASON);
            let reason = reason_of(rest.get(..len).unwrap_or(rest));
            assert_printable(&reason);
            let again = Response::refusal(code, &reason);
            assert!(again.len() <= FRAME_LEN + MAX_REASON + PAYLOAD_CHECK_LEN);
        }
        Response::Wait { .. } | Response::Drain => {}
    }
}

/// The trailer after the data of a run.
pub fn trailer(bytes: &[u8]) {
    let Some((head, rest)) = bytes.split_first_chunk::<TRAILER_LEN>() else { return };
    let Ok(trailer) = TrailerHead::decode(head) else { return };
    assert_eq!(trailer.encode(), *head);
    let (digests, _) = rest.as_chunks::<{ RangeDigest::LEN }>();
    if let Ok(count) = u32::try_from(digests.len())
        && count == trailer.count
    {
        let digests: Vec<RangeDigest> = digests.iter().copied().map(RangeDigest).collect();
        let growth = trailer.result.unwrap_or(Growth::None);
        let again = encode_trailer(trailer.result.map(|_| digests.as_slice()), growth, count);
        assert_eq!(again.first_chunk(), Some(head));
        assert_eq!(again.len(), TRAILER_LEN + digests.len() * RangeDigest::LEN);
    }
}

/// The digests of the file, without header and check.
pub fn digests(bytes: &[u8]) {
    let Some(bytes) = bytes.get(..WHOLE_DIGESTS_LEN) else { return };
    for which in [WholeDigests::Blake3, WholeDigests::Blake3AndMd5] {
        if let Ok(digests) = ReportedDigests::decode(which, bytes) {
            let again = digests.encode();
            assert_eq!(again.get(FRAME_LEN..FRAME_LEN + WHOLE_DIGESTS_LEN), Some(bytes));
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

/// The offer of a session.
pub fn offer(bytes: &[u8]) {
    let Ok(offer) = SessionOffer::decode(bytes) else { return };
    assert!(SessionOffer::is_claimed(bytes));
    let manifest = offer.manifest;
    assert!(u64::from(manifest.n_blocks()) <= Manifest::MAX_BLOCKS && i64::try_from(manifest.size()).is_ok());
    assert_eq!(SessionOffer::decode(offer.encode().as_bytes()), Ok(offer));
}

/// The answer of protocol 1.
pub fn legacy_answer(bytes: &[u8]) {
    let Ok(answer) = v1::LegacyAnswer::decode(bytes) else { return };
    assert_ne!(answer.port, 0);
    assert_eq!(v1::LegacyAnswer::decode(answer.encode().as_bytes()), Ok(answer));
}

/// The body of a request for a transfer, in either protocol.
pub fn transfer_request(bytes: &[u8]) {
    let Ok(request) = TransferRequest::decode(bytes) else { return };
    let again = match request {
        TransferRequest::V1(request) => request.encode(),
        TransferRequest::V2(request) => {
            // Nothing is pushed from anywhere.
            let is_encoded = request.push.length > 0 || request.push.from == 0;
            if !is_encoded {
                return;
            }
            request.encode()
        }
    };
    assert_eq!(TransferRequest::decode(again.as_bytes()), Ok(request));
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
