//! The seeds for fuzzing: for every decoder valid inputs and inputs that are almost valid.
//!
//! All are built from the descriptions of the formats, with the encoders of these tests.

use crate::content::pattern;
use crate::frame;
use crate::journal::Header;

/// One input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seed {
    /// The decoder that takes it.
    pub decoder: &'static str,
    /// The file's name.
    pub name: String,
    /// The file's content.
    pub bytes: Vec<u8>,
}

/// All inputs.
pub fn seeds() -> Vec<Seed> {
    let decoders = [
        ("hello", hellos()),
        ("request", requests()),
        ("response", responses()),
        ("trailer", trailers()),
        ("digests", digests()),
        ("refusal", refusals()),
        ("offer", offers()),
        ("legacy_answer", legacy_answers()),
        ("transfer_request", transfer_requests()),
        ("request_line", request_lines()),
        ("target", targets()),
        ("journal", journals()),
    ];
    let named = decoders.into_iter().flat_map(|(decoder, inputs)| {
        let name = |n: usize| format!("{n:02}");
        inputs.into_iter().enumerate().map(move |(n, bytes)| Seed { decoder, name: name(n), bytes })
    });
    named.collect()
}

/// `frame` with another value at a place, and the check that fits it.
fn with(frame: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    bytes[at] = value;
    frame::set_check(&mut bytes);
    bytes
}

/// `frame` with a flipped bit.
fn flipped(frame: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    bytes[at] ^= 0x10;
    bytes
}

fn hellos() -> Vec<Vec<u8>> {
    let valid = frame::hello(7, 0xa7, *b"0123456789abcdef", 0);
    vec![
        valid.clone(),
        frame::hello(255, u64::MAX, [0xff; 16], 1),
        frame::hello(0, 0, [0; 16], 0),
        flipped(&valid, 1),
        flipped(&valid, 2),
        frame::hello(7, 0xa7, [9; 16], 2),
        frame::hello(7, 0xa7, [9; 16], 0x80),
        valid[..27].to_vec(),
        [&valid[..], b"more"].concat(),
    ]
}

fn requests() -> Vec<Vec<u8>> {
    let run = frame::run(&(2..4), 2 << 19);
    vec![
        run.clone(),
        frame::run(&(0..1), 1),
        frame::digest(1),
        frame::digest(3),
        frame::end(),
        frame::digest(2),
        frame::header(1, 0, 0, 0, 0),
        frame::header(1, 0, 1, u64::MAX, 1),
        frame::header(1, 0, u32::MAX, u64::MAX - 1, u64::MAX),
        frame::header(3, 0, 0, 0, 1),
        with(&run, 1, 1),
        flipped(&run, 2),
        flipped(&run, 4),
        run[..23].to_vec(),
    ]
}

fn responses() -> Vec<Vec<u8>> {
    vec![
        [frame::header(0x81, 0, 2, 2, 1 << 20), frame::trailer(0, &[[7; 32]; 2])].concat(),
        [frame::header(0x81, 0, 1, 0, 1), frame::trailer(3, &[[0; 32]])].concat(),
        frame::digests(&[7; 32], None),
        frame::digests(&[7; 32], Some([9; 16])),
        frame::wait(1 << 40),
        frame::drain(),
        frame::refused(1, "no such session"),
        frame::refused(6, ""),
        frame::refused(5, &"\u{e9}\u{1b}[2J".repeat(85)),
        frame::header(0x8f, 1, 0, 0, 512),
        frame::header(0x8f, 1, 0, 0, 513),
        frame::header(0x8f, 0, 0, 0, 1),
        frame::header(0x8f, 7, 0, 0, 1),
        frame::header(0x81, 0, u32::MAX, u64::MAX, u64::MAX),
        frame::header(0x82, 1, 0, 0, 47),
        frame::header(0x85, 0, 0, 0, 0),
        frame::header(0x01, 0, 1, 0, 1024),
        frame::offer("{}"),
        frame::header(0x80, 0, 0, 0, 0),
        frame::header(0x80, 0, 0, 0, 16385),
        flipped(&frame::refused(6, "full"), 26),
    ]
}

fn trailers() -> Vec<Vec<u8>> {
    let valid = frame::trailer(0, &[[7; 32]]);
    vec![
        valid.clone(),
        frame::trailer(0, &[[0; 32]]),
        frame::trailer(3, &[[0; 32]]),
        frame::trailer(4, &[[0; 32]; 3]),
        frame::trailer(3, &[[7; 32]]),
        frame::trailer(5, &[[0; 32]]),
        frame::trailer(255, &[[0; 32]]),
        flipped(&valid, 7),
        valid[..39].to_vec(),
    ]
}

fn digests() -> Vec<Vec<u8>> {
    let whole = |md5: [u8; 16]| [&[7; 32][..], &md5].concat();
    vec![whole([0; 16]), whole([9; 16]), vec![0; 48], whole([9; 16])[..47].to_vec()]
}

fn refusals() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"error":"no such file"}"#,
        "{\"error\":\"two\\nlines \\u001b[31m\"}",
        r#"{"error":7}"#,
        r#"{"error":null}"#,
        r#"{"reason":"x"}"#,
        "[]",
        "",
        "plain words",
        "{\"error\":\"\\ud800\"}",
    ];
    let long = format!("{{\"error\":\"{}\"}}", "\u{fc}".repeat(300));
    let mut all: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    all.extend([long.into_bytes(), b"\xff\xfe\x80".to_vec()]);
    all
}

