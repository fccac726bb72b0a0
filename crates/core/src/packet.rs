//! Access to the bytes of a packet: generic, since the verifier accepts pointers checked against the end of the
//! packet but no slices made from them.

use crate::checksum::Update;
use crate::wire::Header;

/// A packet that can be read, rewritten and given a new head.
///
/// Offsets count from the frame's first byte. Views end when the head moves, which is why those calls take `&mut self`.
pub trait Packet {
    /// Frame length in bytes.
    fn len(&self) -> usize;

    /// Has the frame at least so many bytes?
    #[inline(always)]
    fn reaches(&self, bytes: usize) -> bool {
        bytes <= self.len()
    }

    /// How many bytes the frame has behind its first so many, all of which it has.
    #[inline(always)]
    fn behind(&self, bytes: usize) -> usize {
        self.len().wrapping_sub(bytes)
    }

    /// The header at `offset`, if the frame holds all of it.
    fn header<T: Header>(&self, offset: usize) -> Option<&T>;

    /// The header at `offset`, to be changed.
    fn header_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T>;

    /// Puts `by` bytes of undefined content before the frame's first byte. `false`: no room, nothing happened.
    #[must_use]
    fn grow_head(&mut self, by: usize) -> bool;

    /// Takes `by` bytes from the frame's beginning. `false`: not that many there, nothing happened.
    #[must_use]
    fn shrink_head(&mut self, by: usize) -> bool;

    /// Takes `by` bytes from the frame's end. `false`: not that many there, nothing happened.
    #[must_use]
    fn trim_tail(&mut self, by: usize) -> bool;

    /// Does the kernel keep notes beside the packet: of a checksum that is left to the device, of packets that are still one? Then what
    /// they are about is asked and changed by the four methods that follow, else they are not needed.
    const KEEPS_NOTES: bool = false;

    /// [`Self::grow_head`] for the outer headers of a tunnel, of which the kernel makes a note.
    #[must_use]
    #[inline(always)]
    fn grow_head_for(&mut self, outer: Outer) -> bool {
        self.grow_head(outer.len)
    }

    /// What decides whether an IP packet of so many bytes is too long: of one that is many packets still, the longest of these.
    #[inline(always)]
    fn judged(&self, len: u16) -> u16 {
        len
    }

    /// Fits the transport checksum at this offset to what changed in the pseudo header and in the packet itself. Where it is optional, 0
    /// says that there is none. `false`: it is out of reach.
    #[must_use]
    #[inline(always)]
    fn fit_checksum(&mut self, _at: usize, _pseudo: Update, _own: Update, _is_optional: bool) -> bool {
        false
    }

    /// Is the transport checksum left to the device that the packet leaves by? What stands in its place is the pseudo header's sum.
    #[inline(always)]
    fn is_left_to_device(&mut self) -> bool {
        false
    }

    /// The largest of the fragments that the packet was put together from, in bytes as an IP packet; 0: it came whole.
    #[inline(always)]
    fn largest_fragment(&self) -> u16 {
        0
    }

    /// What of the packet lies beyond the bytes that are at hand: of a long one that is asked about only the head is.
    #[inline(always)]
    fn beyond(&self) -> Beyond {
        Beyond { bytes: 0, sum: 0 }
    }

    /// Hands the packet to a function with a stack frame of its own. In the kernel it sees a view of the same frame that is its own:
    /// what is known of this one can then stay in registers.
    #[inline(always)]
    fn apart<R>(&mut self, act: impl FnOnce(&mut Self) -> R) -> R
    where
        Self: Sized,
    {
        act(self)
    }

    /// Has the frame no bytes?
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The headers that a tunnel puts in front of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Their bytes.
    pub len: usize,
    /// Is the outer IP header one of IPv6?
    pub is_v6: bool,
    /// What lies between it and the packet.
    pub within: Within,
    /// Is there a checksum of all that follows?
    pub is_summed: bool,
}

