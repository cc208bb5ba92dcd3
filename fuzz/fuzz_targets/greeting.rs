//! Fuzzes the greeting of a stream.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dtcore::fuzzing::greeting(bytes));
