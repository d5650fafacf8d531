//! See `hostmount_fuzz::targets::documents`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostmount_fuzz::targets::documents::check(bytes));
