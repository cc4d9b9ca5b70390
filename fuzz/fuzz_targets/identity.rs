//! libFuzzer's way into `targets::identity`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_fuzz::targets::identity(bytes));
