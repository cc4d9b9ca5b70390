//! libFuzzer's way into `targets::http2_connection`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_fuzz::targets::http2_connection(bytes));
