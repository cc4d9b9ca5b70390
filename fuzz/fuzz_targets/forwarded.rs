//! libFuzzer's way into `targets::forwarded`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_fuzz::targets::forwarded(bytes));
