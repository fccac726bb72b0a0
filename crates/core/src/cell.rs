//! Shared memory cells: the same word in the kernel, in the daemon's mapping of it, under host threads and under loom.
//!
//! `core`'s atomics lack read-modify-write on the eBPF target, so there the intrinsics are called; the cell has
//! the same size and meaning everywhere.

#[cfg(all(not(loom), not(target_arch = "bpf")))]
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
#[cfg(loom)]
use loom::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

#[cfg(target_arch = "bpf")]
use core::cell::UnsafeCell;
#[cfg(target_arch = "bpf")]
use core::intrinsics::{AtomicOrdering as Order, atomic_cxchg, atomic_xadd};

macro_rules! cell {
    ($(#[$doc:meta])* $name:ident, $int:ty, $atomic:ident) => {
        $(#[$doc])*
        #[cfg(not(target_arch = "bpf"))]
        #[repr(transparent)]
        #[derive(Debug, Default)]
        pub struct $name($atomic);

        $(#[$doc])*
        #[cfg(target_arch = "bpf")]
        #[repr(transparent)]
        pub struct $name(UnsafeCell<$int>);

        #[cfg(not(target_arch = "bpf"))]
        impl $name {
            /// A cell that holds `value`.
            pub fn new(value: $int) -> Self {
                Self($atomic::new(value))
            }

            /// Reads; later reads of other cells are not moved before it.
            #[inline(always)]
            pub fn load(&self) -> $int {
                self.0.load(Ordering::Acquire)
            }

            /// Writes; earlier writes to other cells are seen by whoever sees this one.
            #[inline(always)]
            pub fn store(&self, value: $int) {
                self.0.store(value, Ordering::Release);
            }

            /// Compare-and-swap. `Err` carries what was there instead.
            #[inline(always)]
            pub fn swap_if(&self, old: $int, new: $int) -> Result<(), $int> {
                self.0.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(|_| ())
            }

            /// Adds (wrapping; subtract by adding the two's complement) and returns the value before.
            #[inline(always)]
            pub fn add(&self, by: $int) -> $int {
                self.0.fetch_add(by, Ordering::SeqCst)
            }
        }

        #[cfg(target_arch = "bpf")]
        impl $name {
            /// Reads; later reads of other cells are not moved before it.
            #[inline(always)]
            pub fn load(&self) -> $int {
                // SAFETY: the cell is a live, aligned integer that is only ever accessed whole.
                unsafe { self.0.get().read_volatile() }
            }

            /// Writes; earlier writes to other cells are seen by whoever sees this one.
            #[inline(always)]
            pub fn store(&self, value: $int) {
                // SAFETY: as in `load`.
                unsafe { self.0.get().write_volatile(value) }
            }

            /// Compare-and-swap. `Err` carries what was there instead.
            #[inline(always)]
            pub fn swap_if(&self, old: $int, new: $int) -> Result<(), $int> {
                // SAFETY: as in `load`.
                let (was, done) =
                    unsafe { atomic_cxchg::<$int, { Order::SeqCst }, { Order::SeqCst }>(self.0.get(), old, new) };
                if done { Ok(()) } else { Err(was) }
            }

            /// Adds (wrapping; subtract by adding the two's complement) and returns the value before.
            #[inline(always)]
            pub fn add(&self, by: $int) -> $int {
                // SAFETY: as in `load`.
                unsafe { atomic_xadd::<$int, $int, { Order::SeqCst }>(self.0.get(), by) }
            }
        }
    };
}

cell!(
    /// A shared 64-bit word.
    Cell64,
    u64,
    AtomicU64
);
cell!(
    /// A shared byte.
    Cell8,
    u8,
    AtomicU8
);
cell!(
    /// A shared 32-bit word.
    Cell32,
    u32,
    AtomicU32
);

/// Between a swap and the reads after it: whoever swaps a cell, comes by here and reads another cell, while another
/// processor does the same the other way round, can be sure that one of both sees the other's swap.
///
/// A read may otherwise overtake the swap before it. In the kernel it cannot: eBPF's swaps are full barriers.
#[inline(always)]
pub fn barrier() {
    #[cfg(all(not(loom), not(target_arch = "bpf")))]
    core::sync::atomic::fence(Ordering::SeqCst);
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
}

impl Cell64 {
    /// The lower half of [`Cell64::load`]'s.
    #[inline(always)]
    pub fn load_low(&self) -> u32 {
        #[cfg(target_arch = "bpf")]
        {
            // Read as such: cut off afterwards, it would take two more instructions.
            // SAFETY: the target is little-endian, so the first half of the live, aligned integer is its lower one.
            unsafe { self.0.get().cast::<u32>().read_volatile() }
        }
        #[cfg(not(target_arch = "bpf"))]
        {
            self.load() as u32
        }
    }

    /// Adds without a bus lock: for a counter that only this processor writes.
    #[inline(always)]
    pub fn bump(&self, by: u64) {
        self.store(self.load().wrapping_add(by));
    }
}

#[cfg(target_arch = "bpf")]
// SAFETY: every access is a single volatile or atomic access of the whole integer.
unsafe impl Sync for Cell64 {}
#[cfg(target_arch = "bpf")]
// SAFETY: as for `Cell64`.
unsafe impl Sync for Cell32 {}
#[cfg(target_arch = "bpf")]
// SAFETY: as for `Cell64`.
unsafe impl Sync for Cell8 {}
