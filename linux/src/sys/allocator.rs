//! How much memory glibc's malloc(3) keeps for itself, see mallopt(3).

/// From now on all threads share two arenas. Usually there may be eight for each processor, and each keeps what its largest hour
/// has needed: sixteen copies of a large mount table, on two processors. To be called before there are threads.
pub fn share_arenas() {
    // SAFETY: a number for a parameter that malloc(3) looks at when a thread allocates for the first time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2)
    };
}
