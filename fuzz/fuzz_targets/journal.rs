//! Fuzzes the journal of a transfer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dtcore::fuzzing::journal(bytes));
