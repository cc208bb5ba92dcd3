//! Fuzzes a frame of the sender with what follows it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dtcore::fuzzing::reply(bytes));
