//! LVS's defences against floods: which of them are up, and whom they take (`ip_vs_ctl.c`, `ip_vs_conn.c`, Linux 6.12).
//!
//! The daemon asks once a second; packets see only what is in force.

use crate::conn::entry::Link;
use crate::conn::word::{Tick, Word};
use crate::state::{TcpState, template};
use crate::wire::ip_protocol;

/// When a defence is up: the values of `drop_entry`, `drop_packet` and `secure_tcp`.
///
/// The kernel goes from 1 to 2 and back by itself, to remember which it was; what counts is the same for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 0
    Off,
    /// 1 and 2
    WhenMemoryIsShort,
    /// 3
    Always,
}

impl Mode {
    /// The mode of this number.
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Off,
            1 | 2 => Self::WhenMemoryIsShort,
            _ => Self::Always,
        }
    }
}

/// Memory as the defences see it, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Free, and in buffers.
    pub available: u32,
    /// `amemthresh`
    pub threshold: u32,
}

impl Memory {
    /// Is it short?
    pub const fn is_short(self) -> bool {
        self.available < self.threshold
    }
}

/// Is a defence of this mode up?
pub const fn is_up(mode: Mode, memory: Memory) -> bool {
    match mode {
        Mode::Off => false,
        Mode::WhenMemoryIsShort => memory.is_short(),
        Mode::Always => true,
    }
}

/// Of how many packets that would open a connection one is dropped; 0 = none. `always` is `am_droprate`.
pub const fn drop_rate(mode: Mode, memory: Memory, always: u32) -> u32 {
    match mode {
        Mode::Off => 0,
        Mode::WhenMemoryIsShort if memory.is_short() => {
            memory.threshold / (memory.threshold - memory.available)
        }
        Mode::WhenMemoryIsShort => 0,
        Mode::Always => always,
    }
}

/// The part of the table that `drop_entry` looks at each second: a bucket in so many, by chance.
pub const LOOKED_AT: u32 = 32;

/// Entries that were idle for less are not dropped for having had few packets.
const IDLE: u32 = 60 * Tick::PER_SECOND;

/// Who had more packets than this is not dropped.
const FEW_PACKETS: usize = 8;

/// Whom `drop_entry` takes.
#[derive(Clone, Debug, Default)]
pub struct DropEntry {
    /// Of the entries with so many packets: how many were spared since the last was taken.
    spared: [u32; FEW_PACKETS + 1],
}

/// An entry as `drop_entry` judges it.
#[derive(Clone, Copy, Debug)]
pub struct Suspect {
    /// Its word.
    pub word: Word,
    /// Its link.
    pub link: Link,
    /// Its IP protocol.
    pub protocol: u8,
    /// Is it of a service of one-packet scheduling?
    pub one_packet: bool,
}

impl DropEntry {
    /// Does this entry go?
    pub fn takes(&mut self, suspect: &Suspect, now: Tick) -> bool {
        let Suspect { word, link, protocol, one_packet } = *suspect;
        if word.template() {
            return link.controlled() == 0
                && if one_packet {
                    self.takes_one_of(word, link, now)
                } else {
                    word.state() != template::ASSURED
                };
        }
        if protocol != ip_protocol::TCP {
            return self.takes_one_of(word, link, now);
        }
        const HALF_OPEN: [u8; 2] = [TcpState::SynRecv as u8, TcpState::SynAck as u8];
        HALF_OPEN.contains(&word.state())
            || (word.state() == TcpState::Established as u8 && self.takes_one_of(word, link, now))
    }

    /// Of the idle entries with n packets every n-th goes; those with none stay.
    fn takes_one_of(&mut self, word: Word, link: Link, now: Tick) -> bool {
        let packets = link.in_packets();
        if now.since(word.last_seen()) < IDLE || packets == 0 {
            return false;
        }
        let Some(spared) = self.spared.get_mut(packets as usize) else { return false };
        *spared += 1;
        if *spared < packets {
            return false;
        }
        *spared = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Tick = Tick::new(10_000);

    fn idle_for(seconds: u32, state: u8) -> Word {
        Word(0).in_state(state, 0, false).seen_at(Tick::new(NOW.count() - seconds * Tick::PER_SECOND))
    }

    fn connection(word: Word, protocol: u8, packets: u64) -> Suspect {
        Suspect { word, link: Link(Link::NONE.0 | packets), protocol, one_packet: false }
    }

    #[test]
    fn short_memory_raises_what_waits_for_it() {
        let (short, ample) =
            (Memory { available: 24, threshold: 1024 }, Memory { available: 5000, threshold: 1024 });
        for (mode, in_short, in_ample) in
            [(Mode::Off, 0, 0), (Mode::WhenMemoryIsShort, 1, 0), (Mode::Always, 10, 10)]
        {
            assert_eq!((drop_rate(mode, short, 10), drop_rate(mode, ample, 10)), (in_short, in_ample));
            assert_eq!((is_up(mode, short), is_up(mode, ample)), (in_short != 0, in_ample != 0));
        }
        let shorter = Memory { available: 768, threshold: 1024 };
        assert_eq!(drop_rate(Mode::WhenMemoryIsShort, shorter, 10), 4);
    }

    #[test]
    fn half_open_connections_go_and_closing_ones_stay() {
        let mut drop_entry = DropEntry::default();
        for state in TcpState::ALL {
            let goes = matches!(state, TcpState::SynRecv | TcpState::SynAck);
            let suspect = connection(idle_for(1, state as u8), ip_protocol::TCP, 1);
            assert_eq!(drop_entry.takes(&suspect, NOW), goes, "{state:?}");
        }
    }

    #[test]
    fn of_idle_ones_with_n_packets_every_nth_goes() {
        let established = TcpState::Established as u8;
        for packets in 0..=10 {
            let mut drop_entry = DropEntry::default();
            let suspect = connection(idle_for(60, established), ip_protocol::TCP, packets);
            let taken = (0..720).filter(|_| drop_entry.takes(&suspect, NOW)).count() as u64;
            assert_eq!(taken, if (1..=8).contains(&packets) { 720 / packets } else { 0 }, "{packets}");
            let busy = connection(idle_for(59, established), ip_protocol::TCP, packets);
            assert!(!drop_entry.takes(&busy, NOW));
        }
    }

    #[test]
    fn templates_go_that_were_never_assured_and_control_nothing() {
        let mut drop_entry = DropEntry::default();
        let template = |state, link| Suspect {
            word: idle_for(1, state).as_template(),
            link,
            protocol: ip_protocol::TCP,
            one_packet: false,
        };
        assert!(drop_entry.takes(&template(template::NONE, Link::TEMPLATE), NOW));
        assert!(!drop_entry.takes(&template(template::ASSURED, Link::TEMPLATE), NOW));
        assert!(!drop_entry.takes(&template(template::NONE, Link(Link::CONTROLLED)), NOW));
    }
}
