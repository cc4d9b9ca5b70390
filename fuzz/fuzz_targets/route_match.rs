//! libFuzzer's way into `targets::route_match`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_fuzz::targets::route_match(bytes));
