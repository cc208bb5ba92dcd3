//! Fuzzes the first line of a request.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dtcore::fuzzing::request_line(bytes));
