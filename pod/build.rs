//! Links the program small where it is optimized: it goes into every pod.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=small.ld");
    if env::var("OPT_LEVEL").is_ok_and(|level| level != "0") {
        let script = format!("{}/small.ld", env::var("CARGO_MANIFEST_DIR").unwrap_or_default());
        for argument in [&*format!("-T,{script}"), "--no-eh-frame-hdr", "-z,pack-relative-relocs"] {
            println!("cargo::rustc-link-arg-bins=-Wl,{argument}");
        }
    }
}
