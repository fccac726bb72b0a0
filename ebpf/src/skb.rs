//! The bytes of a socket buffer, checked against the end of its linear part at every access: what the verifier wants to see.
//!
//! What differs from an XDP frame: headers may have to be pulled into the linear part; a buffer may be many packets in one, which are
//! made where it leaves (segmentation offload); a checksum may be left to the device that it leaves by. The kernel keeps notes of these
//! beside the bytes, and what is changed here is changed by helpers that keep the notes right.

use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_GRE,
    BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR,
};
use aya_ebpf::helpers::generated::{
    bpf_csum_update, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_pull_data,
};
use xlvs_core::checksum::Update;
use xlvs_core::errand::Question;
use xlvs_core::packet::{Outer, Packet, Within};
use xlvs_core::parse::Word;
use xlvs_core::segments;
use xlvs_core::wire::{Header, ethertype};

/// A field of the context, as in `packet.rs`: `data` is at 76, `data_end` at 80.
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

/// The same number, of which the compiler knows nothing; as in `packet.rs`.
#[inline(always)]
pub fn unknown(mut number: usize) -> usize {
    // SAFETY: the register keeps its value.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) number, options(nostack, preserves_flags)) };
    number
}

/// A socket buffer on the short way: the same.
pub type ShortPacket = AnyPacket<0>;
/// A socket buffer.
pub type WholePacket = AnyPacket<0>;
/// A socket buffer where the daemon might ask: it asks at XDP.
pub type AskedPacket = AnyPacket<0>;

/// One of these.
pub struct AnyPacket<const KIND: u8> {
    ctx: *mut __sk_buff,
}

/// So many bytes of an aggregate are made linear: its headers, with some extension headers.
const HEADERS: usize = 256;

/// Makes linear what the stages look at: the headers of an aggregate, of another packet all.
#[inline(always)]
pub fn pull_headers(ctx: *mut __sk_buff) {
    // SAFETY: the kernel hands a valid context to the entry point.
    let (len, segment) = unsafe { ((*ctx).len as usize, (*ctx).gso_size) };
    let wanted = if segment != 0 && len > HEADERS { HEADERS } else { len };
    if unknown(word!(ctx, 80) - word!(ctx, 76)) < wanted {
        // SAFETY: the context is valid. If there is no memory, headers are out of reach, and the packet is malformed.
        let _failed = unsafe { bpf_skb_pull_data(ctx, wanted as u32) };
    }
}

/// Has the kernel forget the sum of all bytes that the card has made (`CHECKSUM_COMPLETE`): it is no longer right, and whoever gets the
/// buffer by a virtual link would trust it. The kernel forgets it whenever it forwards a packet; a program can by growing the buffer, as
/// long as the packet is not in a tunnel. Aggregates have no such sum.
#[inline(always)]
pub fn forget_sum(ctx: *mut __sk_buff) {
    // SAFETY: the context is valid; the helper says no when there is no such sum.
    if (unsafe { bpf_csum_update(ctx, 0) } as i64) < 0 {
        return;
    }
    // SAFETY: the context is valid.
    unsafe {
        if (*ctx).gso_size != 0 {
            return;
        }
        let len = (*ctx).len;
        if bpf_skb_change_tail(ctx, len + 1, 0) == 0 {
            let _impossible = bpf_skb_change_tail(ctx, len, 0);
        }
    }
}

impl<const KIND: u8> AnyPacket<KIND> {
    /// The buffer of this context.
    #[inline(always)]
    pub fn new(ctx: *mut __sk_buff) -> Self {
        Self { ctx }
    }

    /// Its context.
    #[inline(always)]
    pub fn ctx(&self) -> *mut __sk_buff {
        self.ctx
    }

    /// The daemon's question: it asks at XDP.
    #[inline(always)]
    pub fn question_mut(&mut self) -> Option<&mut Question> {
        None
    }

    #[inline(always)]
    fn start(&self) -> usize {
        word!(self.ctx, 76)
    }

    #[inline(always)]
    fn end(&self) -> usize {
        word!(self.ctx, 80)
    }

    #[inline(always)]
    fn at<T: Header>(&self, offset: usize) -> Option<*mut T> {
        let at = self.start() + offset;
        // SAFETY: no packet begins before the first page. Else every `Option` of a view would be tested once more.
        unsafe { core::hint::assert_unchecked(at != 0) };
        (at + size_of::<T>() <= self.end()).then_some(at as *mut T)
    }

