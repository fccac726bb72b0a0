//! What a loop carries from one turn to the next, hidden from the verifier.
//!
//! Until Linux 6.7 ("verify callbacks as if they are called unknown number of times") the verifier looks at the body of a `bpf_loop` once,
//! as if there were neither a second turn nor a loop without any. What it knows of a number before the loop it holds for true in every
//! turn, and what the body leaves there it holds for true behind the loop; branches that it does not reach in this way it takes out of the
//! program. So every number that a turn leaves to the next, or to who comes behind the loop,
//! is one of these: of it the verifier knows nothing, and what it looks at once stands for any turn.

/// A number that turns of a loop hand on.
pub struct Carried<N>(N);

impl<N: Number> Carried<N> {
    /// With this value before the first turn.
    #[inline(always)]
    pub fn new(n: N) -> Self {
        Self(n.hidden())
    }

    /// Its value.
    #[inline(always)]
    pub const fn get(&self) -> N {
        self.0
    }

    /// Has it another value.
    #[inline(always)]
    pub fn set(&mut self, n: N) {
        self.0 = n.hidden();
    }
}

/// What can be carried.
pub trait Number: Copy {
    /// The same number, of which neither the compiler nor the verifier knows anything.
    #[must_use]
    fn hidden(self) -> Self;
}

impl Number for u64 {
    #[inline(always)]
    fn hidden(self) -> Self {
        #[cfg(target_arch = "bpf")]
        {
            let mut n = self;
            // Of what a negation makes these verifiers know nothing.
            // SAFETY: twice the negative is the same number.
            unsafe {
                core::arch::asm!("{0} = -{0}", "{0} = -{0}", inout(reg) n, options(nostack, preserves_flags));
            }
            n
        }
        #[cfg(not(target_arch = "bpf"))]
        self
    }
}

impl Number for u32 {
    #[inline(always)]
    fn hidden(self) -> Self {
        (self as u64).hidden() as u32
    }
}

impl Number for bool {
    #[inline(always)]
    fn hidden(self) -> Self {
        (self as u64).hidden() & 1 != 0
    }
}
