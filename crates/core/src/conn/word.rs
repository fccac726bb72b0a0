//! The word that is a connection's mutable state.

/// Ticks: quarter seconds, modulo [`Tick::MODULUS`]. The only clock that connections know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick(u32);

impl Tick {
    /// Ticks in a second.
    pub const PER_SECOND: u32 = 4;
    const BITS: u32 = 24;
    /// After 48.5 days the count starts again; no timeout is longer than 31 days.
    pub const MODULUS: u32 = 1 << Self::BITS;

    /// The tick with this count, reduced.
    #[inline(always)]
    pub const fn new(count: u32) -> Self {
        Self(count & (Self::MODULUS - 1))
    }

    /// Its count, below [`Tick::MODULUS`].
    #[inline(always)]
    pub const fn count(self) -> u32 {
        self.0
    }

    /// Ages from here on are none: the other tick lies ahead. 36 days, more than the longest timeout.
    const AHEAD: u32 = Self::MODULUS / 4 * 3;

    /// Ticks from `earlier` to this one; 0 when `earlier` is later.
    ///
    /// That happens: who reads the clock, and then a word that another processor has refreshed at the next tick meanwhile,
    /// must not take it for one that was last seen 48 days ago.
    #[inline(always)]
    pub const fn since(self, earlier: Tick) -> u32 {
        let age = self.0.wrapping_sub(earlier.0) & (Self::MODULUS - 1);
        if age < Self::AHEAD { age } else { 0 }
    }
}

/// What a slot is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Life {
    /// Free; only the generation means anything.
    Empty = 0,
    /// Claimed; its owner is writing the body.
    Busy = 1,
    /// Published, but another processor may be inserting the same key: found by inserters only.
    Tentative = 2,
    /// In use.
    Live = 3,
}

/// The word of a slot: everything of an entry that changes and matters, in 64 bits.
///
/// | bits | field |
/// |---|---|
/// | 0–23 | last seen, [`Tick`] |
/// | 24–31 | timeout class (index into [`crate::config::Config::ticks`]) |
/// | 32–35 | protocol state |
/// | 36 | NOOUTPUT: no reply traffic seen, use the input-only table |
/// | 37 | counted as active |
/// | 38 | a persistence template |
/// | 39 | VOID: a template that no packet finds any more, and that waits for its end |
/// | 40–41 | [`Life`] |
/// | 42–51 | tag: ten bits of the key's hash |
/// | 52–63 | generation, one up at every insertion |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Word(pub u64);

const CLASS: u32 = 24;
const STATE: u32 = 32;
const NO_OUTPUT: u64 = 1 << 36;
const ACTIVE: u64 = 1 << 37;
const TEMPLATE: u64 = 1 << 38;
const VOID: u64 = 1 << 39;
const LIFE: u32 = 40;
const TAG: u32 = 42;
const GENERATION: u32 = 52;

impl Word {
    /// The bits that tell one incarnation of a slot from another.
    const IDENTITY: u64 = !0 << LIFE;

    /// A word of this life and generation, with nothing else in it.
    #[inline(always)]
    pub const fn bare(life: Life, generation: u16, tag: u16) -> Self {
        Self(
            ((generation as u64 & 0xfff) << GENERATION)
                | ((tag as u64 & 0x3ff) << TAG)
                | ((life as u64) << LIFE),
        )
    }

    /// Is it a live entry with this tag?
    #[inline(always)]
    pub const fn is_live_with(self, tag: u16) -> bool {
        (self.0 ^ Self::bare(Life::Live, 0, tag).0) << 12 >> GENERATION == 0
    }

    /// Is it a published entry, tentative or live, with this tag?
    #[inline(always)]
    pub const fn is_published_with(self, tag: u16) -> bool {
        ((self.0 ^ Self::bare(Life::Live, 0, tag).0) & !(1 << LIFE)) << 12 >> GENERATION == 0
    }

    /// 1 for a free slot, else 0.
    #[inline(always)]
    pub fn is_free(self) -> u64 {
        !(opaque(self.0 >> LIFE) | opaque(self.0 >> (LIFE + 1))) & 1
    }

    /// Do both words speak of the same incarnation of the same entry?
    #[inline(always)]
    pub const fn is_same_entry(self, other: Word) -> bool {
        (self.0 ^ other.0) & Self::IDENTITY == 0
    }

    /// What the slot is doing.
    #[inline(always)]
    pub const fn life(self) -> Life {
        match (self.0 >> LIFE) & 3 {
            0 => Life::Empty,
            1 => Life::Busy,
            2 => Life::Tentative,
            _ => Life::Live,
        }
    }

    /// The same with another life.
    #[inline(always)]
    pub const fn with_life(self, life: Life) -> Self {
        Self((self.0 & !(3 << LIFE)) | ((life as u64) << LIFE))
    }

