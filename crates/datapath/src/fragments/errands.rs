//! Does what programs hand over: asks about packets that became whole, cuts packets, and says what is to be sent.

use std::time::Duration;

use xlvs_core::errand::{ErrandView, Kind};

use super::{Effects, Event, Reassembler, Refusal, Whole, cut, reassembler::Expired};

/// Who decides about whole packets: the director, wherever it runs.
pub trait Director {
    /// Decides about a packet that came in by this interface, in fragments of which the largest was so long.
    fn decide(&self, ifindex: u32, frame: &[u8], largest: u16) -> Fate;
    /// Decides whether the sender of this first fragment is told that others did not come.
    fn decide_incomplete(&self, ifindex: u32, first: &[u8]) -> Fate;
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It leaves by this interface as it is now.
    Leaves(Outgoing),
    /// The same, but in pieces of so many bytes.
    LeavesInPieces(Outgoing, u16),
    /// It is none of the director's.
    Passes,
    /// It is the stack's as it is now, in pieces of so many bytes.
    PassesRewritten(Vec<u8>, u16),
    /// It is dropped, and counted.
    Dropped,
}

/// A frame and its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The interface.
    pub ifindex: u32,
    /// The frame.
    pub frame: Vec<u8>,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// These frames are to be sent.
    pub sent: Vec<Outgoing>,
    /// These are the stack's, as if they just came in.
    pub passed: Vec<Outgoing>,
}

/// How often what happened, since the daemon's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets put together.
    pub whole: u64,
    /// Packets cut.
    pub cut: u64,
    /// Packets that did not become whole in time, or became too long, or contradicted themselves.
    pub failed: u64,
    /// Fragments that there was no memory for.
    pub no_room: u64,
}

/// How a packet came in: the frames of its fragments, and how many bytes of data each had.
#[derive(Default)]
struct CameIn {
    fragments: Vec<Vec<u8>>,
    parts: Vec<usize>,
}

/// See the module.
pub struct Errands {
    held: Reassembler,
    ids: u64,
    tally: Tally,
}

impl Errands {
    /// Nothing is held yet. `seed` is where the identifications of IPv6 fragments begin, which should not be guessed (RFC 7739).
    pub fn new(held: Reassembler, seed: u64) -> Self {
        Self { held, ids: seed | 1, tally: Tally::default() }
    }

    /// How often what happened.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// When [`Self::tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.held.deadline()
    }

    /// Does an errand at this time, which is counted from any moment and does not go back.
    pub fn run(&mut self, errand: &ErrandView<'_>, now: Duration, director: &impl Director) -> Done {
        let mut done = Done::default();
        match errand.kind {
            Kind::Cut => {
                let whole = outgoing(errand.ifindex, errand.frame.to_vec());
                self.cut(&whole, errand.cut_to, &[], &mut done);
            }
            Kind::PutTogether => {
                let event = Event::Fragment { ifindex: errand.ifindex, frame: errand.frame };
                let effects = self.held.step(event, now);
                self.heed(effects, director, &mut done);
            }
        }
        done
    }

    /// Time went by.
    pub fn tick(&mut self, now: Duration, director: &impl Director) -> Done {
        let mut done = Done::default();
        let effects = self.held.step(Event::Tick, now);
        self.heed(effects, director, &mut done);
        done
    }

    fn heed(&mut self, effects: Effects, director: &impl Director, done: &mut Done) {
        for Expired { ifindex, first } in effects.expired {
            self.tally.failed += 1;
            if let Some(first) = first {
                self.settle(director.decide_incomplete(ifindex, &first), ifindex, CameIn::default(), done);
            }
        }
        match effects.refused {
            None | Some(Refusal::Duplicate | Refusal::Malformed | Refusal::NotAFragment) => {}
            Some(Refusal::NoRoom) => self.tally.no_room += 1,
            Some(_) => self.tally.failed += 1,
        }
        if let Some(Whole { ifindex, frame, largest, fragments, parts }) = effects.whole {
            self.tally.whole += 1;
            let came_in = CameIn { fragments, parts };
            self.settle(director.decide(ifindex, &frame, largest), ifindex, came_in, done);
        }
    }

    fn settle(&mut self, fate: Fate, ifindex: u32, came_in: CameIn, done: &mut Done) {
        match fate {
            Fate::Leaves(outgoing) => done.sent.push(outgoing),
            Fate::LeavesInPieces(whole, size) => self.cut(&whole, size, &came_in.parts, done),
            Fate::Passes => {
                done.passed.extend(came_in.fragments.into_iter().map(|frame| outgoing(ifindex, frame)));
            }
            Fate::PassesRewritten(frame, size) => {
                let mut pieces = Done::default();
                self.cut(&outgoing(ifindex, frame), size, &came_in.parts, &mut pieces);
                done.passed.extend(pieces.sent);
            }
            Fate::Dropped => {}
        }
    }

    fn cut(&mut self, whole: &Outgoing, size: u16, came_in: &[usize], done: &mut Done) {
        match cut(&whole.frame, size, self.next_id(), came_in) {
            Ok(pieces) => {
                self.tally.cut += 1;
                done.sent.extend(pieces.into_iter().map(|frame| outgoing(whole.ifindex, frame)));
            }
            Err(why) => {
                self.tally.failed += 1;
                tracing::debug!(%why, size, "a packet cannot be cut");
            }
        }
    }

    /// xorshift64*, Marsaglia's.
    fn next_id(&mut self) -> u32 {
        let mut x = self.ids;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.ids = x;
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }
}

