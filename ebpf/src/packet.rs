//! The bytes of an XDP frame, checked against its end at every access: what the verifier wants to see.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len};
use xlvs_core::errand::Question;
use xlvs_core::packet::{self, Beyond, Packet};
use xlvs_core::wire::Header;

/// A field of the context: `data` is at 0, `data_end` at 4, `data_meta` at 8. Read so that the compiler does not know it for a number of 32 bits, to
/// which it would cut it down after a spill: the verifier would take it for a number, too.
///
/// Told that nothing but the context decides it (`nomem`), the compiler asks once, and compares once with the frame's end for views of
/// the same extent; whoever moves an end of the frame makes the context an unknown one then.
macro_rules! word {
    ($ctx:expr, $offset:literal, $memory:ident) => {{
        let word: usize;
        // SAFETY: the kernel hands a valid context to the entry point, and it lives as long as the program runs.
        unsafe {
            core::arch::asm!(
                concat!("{word} = *(u32 *)({ctx} + ", $offset, ")"),
                word = out(reg) word,
                ctx = in(reg) $ctx,
                options(nostack, preserves_flags, pure, $memory)
            );
        }
        word
    }};
}

/// The same number, of which the compiler knows nothing: it would make one comparison of two, of which the verifier takes only
/// each for itself, or take the pointers apart again that the number is the difference of.
#[inline(always)]
pub fn unknown(mut number: usize) -> usize {
    // SAFETY: the register keeps its value.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) number, options(nostack, preserves_flags)) };
    number
}

/// The same context, of which the compiler knows nothing.
#[inline(always)]
fn unknown_context(mut ctx: *mut xdp_md) -> *mut xdp_md {
    // SAFETY: the register keeps its value.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) ctx, options(nostack, preserves_flags)) };
    ctx
}

/// An XDP frame on the short way: what it has besides its first buffer is not there, and one of less than [`SHORTEST`] bytes has no
/// headers.
pub type ShortPacket = AnyPacket<SHORT>;

/// An XDP frame. Headers are in its first buffer.
pub type XdpPacket = AnyPacket<WHOLE>;

/// An XDP frame that may be the head of a packet about which the daemon asks: then a question lies in front of it.
pub type AskedPacket = AnyPacket<ASKED>;

/// Ethernet, IPv4 and UDP. Frames are filled up to more than that.
const SHORTEST: usize = 42;

const SHORT: u8 = 0;
const WHOLE: u8 = 1;
const ASKED: u8 = 2;

/// One of these.
pub struct AnyPacket<const KIND: u8> {
    ctx: *mut xdp_md,
}

impl AskedPacket {
    /// The daemon's question, if it is one that asks.
    #[inline(always)]
    pub fn question_mut(&mut self) -> Option<&mut Question> {
        // SAFETY: as in `question`; exclusive because `self` is.
        self.question_at().map(|at| unsafe { &mut *at })
    }
}

impl<const KIND: u8> AnyPacket<KIND> {
    /// The frame of this context.
    #[inline(always)]
    pub fn new(ctx: *mut xdp_md) -> Self {
        Self { ctx }
    }

    /// Its context.
    #[inline(always)]
    pub fn ctx(&self) -> *mut xdp_md {
        self.ctx
    }

    #[inline(always)]
    fn question(&self) -> Option<&Question> {
        // SAFETY: `question_at` checked that all of it lies before the frame; any bytes are one, of alignment 1; it
        // stays until the frame moves, for which `&mut self` is needed.
        self.question_at().map(|at| unsafe { &*at })
    }

    #[inline(always)]
    fn question_at(&self) -> Option<*mut Question> {
        if KIND != ASKED {
            return None;
        }
        let at = word!(self.ctx, 8, readonly);
        // Frames from the wire have their metadata's beginning at, or (where a driver has none) behind, their own.
        if at + Question::LEN > self.start() {
            return None;
        }
        let at = at as *mut Question;
        // SAFETY: it lies before the frame, as was just seen.
        unsafe { (*at).is_one() }.then_some(at)
    }

    #[inline(always)]
    fn bytes_beyond(&self) -> usize {
        self.question().map_or(0, Question::beyond) as usize
    }

    #[inline(always)]
    fn in_first_buffer(&self) -> usize {
        self.end() - self.start()
    }