fn offers() -> Vec<Vec<u8>> {
    let right = format!(
        "{{\"protocol\": 2, \"size\": 2147483648, \"modified\": -5, \"version\": \"{}\", \"block\": 1048576, \
         \"session\": \"00000000000000a7\", \"secret\": \"{}\", \"hash\": null, \"blake3\": null}}",
        "9f".repeat(16),
        "53".repeat(16)
    );
    let mut all = vec![right.clone()];
    for (good, other) in [
        ("\"protocol\": 2", "\"protocol\": 3"),
        ("\"protocol\": 2", "\"protocol\": 2, \"of the future\": [{}, 1e9]"),
        ("2147483648", "0"),
        ("2147483648", "9223372036854775807"),
        ("2147483648", "18446744073709551616"),
        ("2147483648", "1e3"),
        ("1048576", "16384"),
        ("1048576", "16777216"),
        ("1048576", "1048577"),
        ("-5", "-9223372036854775808"),
        ("00000000000000a7", "ffffffffffffffff"),
        ("00000000000000a7", "a7"),
        ("\"hash\": null", "\"hash\": \"bf02e98e522704c376e82dfef2cfb240\""),
        ("\"hash\": null", "\"hash\": \"\""),
        (
            "\"blake3\": null",
            "\"blake3\": \"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262\"",
        ),
        (", \"blake3\": null", ""),
    ] {
        all.push(right.replacen(good, other, 1));
    }
    all.into_iter().map(String::into_bytes).collect()
}

fn legacy_answers() -> Vec<Vec<u8>> {
    [
        r#"{"hash": "bf02e98e522704c376e82dfef2cfb240", "port": 36931}"#,
        r#"{"port":1,"hash":"BF02E98E522704C376E82DFEF2CFB240","x":{"y":[]}}"#,
        r#"{"hash": "bf02e98e522704c376e82dfef2cfb24", "port": 36931}"#,
        r#"{"hash": "bf02e98e522704c376e82dfef2cfb240", "port": 0}"#,
        r#"{"hash": "bf02e98e522704c376e82dfef2cfb240", "port": "1"}"#,
        r#"{"hash": null, "port": 1}"#,
        "[]",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn transfer_requests() -> Vec<Vec<u8>> {
    [
        r#"{"threads": 8}"#,
        r#"{"threads": 255, "protocol": 1}"#,
        r#"{"threads": 1, "protocol": 2, "md5": true}"#,
        r#"{"protocol": 99, "threads": 8, "md5": false, "x": null}"#,
        r#"{"threads": 0}"#,
        r#"{"threads": 256}"#,
        r#"{"threads": 8.5}"#,
        r#"{"threads": 8, "protocol": 0}"#,
        r#"{"threads": 8, "protocol": "2"}"#,
        r#"{"threads": 8, "protocol": 2, "md5": 1}"#,
        r#"{"threads": 8, "threads": 9}"#,
        r#"{"threads": 8"#,
        "[8]",
        "null",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn request_lines() -> Vec<Vec<u8>> {
    [
        b"POST /dir/f7 HTTP/1.1\r\n".as_slice(),
        b"POST remote/path HTTP/1.0\n",
        b"POST a b\tc HTTP/1.1\r\n",
        b"POST \xfc\xff HTTP/1.1\r\n",
        b"POST /a HTTP/1.0 b HTTP/1.1\r\n",
        b"POST http://host:9000/x%20y HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\n",
        b"POST  HTTP/1.1\r\n",
        b"POST /f HTTP/2.0\r\n",
        b"POST /f\r\n",
        b" /f HTTP/1.1\r\n",
        b"\x16\x03\x01\x02 /f HTTP/1.1\n",
        b"",
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

fn targets() -> Vec<Vec<u8>> {
    [
        b"remote/path".as_slice(),
        b"/dir/f7",
        b"a%20b",
        b"a%2",
        b"%",
        b"%00%ff",
        b"a b\r\nc",
        b"http://host:9000/x/y",
        b"http://host",
        b"../x",
        b"\xc3\xbc \xff",
        b"",
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

fn journals() -> Vec<Vec<u8>> {
    let right = Header {
        format: 1,
        block: 65536,
        size: 1_000_000,
        modified: -5,
        version: [1; 16],
        boot: [2; 16],
        remote: [3; 32],
        part: [4, 5],
        nonce: [6; 16],
    };
    let header = right.encode();
    let records: Vec<u8> = [0, 15, 3, 0].iter().flat_map(|block| right.record(*block, &[9; 32])).collect();
    let whole = [&header[..], &records].concat();
    let mut flipped = whole.clone();
    flipped[160 + 56 + 20] ^= 1;
    vec![
        whole.clone(),
        header.clone(),
        header[..159].to_vec(),
        whole[..whole.len() - 1].to_vec(),
        [&whole[..], &pattern(1, 60)].concat(),
        [&header[..], &right.record(16, &[9; 32]), &records].concat(),
        [&header[..], &right.record(u64::MAX, &[9; 32])].concat(),
        flipped,
        Header { format: 2, ..right }.encode(),
        Header { block: 65535, ..right }.encode(),
        Header { size: u64::MAX, ..right }.encode(),
        Header { size: 0, ..right }.encode(),
    ]
}