/// What a packet in a tunnel is the payload of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    /// IP itself.
    Ip,
    /// GRE.
    Gre,
    /// UDP.
    Udp,
}

/// The end of a packet that is not at hand. It counts in [`Packet::len`], and begins at an even place. Without bytes, its sum is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beyond {
    /// How many bytes.
    pub bytes: u16,
    /// Their sum (RFC 1071), in this machine's order of bytes.
    pub sum: u16,
}

/// The same packet, of which the compiler knows nothing. Of what a function only reads it would hand over the contents instead
/// of the reference: of a packet in 32 bits, which the verifier takes for numbers, and of much else in more arguments
/// than the target has.
#[inline(always)]
pub(crate) fn by_reference<P>(packet: &mut P) -> &mut P {
    #[cfg(target_arch = "bpf")]
    {
        let mut packet: *mut P = packet;
        // SAFETY: the register keeps its value, so it is the same exclusive reference.
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) packet, options(nostack, preserves_flags));
            &mut *packet
        }
    }
    #[cfg(not(target_arch = "bpf"))]
    packet
}

/// Does the compiler know this number?
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub fn is_constant(number: usize) -> bool {
    core::intrinsics::is_val_statically_known(number)
}

/// A packet in host memory, with headroom as XDP gives it.
#[cfg(not(target_arch = "bpf"))]
#[derive(Debug)]
pub struct Frame<'b> {
    buffer: &'b mut [u8],
    start: usize,
    end: usize,
    largest_fragment: u16,
}

#[cfg(not(target_arch = "bpf"))]
impl<'b> Frame<'b> {
    /// Headroom that XDP guarantees (`XDP_PACKET_HEADROOM`).
    pub const HEADROOM: usize = 256;

    /// The packet in `buffer[headroom..]`.
    ///
    /// # Panics
    /// When the buffer is shorter than the headroom.
    pub fn new(buffer: &'b mut [u8], headroom: usize) -> Self {
        let end = buffer.len();
        assert!(headroom <= end, "a frame of {end} bytes has no headroom of {headroom}");
        Self { buffer, start: headroom, end, largest_fragment: 0 }
    }

    /// The same, put together from fragments of which the largest was so long.
    pub fn put_together_from(self, largest_fragment: u16) -> Self {
        Self { largest_fragment, ..self }
    }

    /// The frame's bytes as they are now.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn range<T: Header>(&self, offset: usize) -> Option<core::ops::Range<usize>> {
        let from = self.start.checked_add(offset)?;
        let to = from.checked_add(size_of::<T>())?;
        (to <= self.end).then_some(from..to)
    }
}

#[cfg(not(target_arch = "bpf"))]
impl Packet for Frame<'_> {
    fn len(&self) -> usize {
        self.end - self.start
    }

    fn largest_fragment(&self) -> u16 {
        self.largest_fragment
    }

    fn header<T: Header>(&self, offset: usize) -> Option<&T> {
        let range = self.range::<T>(offset)?;
        // SAFETY: the range is `size_of::<T>()` bytes inside the buffer, and `Header` promises alignment 1
        // and that any bytes are a value.
        Some(unsafe { &*self.buffer[range].as_ptr().cast::<T>() })
    }

    fn header_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T> {
        let range = self.range::<T>(offset)?;
        // SAFETY: as in `header`; the borrow is exclusive because `self` is.
        Some(unsafe { &mut *self.buffer[range].as_mut_ptr().cast::<T>() })
    }

    fn grow_head(&mut self, by: usize) -> bool {
        let Some(start) = self.start.checked_sub(by) else { return false };
        self.start = start;
        true
    }

    fn shrink_head(&mut self, by: usize) -> bool {
        if by >= self.len() {
            return false;
        }
        self.start += by;
        true
    }

    fn trim_tail(&mut self, by: usize) -> bool {
        if by >= self.len() {
            return false;
        }
        self.end -= by;
        true
    }
}
