//! Another port in the answer of a server of protocol 1.

use crate::http::body_length;

/// The answer with another port and the length that fits it, and the port that it named. An answer without one is
/// returned as it is.
pub(super) fn with_port(answer: &[u8], port: u16) -> (Vec<u8>, Option<u16>) {
    let unchanged = || (answer.to_vec(), None);
    let Ok(text) = str::from_utf8(answer) else { return unchanged() };
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return unchanged() };
    let Some((before, after)) = body.split_once("\"port\":") else { return unchanged() };
    let digits = after.trim_start();
    let (named, after) = digits.split_at(digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len()));
    let Ok(named) = named.parse() else { return unchanged() };
    let body = format!("{before}\"port\": {port}{after}");
    let replaced = |line: &str| match body_length(line.as_bytes()) {
        0 => line.to_owned(),
        _ => format!("Content-Length: {}", body.len()),
    };
    let head: Vec<String> = head.split("\r\n").map(replaced).collect();
    (format!("{}\r\n\r\n{body}", head.join("\r\n")).into_bytes(), Some(named))
}
