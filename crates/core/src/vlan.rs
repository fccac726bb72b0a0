//! VLAN tags (802.1Q, 802.1ad): off before a frame is looked at, on again when it leaves.
//!
//! To IPVS a tagged frame comes in by a VLAN device, and leaves by one. So it is here: routes and next hops name VLAN devices, and
//! what the daemon knows of these ([`Device`]) tells which tags, on which interface, that means. A frame with one or two tags that
//! a device takes is balanced without them ([`take_off`]); whatever is sent by way of a device gets that device's ([`dispatch`]).

use crate::carried::Carried;
use crate::cell::{Cell32, Cell64};
use crate::env::{Env, Step};
use crate::forward;
use crate::packet::Packet;
use crate::verdict::{DropReason, PassReason, Verdict};
use crate::wire::{Ethernet, Vlan, ethertype};

/// Devices at the most.
pub const MOST: u32 = 256;

/// The tags of a frame: the outer one in the upper half, and the inner one, or 0, in the lower. Each is the EtherType that announces
/// it, and then priority and identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Tags(pub u64);

impl Tags {
    /// One tag: an EtherType and an identifier, host order.
    pub const fn one(kind: u16, id: u16) -> Self {
        Self((kind as u64) << 48 | (id as u64) << 32)
    }

    /// The same with a tag inside. `None`: there are two already.
    pub const fn with_inside(self, kind: u16, id: u16) -> Option<Self> {
        if self.count() == 1 { Some(Self(self.0 | (kind as u64) << 16 | id as u64)) } else { None }
    }

    /// How many tags.
    #[inline(always)]
    pub const fn count(self) -> usize {
        (self.0 != 0) as usize + (self.0 as u32 != 0) as usize
    }

    /// What tells a device: identifiers without priorities. A tag with the identifier 0 is none, it only has a priority.
    #[inline(always)]
    pub const fn of_device(self) -> Self {
        let (outer, inner) = (Self::bare((self.0 >> 32) as u32), Self::bare(self.0 as u32));
        if outer == 0 { Self((inner as u64) << 32) } else { Self((outer as u64) << 32 | inner as u64) }
    }

    #[inline(always)]
    const fn bare(tag: u32) -> u32 {
        if tag & 0xfff == 0 { 0 } else { tag & 0xffff_0fff }
    }

    /// Reads a frame's tags. `None`: it has none, more than two, or is cut.
    #[inline(always)]
    fn of_frame<P: Packet>(packet: &P) -> Option<Self> {
        let outer = packet.header::<Ethernet>(0)?.ethertype();
        let tag = packet.header::<Vlan>(Ethernet::LEN)?;
        if !is_tag(outer) {
            return None;
        }
        let (tci, kind) = (u16::from_be_bytes(tag.tci), u16::from_be_bytes(tag.kind));
        let tags = Self((outer as u64) << 48 | (tci as u64) << 32);
        if !is_tag(kind) {
            return Some(tags);
        }
        let inner = packet.header::<Vlan>(Ethernet::LEN + Vlan::LEN)?;
        if is_tag(u16::from_be_bytes(inner.kind)) {
            return None;
        }
        Some(Self(tags.0 | (kind as u64) << 16 | u16::from_be_bytes(inner.tci) as u64))
    }
}

#[inline(always)]
const fn is_tag(kind: u16) -> bool {
    matches!(kind, ethertype::VLAN | ethertype::QINQ)
}

/// A VLAN device of the director's host.
#[repr(C)]
pub struct Device {
    /// Its index; 0: the record is none.
    pub ifindex: Cell32,
    /// The index of the interface below it that is no VLAN device.
    pub lower: Cell32,
    /// The [`Tags`] that frames have there.
    pub tags: Cell64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Device>() == 16);

/// How the frame at hand came, while the stages that follow one another look at it. One for each processor.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(Default))]
pub struct Arrival {
    /// The [`Tags`] that were taken off; 0: none.
    pub tags: Cell64,
    /// The VLAN device that it came in by; 0: none.
    pub device: Cell64,
}

impl Arrival {
    /// What was taken off. No stage looks at the frame after this.
    #[inline(always)]
    pub fn take(&self) -> Tags {
        let tags = self.tags.load();
        self.tags.store(0);
        self.device.store(0);
        Tags(tags)
    }
}

/// The interface by which the packet came in, as the kernel's routing sees it.
#[inline(always)]
pub fn came_by<E: Env>(env: &E) -> u32 {
    match env.arrival().map_or(0, |arrival| arrival.device.load()) {
        0 => env.ingress(),
        device => device as u32,
    }
}

