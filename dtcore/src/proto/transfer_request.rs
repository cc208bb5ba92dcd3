//! What a request's body asks for, in whichever protocol.

use serde_json::Value;

use super::v1;
use crate::proto::v1::InvalidRequest;
use crate::proto::v2::{Push, SessionRequest, WholeDigests};

/// A request, in the protocol that it is to be answered in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TransferRequest {
    V1(v1::LegacyRequest),
    V2(SessionRequest),
}

impl TransferRequest {
    /// Reads a body; keys it does not know are ignored.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, InvalidRequest> {
        let value: Value = serde_json::from_slice(body).map_err(|_| InvalidRequest::NotJson)?;
        let v1 = v1::LegacyRequest::of(&value)?;
        match value.get("protocol").map(Value::as_u64) {
            None | Some(Some(1)) => Ok(Self::V1(v1)),
            Some(None | Some(0)) => Err(InvalidRequest::Protocol),
            // A client of a later protocol is answered in the highest one known here.
            Some(Some(_)) => {
                let digests = match value.get("md5") {
                    None | Some(Value::Bool(false)) => WholeDigests::Blake3,
                    Some(Value::Bool(true)) => WholeDigests::Blake3AndMd5,
                    Some(_) => return Err(InvalidRequest::Md5),
                };
                let number = |key| match value.get(key).map(Value::as_u64) {
                    None => Ok(0),
                    Some(Some(number)) => Ok(number),
                    Some(None) => Err(InvalidRequest::Push),
                };
                let push = Push { from: number("from")?, length: number("push")? };
                let may_grow = match value.get("growth") {
                    None | Some(Value::Bool(false)) => false,
                    Some(Value::Bool(true)) => true,
                    Some(_) => return Err(InvalidRequest::Growth),
                };
                Ok(Self::V2(SessionRequest { streams: v1.streams, digests, push, may_grow }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::StreamCount;

    #[test]
    fn protocol_is_the_highest_that_both_sides_know() {
        let streams = StreamCount::default();
        let (v1, v2) = (TransferRequest::V1(v1::LegacyRequest { streams }), |digests| {
            Ok(TransferRequest::V2(SessionRequest {
                streams,
                digests,
                push: Push::default(),
                may_grow: false,
            }))
        });
        for (rest, expected) in [
            ("", Ok(v1)),
            (r#", "protocol": 1"#, Ok(v1)),
            (r#", "protocol": 1, "md5": 7"#, Ok(v1)),
            (r#", "protocol": 2"#, v2(WholeDigests::Blake3)),
            (r#", "protocol": 99, "md5": false"#, v2(WholeDigests::Blake3)),
            (r#", "protocol": 2, "md5": true, "x": []"#, v2(WholeDigests::Blake3AndMd5)),
            (r#", "protocol": 2, "md5": 1"#, Err(InvalidRequest::Md5)),
            (r#", "protocol": 2, "growth": 1"#, Err(InvalidRequest::Growth)),
            (r#", "protocol": 2, "push": -1"#, Err(InvalidRequest::Push)),
            (r#", "protocol": 2, "from": "0""#, Err(InvalidRequest::Push)),
            (r#", "protocol": 0"#, Err(InvalidRequest::Protocol)),
            (r#", "protocol": "2""#, Err(InvalidRequest::Protocol)),
            (r#", "protocol": null"#, Err(InvalidRequest::Protocol)),
        ] {
            let body = format!("{{\"threads\": 8{rest}}}");
            assert_eq!(TransferRequest::decode(body.as_bytes()), expected, "{body}");
        }
    }
}
