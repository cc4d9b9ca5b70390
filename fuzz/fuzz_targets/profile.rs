//! libFuzzer's way into `targets::profile`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_fuzz::targets::profile(bytes));