    /// Is the slot free?
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.0 & (3 << LIFE) == 0
    }

    /// Is the slot in use?
    #[inline(always)]
    pub const fn is_live(self) -> bool {
        self.0 & (3 << LIFE) == 3 << LIFE
    }

    /// The incarnation, 0 to 4095.
    #[inline(always)]
    pub const fn generation(self) -> u16 {
        (self.0 >> GENERATION) as u16
    }

    /// The word of the slot when this entry is removed: empty, same generation.
    #[inline(always)]
    pub const fn removed(self) -> Self {
        Self::bare(Life::Empty, self.generation(), 0)
    }

    /// When a packet last refreshed it.
    #[inline(always)]
    pub const fn last_seen(self) -> Tick {
        Tick::new(self.0 as u32)
    }

    /// Its timeout class.
    #[inline(always)]
    pub const fn class(self) -> u8 {
        (self.0 >> CLASS) as u8
    }

    /// Its protocol state.
    #[inline(always)]
    pub const fn state(self) -> u8 {
        ((self.0 >> STATE) & 0xf) as u8
    }

    /// Has no reply been seen (or is none expected)?
    #[inline(always)]
    pub const fn no_output(self) -> bool {
        self.0 & NO_OUTPUT != 0
    }

    /// Is it counted as active?
    #[inline(always)]
    pub const fn active(self) -> bool {
        self.0 & ACTIVE != 0
    }

    /// Is it a persistence template?
    #[inline(always)]
    pub const fn template(self) -> bool {
        self.0 & TEMPLATE != 0
    }

    /// The same, last seen at `now`.
    #[inline(always)]
    pub const fn seen_at(self, now: Tick) -> Self {
        Self((self.0 & !0xff_ffff) | now.count() as u64)
    }

    /// The same in this state, with its timeout class and whether it counts as active.
    #[inline(always)]
    pub const fn in_state(self, state: u8, class: u8, active: bool) -> Self {
        let kept = self.0 & !((0xff << CLASS) | (0xf << STATE) | ACTIVE);
        let active = if active { ACTIVE } else { 0 };
        Self(kept | ((class as u64) << CLASS) | ((state as u64 & 0xf) << STATE) | active)
    }

    /// The same with NOOUTPUT as told.
    #[inline(always)]
    pub const fn with_no_output(self, set: bool) -> Self {
        Self(if set { self.0 | NO_OUTPUT } else { self.0 & !NO_OUTPUT })
    }

    /// The same, marked as a persistence template.
    #[inline(always)]
    pub const fn as_template(self) -> Self {
        Self(self.0 | TEMPLATE)
    }

    /// Has it been made void?
    #[inline(always)]
    pub const fn void(self) -> bool {
        self.0 & VOID != 0
    }

    /// The same with a tag under which nobody looks for its key. To who holds the entry it is gone.
    #[inline(always)]
    pub const fn as_void(self) -> Self {
        Self((self.0 | VOID) ^ (0x3ff << TAG))
    }

    /// The same with this timeout class.
    #[inline(always)]
    pub const fn with_class(self, class: u8) -> Self {
        Self(self.0 & !(0xff << CLASS) | (class as u64) << CLASS)
    }
}

/// The same number, of which the compiler knows nothing: on the eBPF target, which has no instruction for "1 if equal", it
/// would turn arithmetic that it recognises as a comparison into a branch.
#[inline(always)]
fn opaque(n: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut n = n;
        // One instruction that does nothing: with none at all, two lines of debug information fall together, which the
        // verifier refuses.
        // SAFETY: the register keeps its value.
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) n, options(pure, nomem, nostack, preserves_flags))
        };
        n
    }
    #[cfg(not(target_arch = "bpf"))]
    n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_overlap() {
        let w = Word::bare(Life::Live, 0xabc, 0x2a5)
            .seen_at(Tick::new(0x123456))
            .in_state(11, 200, true)
            .with_no_output(true);
        assert_eq!(w.generation(), 0xabc);
        assert_eq!((w.is_live_with(0x2a5), w.is_live_with(0x2a4)), (true, false));
        assert_eq!(w.last_seen().count(), 0x123456);
        assert_eq!((w.state(), w.class(), w.active(), w.no_output()), (11, 200, true, true));
        assert_eq!(w.removed().life(), Life::Empty);
        assert_eq!(w.removed().generation(), 0xabc);
        assert!(!w.template() && w.as_template().template());
    }

    #[test]
    fn a_void_template_is_found_by_no_tag_of_its_key() {
        let word = Word::bare(Life::Live, 7, 0x155).as_template().in_state(1, 32, false);
        let void = word.as_void();
        assert!(void.void() && void.is_live() && void.template() && !word.is_same_entry(void));
        assert_eq!((void.is_live_with(0x155), void.is_published_with(0x155)), (false, false));
        assert_eq!((void.generation(), void.state(), void.with_class(9).class()), (7, 1, 9));
    }

    #[test]
    fn published_means_tentative_or_live() {
        for (life, yes) in
            [(Life::Empty, false), (Life::Busy, false), (Life::Tentative, true), (Life::Live, true)]
        {
            let word = Word::bare(life, 3, 77).seen_at(Tick::new(99)).in_state(5, 6, true);
            assert_eq!(word.is_published_with(77), yes, "{life:?}");
            assert!(!word.is_published_with(78));
            assert_eq!(word.is_live_with(77), life == Life::Live);
            assert_eq!(word.is_live_with(77), life == Life::Live);
            assert!(!word.is_live_with(78));
            assert_eq!(word.is_free(), u64::from(life == Life::Empty));
            assert_eq!(word.is_empty(), life == Life::Empty);
        }
    }

    #[test]
    fn ages_survive_the_wrap_of_the_clock() {
        assert_eq!(Tick::new(3).since(Tick::new(Tick::MODULUS - 2)), 5);
    }

    #[test]
    fn what_was_seen_after_the_clock_was_read_is_not_old() {
        assert_eq!(Tick::new(7).since(Tick::new(8)), 0);
        assert_eq!(Tick::new(Tick::MODULUS - 1).since(Tick::new(0)), 0);
        let month = 31 * 86_400 * Tick::PER_SECOND;
        assert_eq!(Tick::new(5 + month + 1).since(Tick::new(5)), month + 1);
    }
}
