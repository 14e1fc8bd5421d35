#![no_main]

#[path = "../../tests/hostile/config.rs"]
mod config;

libfuzzer_sys::fuzz_target!(|data: &[u8]| config::check(data));
