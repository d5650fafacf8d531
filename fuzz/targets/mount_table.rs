//! See `hostmount_fuzz::targets::mount_table`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostmount_fuzz::targets::mount_table::check(bytes));
