//! Fuzzes a frame of the receiver.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dtcore::fuzzing::demand(bytes));
