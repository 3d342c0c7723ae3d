//! The BPF programs of AION, one object.
//!
//! Every program asks first: is this an agent? A process that is not costs one failed look-up. Records are
//! written by `emit`, which counts each one that is lost. `shim/kernel.c` reads the kernel's structures.
#![no_std]
#![no_main]

/// A line for the debugger's eyes; nothing at all unless the feature `log` is on.
macro_rules! trace_log {
    ($ctx:expr, $($arg:tt)*) => {
        #[cfg(feature = "log")]
        aya_log_ebpf::debug!($ctx, $($arg)*);
    };
}
pub(crate) use trace_log;

mod agent;
mod device;
mod egress;
mod emit;
mod limits;
mod lsm;
mod maps;
mod net;
mod ngrams;
mod oom;
mod process;
mod shim;
mod syscalls;
mod withheld;

/// Lends the kernel's GPL-only helpers to the programs: they are Apache-2.0 or GPL-2.0, at the choice of who uses them.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 26] = *b"GPL and additional rights\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
