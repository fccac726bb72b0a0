//! What a packet does to its connection: states, counts, statistics.

use super::flow::Flow;
use crate::config::{class, switch};
use crate::conn::entry::{IN_PACKETS_ENOUGH, Link};
use crate::conn::table::{self, Change, Found};
use crate::conn::word::Word;
use crate::env::Env;
use crate::family::Family;
use crate::persist;
use crate::sctp::{self, state::SctpState};
use crate::server::Server;
use crate::service::{block_of, lane_of};
use crate::state::{self, Direction, TcpState};
use crate::verdict::{DropReason, Verdict};
use crate::wire::tcp_flag;

/// How often a transition is tried against other processors that change the same connection.
const SWAPS: usize = 4;

/// Which table judges a client's packet.
#[inline(always)]
pub fn request_direction(word: Word) -> Direction {
    if word.no_output() { Direction::InputOnly } else { Direction::Input }
}

/// [`advance`] for the short way: one try. `false`: the entry is outlived, another processor was faster, the packet would make a
/// template assured, or it is a SYN whose service may have a say in it; and nothing happened.
#[inline(always)]
pub fn try_advance<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    found: &Found<'_, K>,
    server: u32,
    direction: Direction,
) -> bool {
    // First, since nearly all are that, and need not be asked the rest.
    if repeats(flow, found.word, direction) {
        return found.is_there();
    }
    if flow.has_outlived(found.word) {
        return false;
    }
    if flow.is_syn() && flow.config.has(switch::CLAMPS_MSS) {
        // What it says may have to be lowered, which is not done here.
        return false;
    }
    let next = |word| short_successor(flow, word, direction);
    let template = Link(found.body.link.load()).template();
    if template.is_some() && assures(flow, found.word, next(found.word)) {
        return false;
    }
    table::change(found, 1, next, |before, after| settle_active(env, server, before, after)) == Change::Done
}

/// Is this one more packet of a connection at rest, seen in this very tick? Then the word stays as it is, whatever the tables say:
/// nearly all packets of a busy connection are that. (A timeout that was changed within the tick counts from the next on.)
#[inline(always)]
fn repeats<F: Family<K>, const K: usize>(flow: &Flow<'_, F, K>, word: Word, direction: Direction) -> bool {
    const OTHERS: u8 = tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST | tcp_flag::ACK;
    let at_rest = if flow.is_tcp() {
        flow.transport.flags & OTHERS == tcp_flag::ACK && word.state() == TcpState::Established as u8
    } else {
        !matches!(direction, Direction::Output) || word.state() == state::udp::ANSWERED
    };
    let is_news = matches!(direction, Direction::Output) && word.no_output();
    word.last_seen().count() == flow.now.count() && at_rest && !is_news
}

/// Moves a connection on for a packet in this direction. `false`: its entry is gone.
///
/// Nothing is written when nothing changed, which is so for all but four packets a second.
#[inline(always)]
pub fn advance<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    found: &Found<'_, K>,
    server: u32,
    direction: Direction,
) -> bool {
    let next = |word| successor(flow, word, direction);
    let settle = |before, after| {
        settle_active(env, server, before, after);
        if assures(flow, before, after)
            && let Some(template) = Link(found.body.link.load()).template()
        {
            persist::assure::<F, E, K>(env, template);
        }
    };
    match table::change(found, SWAPS, next, settle) {
        Change::Done => true,
        Change::Gone => false,
        Change::Contended => {
            // Somebody else's refreshment stands; only this packet's transition is lost.
            if let Some(counters) = env.counters() {
                counters.contended.bump(1);
            }
            true
        }
    }
}

/// The word after this packet.
#[inline(always)]
pub fn successor<F: Family<K>, const K: usize>(
    flow: &Flow<'_, F, K>,
    word: Word,
    direction: Direction,
) -> Word {
    if !flow.is_sctp() {
        return short_successor(flow, word, direction);
    }
    let word = if matches!(direction, Direction::Output) { word.with_no_output(false) } else { word };
    let next = sctp::state::next(word.state(), direction, flow.transport.flags);
    word.in_state(next, class::SCTP + next, SctpState::is_active(next)).seen_at(flow.now)
}