    /// Bytes of the frame in all its buffers.
    #[inline(always)]
    fn in_all_buffers(&self) -> usize {
        // SAFETY: the context is valid.
        unsafe { bpf_xdp_get_buff_len(self.ctx) as usize }
    }

    #[inline(always)]
    fn start(&self) -> usize {
        // With a question in front, stages need their stack for other things than what was asked already.
        if KIND == ASKED { word!(self.ctx, 0, readonly) } else { word!(self.ctx, 0, nomem) }
    }

    #[inline(always)]
    fn end(&self) -> usize {
        if KIND == ASKED { word!(self.ctx, 4, readonly) } else { word!(self.ctx, 4, nomem) }
    }

    /// An end of the frame moved: what was known of it is so no longer.
    #[inline(always)]
    fn moved(&mut self) {
        if KIND != ASKED {
            self.ctx = unknown_context(self.ctx);
        }
    }

    #[inline(always)]
    fn at<T: Header>(&self, offset: usize) -> Option<*mut T> {
        let at = self.start() + offset;
        // SAFETY: no packet begins before the first page. Else every `Option` of a view would be tested once more.
        unsafe { core::hint::assert_unchecked(at != 0) };
        let is_near = packet::is_constant(offset) && offset + size_of::<T>() <= SHORTEST;
        let end = if KIND == SHORT && is_near {
            // One comparison for all of these.
            self.start() + SHORTEST
        } else {
            at + size_of::<T>()
        };
        (end <= self.end()).then_some(at as *mut T)
    }
}

impl<const KIND: u8> Packet for AnyPacket<KIND> {
    #[inline(always)]
    fn len(&self) -> usize {
        match KIND {
            SHORT => self.end() - self.start(),
            WHOLE => self.in_all_buffers(),
            _ => self.in_all_buffers() + self.bytes_beyond(),
        }
    }

    #[inline(always)]
    fn reaches(&self, bytes: usize) -> bool {
        bytes <= self.in_first_buffer() || (KIND != SHORT && bytes <= self.len())
    }

    /// Where the packet ends with the first buffer, what other buffers may have is not asked for, as on the short way.
    #[inline(always)]
    fn behind(&self, bytes: usize) -> usize {
        if KIND != SHORT && self.in_first_buffer() == bytes {
            return self.bytes_beyond();
        }
        self.len().wrapping_sub(bytes)
    }

    #[inline(always)]
    fn apart<R>(&mut self, act: impl FnOnce(&mut Self) -> R) -> R {
        let result = act(&mut Self::new(self.ctx));
        self.moved();
        result
    }

    #[inline(always)]
    fn largest_fragment(&self) -> u16 {
        self.question().map_or(0, Question::largest_fragment)
    }

    #[inline(always)]
    fn beyond(&self) -> Beyond {
        match self.question() {
            Some(question) => Beyond { bytes: question.beyond(), sum: question.sum_beyond() },
            None => Beyond { bytes: 0, sum: 0 },
        }
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
        let done = unsafe { bpf_xdp_adjust_head(self.ctx, -(by as i32)) == 0 };
        self.moved();
        done
    }

    #[inline(always)]
    fn shrink_head(&mut self, by: usize) -> bool {
        // SAFETY: the context is valid; the helper checks the length.
        let done = unsafe { bpf_xdp_adjust_head(self.ctx, by as i32) == 0 };
        self.moved();
        done
    }

    #[inline(always)]
    fn trim_tail(&mut self, by: usize) -> bool {
        let mut by = by;
        if let Some(at) = self.question_at() {
            // SAFETY: `question_at` checked that it lies before the frame.
            let question = unsafe { &mut *at };
            let beyond = question.beyond() as usize;
            if by < beyond {
                // What is at hand stays whole, and its sum is no longer known; nobody asks for it after this.
                question.set_beyond((beyond - by) as u16);
                return true;
            }
            question.set_nothing_beyond();
            by -= beyond;
            if by == 0 {
                return true;
            }
        }
        // SAFETY: the context is valid; the helper checks the length.
        let done = unsafe { bpf_xdp_adjust_tail(self.ctx, -(by as i32)) == 0 };
        self.moved();
        done
    }
}
