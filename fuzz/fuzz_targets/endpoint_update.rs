//! libFuzzer's way into `targets::endpoint_update`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_fuzz::targets::endpoint_update(bytes));
