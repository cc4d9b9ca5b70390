//! libFuzzer's way into `targets::http_preface`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_fuzz::targets::http_preface(bytes));
