//! What the filter knows of the processor: all that is different from one to the next is here.
//!
//! Pure. Numbers of system calls and layouts of structures are those of the libc crate, for the target that is compiled for; what it
//! lacks has the same number on all that Linux has got since 5.0.

#[cfg(target_arch = "x86_64")]
mod this {
    /// AUDIT_ARCH_X86_64.
    pub(super) const NATIVE: u32 = 0xc000_003e;
    /// There is nothing like them elsewhere: I/O ports, and segments.
    pub(super) const FORBIDDEN: &[(i64, &str)] =
        &[(libc::SYS_iopl, "iopl"), (libc::SYS_ioperm, "ioperm"), (libc::SYS_modify_ldt, "modify_ldt")];
}

#[cfg(target_arch = "aarch64")]
mod this {
    /// AUDIT_ARCH_AARCH64.
    pub(super) const NATIVE: u32 = 0xc000_00b7;
    pub(super) const FORBIDDEN: &[(i64, &str)] = &[];
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the filter for helpers is made for x86_64 and aarch64; another processor's numbers go here");

// The filter loads the lower half of an argument from where a little-endian machine has it.
#[cfg(not(target_endian = "little"))]
compile_error!("the filter for helpers reads arguments as little-endian machines have them");

/// Which calls are known, as the kernel names their architecture: those of a program for another one are not performed.
pub(super) const NATIVE: u32 = this::NATIVE;

/// Calls that no helper needs, beside those that all architectures have.
pub(super) const FORBIDDEN: &[(i64, &str)] = this::FORBIDDEN;

/// System calls with this bit are x32's, which share x86_64's architecture number. No number is as high elsewhere.
pub(super) const X32_BIT: u32 = 0x4000_0000;