/// Takes off a frame's tags, and notes that it had them. `Err`: why the stack gets it as it is.
#[inline(always)]
pub fn take_off<P: Packet, E: Env>(packet: &mut P, env: &E, devices: u32) -> Result<(), PassReason> {
    let Some(tags) = Tags::of_frame(packet) else { return Err(PassReason::Vlan) };
    let Some(arrival) = env.arrival() else { return Err(PassReason::Vlan) };
    let wanted = tags.of_device();
    let device = if wanted.0 == 0 {
        // Only a priority: to the kernel, too, that comes in by the interface itself.
        0
    } else {
        let mut search = Search { env, ifindex: None, lower: env.ingress(), tags: wanted };
        match search.among(devices) {
            Some(device) => device.ifindex.load() as u64,
            None => return Err(PassReason::Vlan),
        }
    };
    let len = tags.count() * Vlan::LEN;
    let Some(eth) = packet.header::<Ethernet>(0).copied() else { return Err(PassReason::Malformed) };
    let Some(place) = packet.header_mut::<Ethernet>(len) else { return Err(PassReason::Malformed) };
    (place.dst, place.src) = (eth.dst, eth.src);
    if !packet.shrink_head(len) {
        return Err(PassReason::Malformed);
    }
    arrival.tags.store(tags.0);
    arrival.device.store(device);
    Ok(())
}

/// Has the frame at hand had no tags, and can it get none? Then [`dispatch`] has nothing to do.
#[inline(always)]
pub fn has_no_tags<E: Env>(env: &E) -> bool {
    let came_with = env.arrival().map_or(0, |arrival| arrival.tags.load() | arrival.device.load());
    came_with == 0 && env.config().is_none_or(|config| config.vlan_devices.load() == 0)
}

/// Gives a frame whose fate is decided the tags of the way that it takes: to the stack those that it came with, back to its
/// sender those of the device that it came by, and onward those of the device that it leaves by.
#[inline(always)]
pub fn dispatch<P: Packet, E: Env>(packet: &mut P, env: &E, verdict: Verdict) -> Verdict {
    let came_with = env.arrival().map_or(Tags(0), Arrival::take);
    let (tags, verdict) = match verdict {
        Verdict::Pass(_) | Verdict::Local { .. } => (came_with, verdict),
        Verdict::Answer { .. } => (came_with.of_device(), verdict),
        Verdict::Transmit { ifindex } | Verdict::Redirect { ifindex } => {
            let devices = env.config().map_or(0, |config| config.vlan_devices.load());
            let mut search = Search { env, ifindex: Some(ifindex), lower: 0, tags: Tags(0) };
            match search.among(devices) {
                Some(device) => (Tags(device.tags.load()), forward::leave_by(env, device.lower.load())),
                None => (Tags(0), verdict),
            }
        }
        Verdict::Drop(_) | Verdict::Cut { .. } | Verdict::PutTogether { .. } => (Tags(0), verdict),
    };
    if tags.0 == 0 || put_on(packet, tags).is_some() {
        return verdict;
    }
    if let Some(counter) = env.counters().and_then(|c| c.drops.get(DropReason::NoHeadroom as usize)) {
        counter.bump(1);
    }
    Verdict::Drop(DropReason::NoHeadroom)
}

/// Puts tags on a frame that has none. `None`: there is no room.
#[inline(always)]
fn put_on<P: Packet>(packet: &mut P, tags: Tags) -> Option<()> {
    let is_double = tags.count() == 2;
    let eth = *packet.header::<Ethernet>(0)?;
    let len = if is_double { 2 * Vlan::LEN } else { Vlan::LEN };
    if !packet.grow_head(len) {
        return None;
    }
    let [kind_high, kind_low, tci_high, tci_low, rest @ ..] = tags.0.to_be_bytes();
    *packet.header_mut::<Ethernet>(0)? = Ethernet { kind: [kind_high, kind_low], ..eth };
    let outer = packet.header_mut::<Vlan>(Ethernet::LEN)?;
    outer.tci = [tci_high, tci_low];
    if !is_double {
        outer.kind = eth.kind;
        return Some(());
    }
    let [kind_high, kind_low, tci_high, tci_low] = rest;
    outer.kind = [kind_high, kind_low];
    *packet.header_mut::<Vlan>(Ethernet::LEN + Vlan::LEN)? =
        Vlan { tci: [tci_high, tci_low], kind: eth.kind };
    Some(())
}

/// Looks for a device by its index, or by what lies below it.
struct Search<'e, E> {
    env: &'e E,
    ifindex: Option<u32>,
    lower: u32,
    tags: Tags,
}

/// Where a [`Search`] has come to.
struct Found<'s, 'e, E> {
    search: &'s Search<'e, E>,
    at: Carried<u32>,
}

impl<'e, E: Env> Search<'e, E> {
    #[inline(always)]
    fn among(&mut self, devices: u32) -> Option<&'e Device> {
        if devices == 0 {
            return None;
        }
        let mut found = Found { search: self, at: Carried::new(MOST) };
        self.env.repeat(devices, &mut found);
        self.env.vlan_device(found.at.get())
    }

    #[inline(always)]
    fn fits(&self, device: &Device) -> bool {
        match self.ifindex {
            Some(ifindex) => device.ifindex.load() == ifindex,
            None => device.lower.load() == self.lower && device.tags.load() == self.tags.0,
        }
    }
}

impl<E: Env> Step for Found<'_, '_, E> {
    #[inline(always)]
    fn turn(&mut self, i: u32) -> bool {
        let Some(device) = self.search.env.vlan_device(i) else { return false };
        if self.search.fits(device) {
            self.at.set(i);
            return false;
        }
        true
    }
}
