//! A map's memory in our address space.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

/// A shared, writable mapping of a BPF array (`BPF_F_MMAPABLE`, since Linux 5.5).
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// Maps the first `len` bytes of the map's values.
    pub fn of(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        use nix::sys::mman::{MapFlags, ProtFlags, mmap};
        let size = std::num::NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe {
            mmap(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, fd, 0)?
        };
        Ok(Self { start: start.cast(), len })
    }

    /// Its first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// How many bytes it has.
    pub fn size(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, and whoever handed out references into it is dropped with it.
        let _unmapped = unsafe { nix::sys::mman::munmap(self.start.cast(), self.len) };
    }
}
