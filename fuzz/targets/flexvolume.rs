//! See `hostmount_fuzz::targets::flexvolume`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostmount_fuzz::targets::flexvolume::check(bytes));