/// The same for TCP and UDP.
#[inline(always)]
pub fn short_successor<F: Family<K>, const K: usize>(
    flow: &Flow<'_, F, K>,
    word: Word,
    direction: Direction,
) -> Word {
    let word = if matches!(direction, Direction::Output) { word.with_no_output(false) } else { word };
    if flow.is_tcp() {
        let secure = flow.config.has(switch::SECURE_TCP);
        let next = state::next_tcp(word.state(), direction, flow.transport.flags, secure);
        word.in_state(next, flow.config.tcp_class_of(next), TcpState::is_active(next)).seen_at(flow.now)
    } else {
        let answered = matches!(direction, Direction::Output) || word.state() == state::udp::ANSWERED;
        let state = if answered { state::udp::ANSWERED } else { state::udp::ASKED };
        word.in_state(state, flow.config.udp_class.load() as u8, false).seen_at(flow.now)
    }
}

/// The first word of a connection.
#[inline(always)]
pub fn beginning<F: Family<K>, const K: usize>(flow: &Flow<'_, F, K>, direction: Direction) -> Word {
    let word = Word(0).with_no_output(matches!(direction, Direction::InputOnly));
    if flow.is_hearsay {
        return word.in_state(TcpState::None as u8, class::NEW, false).seen_at(flow.now);
    }
    successor(flow, word, direction)
}

/// Does this transition show that there is a client, and not only somebody who sends first packets?
#[inline(always)]
pub fn assures<F: Family<K>, const K: usize>(flow: &Flow<'_, F, K>, before: Word, after: Word) -> bool {
    let proof = if flow.is_tcp() {
        TcpState::Established as u8
    } else if flow.is_sctp() {
        SctpState::Established as u8
    } else {
        state::udp::ANSWERED
    };
    before.state() != proof && after.state() == proof
}

/// The winner of a transition moves the active count.
#[inline(always)]
fn settle_active<E: Env>(env: &E, server: u32, before: Word, after: Word) {
    if before.active() != after.active()
        && let Some(block) = env.block(block_of(server))
    {
        block.count_active(lane_of(server), after.active());
    }
}

/// Counts a packet from the client, as long as anybody wants to know.
#[inline(always)]
pub fn count_in_packet<const K: usize>(found: &Found<'_, K>, link: Link) {
    if link.in_packets() < IN_PACKETS_ENOUGH {
        let _before = found.body.link.add(1);
    }
}

/// A packet to a server.
#[inline(always)]
pub fn count_in<E: Env>(env: &E, server: &Server, bytes: u16) {
    count_in_at_once(env, server, bytes);
    tell_apart(env);
}

/// [`count_in`] on the short way, for a packet that is sent on there: nobody else counts it.
#[inline(always)]
pub fn count_in_at_once<E: Env>(env: &E, server: &Server, bytes: u16) {
    if let Some(stats) = env.stats(server.place().stats) {
        stats.count_in(bytes);
    }
}

/// A packet from a server.
#[inline(always)]
pub fn count_out<E: Env>(env: &E, server: &Server, bytes: u16) {
    count_out_at_once(env, server, bytes);
    tell_apart(env);
}

/// [`count_out`] on the short way.
#[inline(always)]
pub fn count_out_at_once<E: Env>(env: &E, server: &Server, bytes: u16) {
    if let Some(stats) = env.stats(server.place().stats) {
        stats.count_out(bytes);
    }
}

/// What became of a packet on the short way that its server's statistics have.
#[inline(always)]
pub fn sent_at_once<E: Env>(env: &E, sent: Result<Verdict, DropReason>) -> Verdict {
    sent.unwrap_or_else(|reason| {
        tell_apart(env);
        Verdict::Drop(reason)
    })
}

/// A packet that its server's statistics have is not one that was sent on by the short way.
#[inline(always)]
fn tell_apart<E: Env>(env: &E) {
    if let Some(counters) = env.counters() {
        counters.told_apart.bump(1);
    }
}

/// A connection, with its first packet if that came.
#[inline(always)]
pub fn count_connection<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    server: &Server,
    flow: &Flow<'_, F, K>,
) {
    if let Some(stats) = env.stats(server.place().stats) {
        stats.conns.bump(1);
        if !flow.is_hearsay {
            stats.count_in(flow.net.len);
            tell_apart(env);
        }
    }
}
