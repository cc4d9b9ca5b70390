//! libFuzzer's way into `targets::http1::answer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_fuzz::targets::http1::answer(bytes));
