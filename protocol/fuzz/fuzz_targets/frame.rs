#![no_main]

#[path = "../checks.rs"]
mod checks;
#[path = "../../tests/every_body/mod.rs"]
mod every_body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::frame(data));
