//! What goes over the wire, as pure functions between bytes and types.
//!
//! `docs/protocol.md` is the normative text. Every length and number is bounded here, before anybody uses it.

pub(crate) mod http;
mod listing;
mod pack;
mod transfer_request;
pub(crate) mod v1;
pub(crate) mod v2;

pub(crate) use http::{InvalidRequestLine, MAX_LINE, Marking, RequestLine, Target, is_token};
pub use listing::EntryKind;
pub(crate) use listing::{LIST_HEADER, LISTING, ListLine, ListedEntry, MAX_LIST_LINE};
pub(crate) use pack::{
    InvalidPack, MAX_PACK_BODY, MAX_PACK_BYTES, MAX_PACK_FILES, decode_pack, decode_pack_names, encode_pack,
    encode_pack_names, with_pack,
};
pub(crate) use transfer_request::TransferRequest;

/// The text of a JSON object with more `fields`, each written as `, "key": value`.
fn extended(object: &str, fields: &str) -> String {
    format!("{}{fields}}}", object.strip_suffix('}').unwrap_or(object))
}

/// Response header: the file's size in bytes. Protocol 1 itself never reports it; the original client ignores this.
pub(crate) const SIZE_HEADER: &str = "dt-size";

/// Request header: how the target is to be read, one of the values of [`Marking`].
pub(crate) const TARGET_HEADER: &str = "dt-target";
