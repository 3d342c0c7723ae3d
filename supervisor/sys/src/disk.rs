//! Asking the disk to begin.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::raw::call;

/// Has the kernel begin to write a range of a file, without waiting. It is a hint: a failure changes nothing.
pub fn begin_writing(file: BorrowedFd<'_>, offset: u64, len: u64) {
    const SYNC_FILE_RANGE_WRITE: libc::c_uint = 2;
    let _ = call!(libc::SYS_sync_file_range, file.as_raw_fd(), offset, len, SYNC_FILE_RANGE_WRITE);
}
