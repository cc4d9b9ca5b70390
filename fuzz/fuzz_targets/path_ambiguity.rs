//! libFuzzer's way into `targets::path_ambiguity`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_fuzz::targets::path_ambiguity(bytes));
