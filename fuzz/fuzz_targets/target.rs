//! Fuzzes a name in the request line.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dtcore::fuzzing::target(bytes));
