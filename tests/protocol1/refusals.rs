//! Requests that are refused: wrong bodies, wrong methods, and heads that are no HTTP.

use dt_testkit::http::{Afterwards, Answer, exchange};
use dt_testkit::sockets::{connect, read_to_end};

use crate::{post, served};

#[test]
fn invalid_bodies_are_refused() {
    let (_workspace, mut server, _) = served(1000, &[]);
    for body in [
        r#"{"threads": 0}"#,
        r#"{"threads": -3}"#,
        r#"{"threads": 256}"#,
        r#"{"threads": 257}"#,
        r#"{"threads": 4294967297}"#,
        r#"{"threads": 99999999999999999999}"#,
        r#"{"threads": 2.5}"#,
        r#"{"threads": 8.0}"#,
        r#"{"threads": 1e2}"#,
        r#"{"threads": 1e400}"#,
        r#"{"threads": true}"#,
        r#"{"threads": "8"}"#,
        r#"{"threads": null}"#,
        r#"{"threads": [8]}"#,
        r#"{"threads": {}}"#,
        r#"{"threads": NaN}"#,
        r#"{"thread": 8}"#,
        r"{}",
        r"[8]",
        r"8",
        r"null",
        r#""threads""#,
        r#"{"threads": 8"#,
        r#"{"threads": 8}}"#,
        r"{'threads': 8}",
        "\u{feff}{\"threads\": 8}",
        "threads=8",
        "",
        " ",
        "\0",
        &"[".repeat(10_000),
    ] {
        exchange(server.addr, &[&post(body)], Afterwards::Wait).assert_refusal(&[400], body);
    }
    let not_utf8 = b"POST f HTTP/1.1\r\nContent-Length: 15\r\n\r\n{\"threads\": 8\xFF}";
    exchange(server.addr, &[not_utf8], Afterwards::Wait).assert_refusal(&[400], "no UTF-8");
    for body in [r#"{"threads": 1}"#, r#"{"threads":255}"#, "{ \"other\": [1, {}], \"threads\" : 8 }\n"] {
        let answer = exchange(server.addr, &[&post(body)], Afterwards::Wait);
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
    }
    server.assert_alive();
}

#[test]
fn invalid_requests_are_refused() {
    let (_workspace, mut server, _) = served(1000, &[]);
    let long_line =
        format!("POST {} HTTP/1.1\r\nContent-Length: 14\r\n\r\n{{\"threads\": 8}}", "a".repeat(1 << 20));
    let large_body = [post("").replace_length("1000000"), vec![b' '; 1_000_000]].concat();
    let table: [(&str, &[u8], &[u16]); 13] = [
        ("no length", b"POST f HTTP/1.1\r\nHost: x\r\n\r\n", &[400]),
        ("no length, but a body", b"POST f HTTP/1.1\r\nHost: x\r\n\r\n{\"threads\": 8}", &[400]),
        ("no length in HTTP/1.0", b"POST f HTTP/1.0\r\n\r\n", &[400]),
        ("a large length", b"POST f HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n", &[413]),
        ("a large body", &large_body, &[413]),
        ("GET", b"GET f HTTP/1.1\r\nHost: x\r\n\r\n", &[501]),
        ("PUT", b"PUT /f HTTP/1.1\r\nContent-Length: 0\r\n\r\n", &[501]),
        ("DELETE", b"DELETE /f HTTP/1.1\r\nHost: x\r\n\r\n", &[501]),
        ("OPTIONS", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", &[501]),
        ("an unknown method", b"FETCH f HTTP/1.1\r\nHost: x\r\n\r\n", &[501]),
        ("a method in lower case", b"post f HTTP/1.1\r\nContent-Length: 14\r\n\r\n{\"threads\": 8}", &[501]),
        ("a long request line", long_line.as_bytes(), &[414, 431]),
        ("no version", b"POST f\r\n\r\n", &[400, 505]),
    ];
    for (what, request, statuses) in table {
        exchange(server.addr, &[request], Afterwards::Wait).assert_refusal(statuses, what);
    }
    let half = b"POST f HTTP/1.1\r\nContent-Length: 14\r\n\r\n{\"thr";
    let stream = connect(server.addr);
    dt_testkit::http::send(&stream, &[half], Afterwards::HalfClose);
    let received = read_to_end(&stream);
    let answer = Answer::parse(&received.bytes, received.end);
    assert!(answer.is_none_or(|answer| answer.status == 400), "half a body");

    let head = exchange(server.addr, &[b"HEAD f HTTP/1.1\r\nHost: x\r\n\r\n"], Afterwards::Wait);
    assert_eq!((head.status, head.body.as_str()), (501, ""), "an answer to HEAD has no body");
    server.assert_alive();
}

/// Heads that the HTTP library refuses by itself: its answers have no body.
#[test]
fn invalid_heads_are_refused() {
    let (_workspace, mut server, _) = served(1000, &[]);
    let long_header = format!(
        "POST f HTTP/1.1\r\nX: {}\r\nContent-Length: 14\r\n\r\n{{\"threads\": 8}}",
        "a".repeat(1 << 20)
    );
    let many_headers = format!("POST f HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(10_000));
    let table: [(&str, &[u8]); 7] = [
        ("no number as length", b"POST f HTTP/1.1\r\nContent-Length: x\r\n\r\n"),
        ("a negative length", b"POST f HTTP/1.1\r\nContent-Length: -1\r\n\r\n"),
        ("two lengths", b"POST f HTTP/1.1\r\nContent-Length: 14\r\nContent-Length: 2\r\n\r\n{}"),
        ("the largest length", b"POST f HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n"),
        ("a long header", long_header.as_bytes()),
        ("many headers", many_headers.as_bytes()),
        ("no header", b"POST f HTTP/1.1\r\nhello\r\n\r\n"),
    ];
    let mut failures = Vec::new();
    for (what, request) in table {
        let answer = exchange(server.addr, &[request], Afterwards::Wait);
        let explained = answer.body.starts_with("{\"error\"");
        if ![400, 413, 431].contains(&answer.status) || !(answer.body.is_empty() || explained) {
            failures.push((what, answer.status, answer.body));
        }
    }
    assert!(failures.is_empty(), "each with its status, and no body or a reason in JSON: {failures:?}");
    let version = b"POST f HTTP/3.9\r\n\r\n";
    exchange(server.addr, &[version], Afterwards::Wait).assert_refusal(&[400, 505], "another version");
    server.assert_alive();
}

trait ReplaceLength {
    fn replace_length(self, length: &str) -> Vec<u8>;
}

impl ReplaceLength for Vec<u8> {
    fn replace_length(self, length: &str) -> Vec<u8> {
        let text = String::from_utf8(self).expect("a request of ours");
        text.replace("Content-Length: 0", &format!("Content-Length: {length}")).into_bytes()
    }
}
