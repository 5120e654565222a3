//! Server-sent events: `Decoder`.

#![no_main]

#[path = "../../tests/properties/events.rs"]
mod judge;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| judge::judge(bytes));
