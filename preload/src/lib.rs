//! Reserved for the preload engine: `mount()`, `umount()` … for `LD_PRELOAD`.
