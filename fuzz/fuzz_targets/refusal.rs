//! Fuzzes a peer's words.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dtcore::fuzzing::refusal(bytes));
