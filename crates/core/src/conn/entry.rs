//! What an entry holds besides its key and its word.
//!
//! Both words of it are written before the entry is published; afterwards only the small counters change.

/// The entry's fixed part: which server, how, and to which port.
///
/// | bits | field |
/// |---|---|
/// | 0–31 | server id |
/// | 32–47 | destination port, as on the wire |
/// | 48–55 | [`crate::method::Method`] it was made with |
/// | 56–63 | unused |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Entry(pub u64);

impl Entry {
    /// An entry for this server, reached by this method at this port.
    #[inline(always)]
    pub const fn new(server: u32, port: [u8; 2], method: u8) -> Self {
        Self(server as u64 | (u16::from_ne_bytes(port) as u64) << 32 | (method as u64) << 48)
    }

    /// The server's id.
    #[inline(always)]
    pub const fn server(self) -> u32 {
        self.0 as u32
    }

    /// The destination port, as on the wire.
    #[inline(always)]
    pub const fn port(self) -> [u8; 2] {
        ((self.0 >> 32) as u16).to_ne_bytes()
    }

    /// The number of the method with which the connection was made: a later edit of the server does not move it.
    #[inline(always)]
    pub const fn method(self) -> u8 {
        (self.0 >> 48) as u8
    }
}

/// "No slot": the connection has no template.
pub const NO_SLOT: u32 = u32::MAX;

/// No rule looks further than this (`drop_entry`: 8 packets; sync thresholds count on their own).
pub const IN_PACKETS_ENOUGH: u32 = 16;

/// The second word of an entry.
///
/// | bits | a connection | a template |
/// |---|---|---|
/// | 0–31 | packets from the client, up to [`IN_PACKETS_ENOUGH`] | the same, of one-packet scheduling |
/// | 32–63 | slot of its template, or [`NO_SLOT`] | connections that it controls |
///
/// A packet that counts itself a moment after its connection was removed and the slot used again must not make a template
/// think that it controls one more; so the two are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Link(pub u64);

impl Link {
    /// What is added to a template's word for a connection that it controls.
    pub const CONTROLLED: u64 = 1 << 32;

    /// A new connection's, with the slot of its template.
    #[inline(always)]
    pub const fn to_template(slot: u32) -> Self {
        Self((slot as u64) << 32)
    }

    /// A new connection's that has no template.
    pub const NONE: Self = Self::to_template(NO_SLOT);
    /// A new template's.
    pub const TEMPLATE: Self = Self(0);

    /// A connection's template.
    #[inline(always)]
    pub const fn template(self) -> Option<u32> {
        let slot = (self.0 >> 32) as u32;
        if slot == NO_SLOT { None } else { Some(slot) }
    }

    /// How many connections a template controls.
    #[inline(always)]
    pub const fn controlled(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Packets from the client, as far as they are counted.
    #[inline(always)]
    pub const fn in_packets(self) -> u32 {
        self.0 as u32
    }
}

/// A reply slot's fixed part: where the forward entry is and which incarnation of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Backlink(pub u64);

impl Backlink {
    /// Names a forward slot and the generation that is meant.
    #[inline(always)]
    pub const fn new(slot: u32, generation: u16) -> Self {
        Self(slot as u64 | (generation as u64) << 32)
    }

    /// The forward slot.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }

    /// The generation that is meant.
    #[inline(always)]
    pub const fn generation(self) -> u16 {
        (self.0 >> 32) as u16
    }
}
