//! libFuzzer's way into `targets::overrides`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_fuzz::targets::overrides(bytes));
