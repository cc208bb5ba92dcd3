//! The little of HTTP that a proxy needs: where a head ends, how long a body is, and another port in an answer.

use std::io::Read;

/// A message's head with its empty line, and what came behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) head: Vec<u8>,
    pub(super) rest: Vec<u8>,
}

/// Reads until the head is whole; `None` if the connection ends before.
pub(super) fn read_head(from: &mut impl Read) -> Option<Head> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = end_of_head(&bytes) {
            let rest = bytes.split_off(end);
            return Some(Head { head: bytes, rest });
        }
        let n = from.read(&mut buffer).ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&buffer[..n]);
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

fn length(head: &str) -> Option<usize> {
    head.to_ascii_lowercase()
        .lines()
        .find_map(|line| line.strip_prefix("content-length:").and_then(|value| value.trim().parse().ok()))
}

/// How many bytes of its body `request` lacks.
pub(super) fn missing_body(request: &[u8]) -> usize {
    let end = end_of_head(request).unwrap_or(request.len());
    let head = String::from_utf8_lossy(&request[..end]);
    length(&head).unwrap_or(0).saturating_sub(request.len() - end)
}

/// The answer with another port and the length that fits it, and the port that it named. An answer that names none is
/// given back as it is.
pub(super) fn with_port(answer: &[u8], port: u16) -> (Vec<u8>, Option<u16>) {
    let unchanged = || (answer.to_vec(), None);
    let Some(end) = end_of_head(answer) else { return unchanged() };
    let (head, body) = answer.split_at(end);
    let (Ok(head), Ok(body)) = (str::from_utf8(head), str::from_utf8(body)) else { return unchanged() };
    let Some((before, after)) = body.split_once("\"port\":") else { return unchanged() };
    let digits = after.trim_start();
    let (named, after) = digits.split_at(digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len()));
    let Ok(named) = named.parse() else { return unchanged() };
    let body = format!("{before}\"port\": {port}{after}");
    let head: String = head
        .split_inclusive("\r\n")
        .map(|line| match length(line) {
            Some(_) => format!("Content-Length: {}\r\n", body.len()),
            None => line.to_owned(),
        })
        .collect();
    (format!("{head}{body}").into_bytes(), Some(named))
}
