//! See `hostmount_fuzz::targets::record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostmount_fuzz::targets::record::check(bytes));
