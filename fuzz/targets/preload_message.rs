//! See `hostmount_fuzz::targets::preload_message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostmount_fuzz::targets::preload_message::check(bytes));
