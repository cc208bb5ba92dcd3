//! The body of the request that opens a session for an upload.

use serde::Deserialize;

use super::offer::{InvalidOffer, SessionOffer};
use crate::manifest::StreamCount;
use crate::proto::extended;

/// The request for a session in which the client sends a file.
///
/// The client chooses the session's number and secret, so that it can open its streams as soon as the request is granted, and the same
/// session again at a server that was restarted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct UploadRequest {
    pub(crate) offer: SessionOffer,
    pub(crate) streams: StreamCount,
    pub(crate) options: UploadOptions,
}

/// How a file is to be received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the request")]
pub(crate) struct UploadOptions {
    /// Whether a file of this name is replaced.
    #[serde(default)]
    pub(crate) overwrite: bool,
    /// Whether blocks are discarded that an earlier upload has left.
    #[serde(default)]
    pub(crate) restart: bool,
    /// Whether the file is on the disk before success is reported.
    #[serde(default)]
    pub(crate) sync: bool,
    /// Whether the file does not get the modification time of the source.
    #[serde(default)]
    pub(crate) now: bool,
    /// Whether the client limits its rate, so that a slow stream is no reason to request blocks twice.
    #[serde(default)]
    pub(crate) limited: bool,
}

impl UploadRequest {
    /// The body.
    pub(crate) fn encode(&self) -> String {
        let Self { offer, streams, options } = self;
        let flags = [
            ("overwrite", options.overwrite),
            ("restart", options.restart),
            ("sync", options.sync),
            ("now", options.now),
            ("limited", options.limited),
        ];
        let flags = flags.into_iter().filter(|(_, is_set)| *is_set);
        let flags: Vec<String> = flags.map(|(name, _)| format!(", \"{name}\": true")).collect();
        extended(&offer.encode(), &format!(", \"threads\": {streams}{}", flags.concat()))
    }

    /// Reads a body; unknown keys are ignored.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, InvalidOffer> {
        #[derive(Deserialize)]
        struct Streams {
            threads: u64,
        }
        let offer = SessionOffer::decode(body)?;
        let Streams { threads } =
            serde_json::from_slice(body).map_err(|_| InvalidOffer("no number of streams"))?;
        let streams = StreamCount::new(threads).map_err(|_| InvalidOffer("invalid number of streams"))?;
        let options = serde_json::from_slice(body).map_err(|_| InvalidOffer("a switch is not a boolean"))?;
        Ok(Self { offer, streams, options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{BlockSize, Manifest};
    use crate::proto::v2::{Secret, SessionId, SourceVersion};

    #[test]
    fn request_is_read_back_and_its_switches_are_off_by_default() {
        let offer = SessionOffer {
            manifest: Manifest::new(5, BlockSize::new(1 << 16).unwrap()).unwrap(),
            modified: 7,
            version: SourceVersion([1; 16]),
            session: SessionId(2),
            secret: Secret([3; 16]),
            md5: None,
            blake3: None,
            mode: Some(0o640),
        };
        let options = UploadOptions { overwrite: true, restart: true, sync: true, now: true, limited: true };
        let request = UploadRequest { offer, streams: StreamCount::new(4).unwrap(), options };
        let text = request.encode();
        assert!(text.ends_with(", \"mode\": 416, \"threads\": 4, \"overwrite\": true, \"restart\": true, \"sync\": true, \"now\": true, \"limited\": true}"), "{text}");
        assert_eq!(UploadRequest::decode(text.as_bytes()), Ok(request));
        let plain = text.replace(": true", ": false");
        let off = UploadOptions { overwrite: false, restart: false, sync: false, now: false, limited: false };
        assert_eq!(UploadRequest::decode(plain.as_bytes()).unwrap().options, off);
        let (without, _) = text.split_once(", \"overwrite\"").unwrap();
        assert_eq!(UploadRequest::decode(format!("{without}}}").as_bytes()).unwrap().options, off);
        for (good, bad) in [
            ("\"threads\": 4", "\"threads\": 0"),
            ("\"sync\": true", "\"sync\": 1"),
            ("\"size\": 5", "\"size\": -5"),
        ] {
            assert!(UploadRequest::decode(text.replace(good, bad).as_bytes()).is_err(), "{bad}");
        }
    }
}
