//! libFuzzer's way into `targets::client_hello`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_fuzz::targets::client_hello(bytes));
