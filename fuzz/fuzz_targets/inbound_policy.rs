//! libFuzzer's way into `targets::inbound_policy`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_fuzz::targets::inbound_policy(bytes));
