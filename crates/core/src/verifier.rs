//! What the kernel's verifier must be shown, and what the compiler must not do for it to see that.

/// The same number, of which the compiler knows nothing, and before which nothing that follows is begun: on the eBPF
/// target, with its 512 bytes of stack, it would load eight words first and spill them, and unroll rare loops.
#[inline(always)]
pub(crate) fn in_turn(n: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut n = n;
        // SAFETY: the register keeps its value.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) n, options(nostack, preserves_flags)) };
        n
    }
    #[cfg(not(target_arch = "bpf"))]
    n
}

/// A number's lowest bits, masked last. Before Linux 6.3 the verifier knows nothing of what an `or` or `xor` of 32 bits leaves, so
/// a mask that the compiler applies to the operands instead does not show it that an index is within an array.
#[inline(always)]
pub(crate) fn low_bits<const MASK: u64>(n: u64) -> usize {
    (in_turn(n) & MASK) as usize
}
