//! Fuzzes what follows a range's bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dtcore::fuzzing::trailer(bytes));
