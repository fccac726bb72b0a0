//! Header fields in one instruction.
//!
//! For the eBPF target, rustc makes of an access at alignment 1 one of single bytes, with shifts between them and a good part
//! of the stack for what is not shifted yet. The verifier allows packets to be read and written at any alignment on
//! machines that can do it (x86-64, arm64; not so the stack), so the instructions are written out here.

use crate::wire::Header;

macro_rules! access {
    ($load:ident, $store:ident, $bytes:literal, $int:ty, $load_instruction:literal, $store_instruction:literal) => {
        /// Loads a field as a number in the machine's byte order.
        #[inline(always)]
        pub fn $load(field: &[u8; $bytes]) -> $int {
            #[cfg(target_arch = "bpf")]
            {
                let value: u64;
                // SAFETY: reads the field's bytes and nothing else.
                unsafe {
                    core::arch::asm!(
                        $load_instruction,
                        value = out(reg) value,
                        field = in(reg) field.as_ptr(),
                        options(pure, readonly, nostack, preserves_flags)
                    )
                };
                // Else it would be cut to its size once more.
                // SAFETY: a load of fewer bytes than the register has leaves 0 in the others.
                unsafe { core::hint::assert_unchecked(value <= <$int>::MAX as u64) };
                value as $int
            }
            #[cfg(not(target_arch = "bpf"))]
            <$int>::from_ne_bytes(*field)
        }

        /// Stores a number in the machine's byte order into a field.
        #[inline(always)]
        pub fn $store(field: &mut [u8; $bytes], value: $int) {
            #[cfg(target_arch = "bpf")]
            // SAFETY: writes the field's bytes and nothing else.
            unsafe {
                core::arch::asm!(
                    $store_instruction,
                    value = in(reg) value as u64,
                    field = in(reg) field.as_mut_ptr(),
                    options(nostack, preserves_flags)
                )
            };
            #[cfg(not(target_arch = "bpf"))]
            {
                *field = value.to_ne_bytes();
            }
        }
    };
}

access!(load16, store16, 2, u16, "{value} = *(u16 *)({field} + 0)", "*(u16 *)({field} + 0) = {value}");
access!(load32, store32, 4, u32, "{value} = *(u32 *)({field} + 0)", "*(u32 *)({field} + 0) = {value}");
access!(load64, store64, 8, u64, "{value} = *(u64 *)({field} + 0)", "*(u64 *)({field} + 0) = {value}");

macro_rules! access_at {
    ($load:ident, $store:ident, $int:ty, $load_instruction:literal, $store_instruction:literal) => {
        /// Loads a number at this offset of a header: the offset is in the instruction.
        #[inline(always)]
        pub fn $load<const OFFSET: usize, T: Header>(header: &T) -> $int {
            const { assert!(OFFSET + size_of::<$int>() <= size_of::<T>(), "it lies in the header") };
            #[cfg(target_arch = "bpf")]
            {
                let value: u64;
                // SAFETY: reads bytes of the header and nothing else.
                unsafe {
                    core::arch::asm!(
                        $load_instruction,
                        value = out(reg) value,
                        header = in(reg) &raw const *header,
                        offset = const OFFSET,
                        options(pure, readonly, nostack, preserves_flags)
                    )
                };
                // Else it would be cut to its size once more.
                // SAFETY: a load of fewer bytes than the register has leaves 0 in the others.
                unsafe { core::hint::assert_unchecked(value <= <$int>::MAX as u64) };
                value as $int
            }
            #[cfg(not(target_arch = "bpf"))]
            // SAFETY: the number lies in the header, whose bytes may be read as anything.
            unsafe {
                (&raw const *header).cast::<u8>().add(OFFSET).cast::<$int>().read_unaligned()
            }
        }

        /// Stores a number at this offset of a header.
        #[inline(always)]
        pub fn $store<const OFFSET: usize, T: Header>(header: &mut T, value: $int) {
            const { assert!(OFFSET + size_of::<$int>() <= size_of::<T>(), "it lies in the header") };
            #[cfg(target_arch = "bpf")]
            // SAFETY: writes bytes of the header and nothing else.
            unsafe {
                core::arch::asm!(
                    $store_instruction,
                    value = in(reg) value as u64,
                    header = in(reg) &raw mut *header,
                    offset = const OFFSET,
                    options(nostack, preserves_flags)
                )
            };
            #[cfg(not(target_arch = "bpf"))]
            // SAFETY: as in the load; any bytes are a value of the header.
            unsafe {
                (&raw mut *header).cast::<u8>().add(OFFSET).cast::<$int>().write_unaligned(value);
            }
        }
    };
}

access_at!(
    load16_at,
    store16_at,
    u16,
    "{value} = *(u16 *)({header} + {offset})",
    "*(u16 *)({header} + {offset}) = {value}"
);
access_at!(
    load32_at,
    store32_at,
    u32,
    "{value} = *(u32 *)({header} + {offset})",
    "*(u32 *)({header} + {offset}) = {value}"
);
access_at!(
    load64_at,
    store64_at,
    u64,
    "{value} = *(u64 *)({header} + {offset})",
    "*(u64 *)({header} + {offset}) = {value}"
);
