//! Fuzzes the decoder that the environment variable `DECODER` names.

#![no_main]

use std::sync::LazyLock;

use dtcore::fuzzing::{DECODERS, Decoder};

static DECODER: LazyLock<Decoder> = LazyLock::new(|| {
    let name = std::env::var("DECODER").unwrap_or_default();
    let known = DECODERS.iter().find(|(known, _)| *known == name);
    let names = || DECODERS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ");
    known.unwrap_or_else(|| panic!("set DECODER to one of: {}", names())).1
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| DECODER(bytes));
