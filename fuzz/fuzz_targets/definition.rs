//! Files of definitions: `Reader::read`.

#![no_main]

#[path = "../../tests/properties/definition.rs"]
mod judge;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| judge::judge(bytes));
