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

/// A number's lowest bits, masked last, so that the verifier sees that an index is within an array. The compiler would mask the operands
/// of an `or` or `xor` instead, of whose result older verifiers know nothing, or compare another number that tells the same.
#[inline(always)]
pub(crate) fn low_bits<const MASK: u64>(n: u64) -> usize {
    (in_turn(n) & MASK) as usize
}
