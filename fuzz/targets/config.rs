//! See `hostmount_fuzz::targets::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostmount_fuzz::targets::config::check(bytes));
