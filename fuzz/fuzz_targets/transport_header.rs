//! libFuzzer's way into `targets::transport_header`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_fuzz::targets::transport_header(bytes));
