//! The bytes of an XDP frame, checked against its end at every access: what the verifier wants to see.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use xlvs_core::packet::Packet;
use xlvs_core::wire::Header;

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
        // SAFETY: the kernel hands a valid context to the entry point, and it lives as long as the program runs.
        unsafe { (*self.ctx).data as usize }
    }

    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: as in `start`.
        unsafe { (*self.ctx).data_end as usize }
    }

    #[inline(always)]
    fn at<T: Header>(&self, offset: usize) -> Option<*mut T> {
        let at = self.start() + offset;
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
    fn trim_tail(&mut self, by: usize) -> bool {
        // SAFETY: the context is valid; the helper checks the length.
        unsafe { bpf_xdp_adjust_tail(self.ctx, -(by as i32)) == 0 }
    }
}