    #[inline(always)]
    fn adjust_room(&mut self, by: i32, flags: u32) -> bool {
        // Segments stay as long as they are: whether they fit was asked before.
        let flags = (flags | BPF_F_ADJ_ROOM_FIXED_GSO) as u64;
        // SAFETY: the context is valid; the helper checks the length.
        unsafe { bpf_skb_adjust_room(self.ctx, by, BPF_ADJ_ROOM_MAC, flags) == 0 }
    }

    /// Changes a checksum if it is whole; one that is left to the device does not care for ports.
    #[inline(always)]
    fn fit(&mut self, at: usize, changed: Update, flags: u64) -> bool {
        let changed = changed.folded() as u64;
        // SAFETY: the context is valid; the helper checks the offset.
        unsafe { bpf_l4_csum_replace(self.ctx, at as u32, 0, changed, flags) == 0 }
    }
}

impl<const KIND: u8> Packet for AnyPacket<KIND> {
    const KEEPS_NOTES: bool = true;

    #[inline(always)]
    fn len(&self) -> usize {
        word!(self.ctx, 0)
    }

    #[inline(always)]
    fn header<T: Header>(&self, offset: usize) -> Option<&T> {
        // SAFETY: `at` checked that all of `T` lies inside the linear part; `Header` promises that any bytes are a value and
        // alignment 1; the view ends before the buffer moves because moving takes `&mut self`.
        self.at::<T>(offset).map(|at| unsafe { &*at })
    }

    #[inline(always)]
    fn header_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T> {
        // SAFETY: as in `header`; exclusive because `self` is. That no other buffer shares the bytes is seen to by the kernel, which
        // puts a call in front of programs that write.
        self.at::<T>(offset).map(|at| unsafe { &mut *at })
    }

    /// Behind the Ethernet header, which whoever asks writes anew: so the kernel's note of where the IP header is stays right.
    #[inline(always)]
    fn grow_head(&mut self, by: usize) -> bool {
        self.adjust_room(by as i32, 0)
    }

    #[inline(always)]
    fn grow_head_for(&mut self, outer: Outer) -> bool {
        // SAFETY: the context is valid.
        if outer.is_summed && unsafe { (*self.ctx).gso_size } != 0 {
            // Each of the packets would need a sum of its own, and the helper knows no way to ask for that.
            return false;
        }
        forget_sum(self.ctx);
        let family = if outer.is_v6 { BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 } else { BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 };
        let within = match outer.within {
            Within::Ip => 0,
            Within::Gre => BPF_F_ADJ_ROOM_ENCAP_L4_GRE,
            Within::Udp => BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
        };
        self.adjust_room(outer.len as i32, family | within)
    }

    /// Behind the Ethernet header, as with [`Self::grow_head`].
    #[inline(always)]
    fn shrink_head(&mut self, by: usize) -> bool {
        self.adjust_room(-(by as i32), 0)
    }

    #[inline(always)]
    fn trim_tail(&mut self, by: usize) -> bool {
        let len = (self.len() - by) as u32;
        // SAFETY: the context is valid; the helper checks the length.
        unsafe { bpf_skb_change_tail(self.ctx, len, 0) == 0 }
    }

    #[inline(always)]
    fn judged(&self, len: u16) -> u16 {
        // SAFETY: the context is valid.
        let (payload, kind) = unsafe { ((*self.ctx).gso_size, (*self.ctx).protocol as u16) };
        if payload == 0 {
            return len;
        }
        // The family as the kernel knows it: the verifier has had enough of the Ethernet header.
        segments::longest(self, kind == ethertype::IPV6.to_be(), payload as u16, len)
    }

    #[inline(always)]
    fn fit_checksum(&mut self, at: usize, pseudo: Update, own: Update, is_optional: bool) -> bool {
        // One that is 0 stays so, and none becomes 0.
        let optional = if is_optional { BPF_F_MARK_MANGLED_0 as u64 } else { 0 };
        self.fit(at, pseudo, BPF_F_PSEUDO_HDR as u64 | optional) && self.fit(at, own, optional)
    }

    /// The note itself is not shown. A change of the buffer's first bytes by the helper tells: to a checksum that is left to the device
    /// it does nothing.
    #[inline(always)]
    fn is_left_to_device(&mut self) -> bool {
        let Some(before) = self.header::<Word>(0).copied() else { return false };
        if !self.fit(0, Update::NONE.replace16([0, 0], [1, 0]), 0) {
            return false;
        }
        let Some(place) = self.header_mut::<Word>(0) else { return false };
        let is_unchanged = *place == before;
        *place = before;
        is_unchanged
    }
}
