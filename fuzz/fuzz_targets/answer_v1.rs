//! Fuzzes the answer of protocol 1.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dtcore::fuzzing::answer_v1(bytes));
