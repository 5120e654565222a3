//! JSON-RPC messages: `Message::parse`.

#![no_main]

#[path = "../../tests/properties/envelope.rs"]
mod judge;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| judge::judge(bytes));
