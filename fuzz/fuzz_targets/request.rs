//! Fuzzes the body of a request.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dtcore::fuzzing::request(bytes));
