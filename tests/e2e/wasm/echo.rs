//! Answers `{"got": ARGUMENTS}`; spins when the arguments say `"spin"`. `echo.wasm` is this file, compiled:
//! `rustc --edition 2024 --target wasm32-wasip1 -C panic=abort -C opt-level=z -C strip=symbols -C lto -C link-self-contained=no
//! -C link-arg=-zstack-size=16384 -C link-arg=--no-entry -C link-arg=--export=_start -o echo.wasm echo.rs`
#![no_std]
#![no_main]

#[repr(C)]
struct Part {
    at: *mut u8,
    len: usize,
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn fd_read(fd: u32, parts: *const Part, count: usize, read: *mut usize) -> u32;
    fn fd_write(fd: u32, parts: *const Part, count: usize, written: *mut usize) -> u32;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

static mut SPACE: [u8; 4096] = [0; 4096];

fn write(bytes: &[u8]) {
    let part = Part { at: bytes.as_ptr().cast_mut(), len: bytes.len() };
    let mut written = 0;
    unsafe { fd_write(1, &part, 1, &mut written) };
}

#[unsafe(no_mangle)]
extern "C" fn _start() {
    let space = unsafe { &mut *core::ptr::addr_of_mut!(SPACE) };
    let mut len = 0;
    while len < space.len() {
        let part = Part { at: space[len..].as_mut_ptr(), len: space.len() - len };
        let mut read = 0;
        if unsafe { fd_read(0, &part, 1, &mut read) } != 0 || read == 0 {
            break;
        }
        len += read;
    }
    let given = &space[..len];
    while given.windows(6).any(|word| word == b"\"spin\"") {}
    write(b"{\"got\": ");
    write(given);
    write(b"}");
}
