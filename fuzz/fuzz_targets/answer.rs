//! Fuzzes the answer that grants a session.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dtcore::fuzzing::answer(bytes));
