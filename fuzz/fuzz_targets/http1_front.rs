//! libFuzzer's way into `targets::http1_front`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_fuzz::targets::http1_front(bytes));
