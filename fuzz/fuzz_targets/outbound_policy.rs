//! libFuzzer's way into `targets::outbound_policy`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_fuzz::targets::outbound_policy(bytes));