fn outgoing(ifindex: u32, frame: Vec<u8>) -> Outgoing {
    Outgoing { ifindex, frame }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::super::{HIGH_THRESH, TIMEOUT_V4, TIMEOUT_V6};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Answers everything alike, and remembers what it was asked.
    struct Always(Fate, RefCell<Vec<(u32, usize, u16)>>);

    impl Director for Always {
        fn decide(&self, ifindex: u32, frame: &[u8], largest: u16) -> Fate {
            self.1.borrow_mut().push((ifindex, frame.len(), largest));
            self.0.clone()
        }

        fn decide_incomplete(&self, ifindex: u32, first: &[u8]) -> Fate {
            self.decide(ifindex, first, 0)
        }
    }

    fn always(fate: Fate) -> Always {
        Always(fate, RefCell::default())
    }

    fn errands() -> Errands {
        Errands::new(Reassembler::new((TIMEOUT_V4, TIMEOUT_V6), HIGH_THRESH), 7)
    }

    /// An IPv4 packet with so many bytes of data.
    fn packet(data: usize) -> Vec<u8> {
        let mut frame = vec![0; 14 + 20 + data];
        (frame[12], frame[14], frame[22], frame[23]) = (8, 0x45, 64, 17);
        frame[16..18].copy_from_slice(&(20 + data as u16).to_be_bytes());
        frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 100]);
        frame
    }

    /// Two fragments of it: 496 bytes and the rest.
    fn fragments(data: usize) -> Vec<Vec<u8>> {
        cut(&packet(data), 1500, 0, &[496, data - 496]).expect("two fragments")
    }

    fn run(errands: &mut Errands, kind: Kind, frame: &[u8], director: &Always) -> Done {
        errands.run(&ErrandView { kind, ifindex: 3, cut_to: 600, frame }, SECOND, director)
    }

    #[test]
    fn a_whole_packet_is_decided_once_and_leaves_in_the_parts_that_came() {
        let whole = Outgoing { ifindex: 4, frame: packet(700) };
        let director = always(Fate::LeavesInPieces(whole, 600));
        let (mut errands, parts) = (errands(), fragments(700));
        assert_eq!(run(&mut errands, Kind::PutTogether, &parts[1], &director), Done::default());
        let done = run(&mut errands, Kind::PutTogether, &parts[0], &director);
        assert_eq!(*director.1.borrow(), [(3, 734, 516)]);
        let sent: Vec<_> = done.sent.iter().map(|sent| (sent.ifindex, sent.frame.len())).collect();
        assert_eq!((sent, done.passed.len()), (vec![(4, 530), (4, 238)], 0));
        assert_eq!(errands.tally(), Tally { whole: 1, cut: 1, ..Tally::default() });
    }

    #[test]
    fn what_is_none_of_ours_is_given_back_as_it_came() {
        let (mut errands, parts, director) = (errands(), fragments(700), always(Fate::Passes));
        run(&mut errands, Kind::PutTogether, &parts[1], &director);
        let done = run(&mut errands, Kind::PutTogether, &parts[0], &director);
        assert_eq!(done.sent, []);
        assert_eq!(done.passed, parts.into_iter().map(|frame| outgoing(3, frame)).collect::<Vec<_>>());
    }

    #[test]
    fn what_the_stack_gets_rewritten_it_gets_in_the_parts_that_came() {
        let (mut errands, parts) = (errands(), fragments(700));
        let director = always(Fate::PassesRewritten(packet(700), 600));
        run(&mut errands, Kind::PutTogether, &parts[1], &director);
        let done = run(&mut errands, Kind::PutTogether, &parts[0], &director);
        let passed: Vec<_> = done.passed.iter().map(|passed| (passed.ifindex, passed.frame.len())).collect();
        assert_eq!((passed, done.sent.len()), (vec![(3, 530), (3, 238)], 0));
    }

    #[test]
    fn a_long_packet_is_cut_without_a_question() {
        let (mut errands, director) = (errands(), always(Fate::Dropped));
        let done = run(&mut errands, Kind::Cut, &packet(1000), &director);
        let lengths: Vec<_> = done.sent.iter().map(|sent| (sent.ifindex, sent.frame.len())).collect();
        assert_eq!(lengths, [(3, 14 + 20 + 576), (3, 14 + 20 + 424)]);
        assert_eq!(*director.1.borrow(), []);
    }

    #[test]
    fn the_sender_of_a_first_fragment_is_told_when_time_is_up() {
        let told = Outgoing { ifindex: 3, frame: vec![1] };
        for (part, expected) in [(0, vec![told.clone()]), (1, vec![])] {
            let (mut errands, director) = (errands(), always(Fate::Leaves(told.clone())));
            run(&mut errands, Kind::PutTogether, &fragments(700)[part], &director);
            assert_eq!(errands.deadline(), Some(SECOND + TIMEOUT_V4));
            assert_eq!(errands.tick(SECOND + TIMEOUT_V4, &director).sent, expected);
            assert_eq!(errands.tally().failed, 1);
        }
    }
}
