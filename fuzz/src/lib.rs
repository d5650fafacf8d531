//! What must hold of everything that hostmount reads and others write, whatever the bytes are: not only that nothing
//! panics, but that what was read is written back as it was, and that nobody gets more than their grant.
//!
//! Pure. A fuzzer calls each function with bytes of its own (`make fuzz`, docs/fuzzing.md), and `cargo test` with the seeds:
//! what a fuzzer has found stays as a seed.

pub mod targets;
