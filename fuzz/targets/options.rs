//! See `hostmount_fuzz::targets::options`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostmount_fuzz::targets::options::check(bytes));
