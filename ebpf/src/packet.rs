//! The bytes of an XDP frame, checked against its end at every access: what the verifier wants to see.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use xlvs_core::packet::Packet;
use xlvs_core::wire::Header;

/// A field of the context: `data` is at 0, `data_end` at 4. Read so that the compiler does not know it for a number of 32 bits, to
/// which it would cut it down after a spill: the verifier would take it for a number, too.
macro_rules! word {
    ($ctx:expr, $offset:literal) => {{
        let word: usize;
        // SAFETY: the kernel hands a valid context to the entry point, and it lives as long as the program runs.
        unsafe {
            core::arch::asm!(
                concat!("{word} = *(u32 *)({ctx} + ", $offset, ")"),
                word = out(reg) word,
                ctx = in(reg) $ctx,
                options(nostack, preserves_flags, pure, readonly)
            );
        }
        word
    }};
}

/// An XDP frame.
pub struct XdpPacket {
    ctx: *mut xdp_md,
}

impl XdpPacket {
    /// The frame of this context.
    #[inline(always)]
    pub fn new(ctx: *mut xdp_md) -> Self {
        Self { ctx }
    }

    #[inline(always)]
    fn start(&self) -> usize {
        word!(self.ctx, 0)
    }

    #[inline(always)]
    fn end(&self) -> usize {
        word!(self.ctx, 4)
    }

    #[inline(always)]
    fn at<T: Header>(&self, offset: usize) -> Option<*mut T> {
        let at = self.start() + offset;
        // SAFETY: no packet begins before the first page. Else every `Option` of a view would be tested once more.
        unsafe { core::hint::assert_unchecked(at != 0) };
        (at + size_of::<T>() <= self.end()).then_some(at as *mut T)
    }
}

impl Packet for XdpPacket {
    #[inline(always)]
    fn len(&self) -> usize {
        self.end() - self.start()
    }

    #[inline(always)]
    fn header<T: Header>(&self, offset: usize) -> Option<&T> {
        // SAFETY: `at` checked that all of `T` lies inside the frame; `Header` promises that any bytes are a value and
        // alignment 1; the view ends before the frame moves because moving takes `&mut self`.
        self.at::<T>(offset).map(|at| unsafe { &*at })
    }

    #[inline(always)]
    fn header_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T> {
        // SAFETY: as in `header`; exclusive because `self` is.
        self.at::<T>(offset).map(|at| unsafe { &mut *at })
    }

    #[inline(always)]
    fn grow_head(&mut self, by: usize) -> bool {
        // SAFETY: the context is valid; the helper checks the headroom.
        unsafe { bpf_xdp_adjust_head(self.ctx, -(by as i32)) == 0 }
    }

    #[inline(always)]
    fn shrink_head(&mut self, by: usize) -> bool {
        // SAFETY: the context is valid; the helper checks the length.
        unsafe { bpf_xdp_adjust_head(self.ctx, by as i32) == 0 }
    }

    #[inline(always)]
    fn trim_tail(&mut self, by: usize) -> bool {
        // SAFETY: the context is valid; the helper checks the length.
        unsafe { bpf_xdp_adjust_tail(self.ctx, -(by as i32)) == 0 }
    }
}
