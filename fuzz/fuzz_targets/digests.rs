//! Fuzzes the digests of a whole file.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dtcore::fuzzing::digests(bytes));
