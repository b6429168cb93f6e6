//! Every target: which one this is says its name. What they do is in src/hostile.rs.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| husk::hostile::one(env!("CARGO_BIN_NAME"), data));
