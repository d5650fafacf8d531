//! See `hostmount_fuzz::targets::pod`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostmount_fuzz::targets::pod::check(bytes));
