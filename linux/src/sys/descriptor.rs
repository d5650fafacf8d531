//! Descriptors that we know by number only: those inherited from the process that started us.

/// Marks descriptor `number` close-on-exec; one that is not open is left alone.
pub fn close_on_exec(number: i32) {
    // SAFETY: fcntl(F_SETFD) takes plain numbers and changes a flag only; ownership stays where it is.
    unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
}
