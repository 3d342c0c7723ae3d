//! Gives memory back to the kernel after a load: the kernel's BTF alone is some 60 MB of small allocations,
//! and glibc keeps what was freed between those that stay.
#![expect(unsafe_code, reason = "nobody wraps malloc_trim")]

/// Returns free heap pages to the kernel. Only glibc needs to be told.
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no precondition; it locks the arenas itself.
    let _ = unsafe { libc::malloc_trim(0) };
}
