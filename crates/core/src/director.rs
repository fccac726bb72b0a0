//! The way of a packet: from its bytes to its verdict. `docs/packet-path.md` tells it in the same words.
//!
//! There are two ways through. [`balance_known`] takes the packets of connections that go on as before, nearly all of
//! them, and declines everything else without having changed anything. [`balance`] takes every packet. In the kernel the
//! first is a program of its own, small enough for the instruction cache, which calls the second when it declines.

use crate::cell::barrier;
use crate::config::{Config, switch};
use crate::conn::entry::{Backlink, Entry, NO_SLOT};
use crate::conn::key::{self, Kind, V4};
use crate::conn::table::{self, Change, Found, Glance, Memory, New, Probe, Refused, SlotId};
use crate::conn::word::{Tick, Word};
use crate::env::{Env, Step};
use crate::expire;
use crate::forward::{self, Hindrance, nat};
use crate::icmp::{self, Complaint};
use crate::method::Method;
use crate::packet::Packet;
use crate::parse::{self, Net, NetV4, Transport};
use crate::sched::{self, Question};
use crate::server::{self, Server};
use crate::service::{self, block_of, lane_of};
use crate::state::{self, Direction, TcpState};
use crate::verdict::{DropReason, PassReason, Verdict};
use crate::wire::{Ipv4, ip_protocol, tcp_flag};

/// How often a packet starts over because the entry that it found was taken away, or another processor was faster.
const ATTEMPTS: u32 = 8;

/// How often a transition is tried against other processors that change the same connection.
const SWAPS: usize = 4;

/// Decides the fate of a packet whose connection goes on as before, and rewrites it accordingly. `None`: it is not such a
/// packet, nothing was changed or counted, and [`balance`] must see it.
#[inline(always)]
pub fn balance_known<P: Packet, E: Env>(packet: &mut P, env: &E) -> Option<Verdict> {
    let verdict = match parse::network(packet) {
        Ok(Net::V4(net)) => known_v4(packet, env, &net)?,
        Err(reason) => Verdict::Pass(reason),
    };
    count(env, verdict);
    Some(verdict)
}

/// Decides the fate of any packet, and rewrites it accordingly.
#[inline(always)]
pub fn balance<P: Packet, E: Env>(packet: &mut P, env: &E) -> Verdict {
    let verdict = match parse::network(packet) {
        Ok(Net::V4(net)) => balance_v4(packet, env, &net),
        Err(reason) => Verdict::Pass(reason),
    };
    count(env, verdict);
    verdict
}

#[inline(always)]
fn count<E: Env>(env: &E, verdict: Verdict) {
    let Some(counters) = env.counters() else { return };
    let cell = match verdict {
        Verdict::Pass(reason) => counters.passes.get(reason as usize),
        Verdict::Drop(reason) => counters.drops.get(reason as usize),
        Verdict::Transmit { .. } | Verdict::Redirect { .. } => Some(&counters.forwarded),
        Verdict::Answer { .. } => Some(&counters.answered),
    };
    if let Some(cell) = cell {
        cell.bump(1);
    }
}

/// A packet that may be ours, as the director sees it.
struct Flow<'e> {
    net: NetV4,
    transport: Transport,
    config: &'e Config,
    now: Tick,
}

/// Whom the filters recognise in a packet: they tell before any look-up whether it can be ours at all.
#[derive(Clone, Copy)]
struct Recognised {
    from_server: bool,
    to_vip: bool,
    from_vip: bool,
}

impl Recognised {
    #[inline(always)]
    fn in_v4(config: &Config, net: &NetV4) -> Self {
        Self {
            from_server: config.rips.may_hold_v4(net.src),
            to_vip: config.vips.may_hold_v4(net.dst),
            from_vip: config.vips.may_hold_v4(net.src),
        }
    }

    #[inline(always)]
    fn nobody(self) -> bool {
        !(self.from_server | self.to_vip | self.from_vip)
    }
}

impl<'e> Flow<'e> {
    /// Reads the rest of a packet that may be ours. `Err`: why the stack gets it.
    #[inline(always)]
    fn read_v4<P: Packet, E: Env>(
        packet: &P,
        env: &E,
        config: &'e Config,
        net: &NetV4,
    ) -> Result<Self, PassReason> {
        if net.fragment {
            return Err(PassReason::Fragment);
        }
        if !parse::checksum_holds_v4(packet, net) {
            return Err(PassReason::Malformed);
        }
        let transport = parse::transport(packet, net.l4, net.protocol)?;
        Ok(Self { net: *net, transport, config, now: env.now() })
    }

    /// The packet's key as a client's.
    #[inline(always)]
    fn request_key(&self) -> [u64; V4] {
        let (net, t) = (&self.net, &self.transport);
        key::v4(net.src, t.src, net.dst, t.dst, net.protocol, Kind::Conn)
    }

    /// The key of the connection to which the packet, seen from its other end, belongs.
    #[inline(always)]
    fn reverse_key(&self) -> [u64; V4] {
        let (net, t) = (&self.net, &self.transport);
        key::v4(net.dst, t.dst, net.src, t.src, net.protocol, Kind::Conn)
    }

    #[inline(always)]
    fn is_tcp(&self) -> bool {
        self.net.protocol == ip_protocol::TCP
    }

    /// Would it open a connection?
    #[inline(always)]
    fn looks_new(&self) -> bool {
        self.is_tcp() && self.transport.flags & tcp_flag::SYN != 0
    }

    #[inline(always)]
    fn has_outlived(&self, word: Word) -> bool {
        word.last_seen().count() != self.now.count()
            && table::is_expired(word, self.now, self.config.timeout(word.class()))
    }
}

// -------------------------------------------------------------------------------------------------- known connections

#[inline(always)]
fn known_v4<P: Packet, E: Env>(packet: &mut P, env: &E, net: &NetV4) -> Option<Verdict> {
    let Some(config) = env.config() else { return Some(Verdict::Pass(PassReason::Unconfigured)) };
    let who = Recognised::in_v4(config, net);
    if who.nobody() {
        return Some(Verdict::Pass(PassReason::NotOurs));
    }
    if net.l4 != parse::L3 + Ipv4::LEN {
        // Options are rare, and summing them takes a loop.
        return None;
    }
    let flow = match Flow::read_v4(packet, env, config, net) {
        Ok(flow) => flow,
        Err(reason) => return Some(Verdict::Pass(reason)),
    };
    if who.from_server {
        // A server may be a client of a VIP as well: what is no reply is looked at again as a request.
        return known_reply_v4(packet, env, &flow);
    }
    if who.to_vip { known_request_v4(packet, env, &flow) } else { None }
}

#[inline(always)]
fn known_request_v4<P: Packet, E: Env>(packet: &mut P, env: &E, flow: &Flow<'_>) -> Option<Verdict> {
    if flow.looks_new() {
        return None;
    }
    let probe = Probe::new(flow.request_key(), flow.config.seed.load(), env.conns_v4().buckets());
    let Glance::Found(found) = table::glance(env.conns_v4(), &probe) else { return None };
    let entry = Entry(found.body.entry.load());
    let server = env.server(entry.server())?;
    let usable = server.flags() & (server::flag::AVAILABLE | server::flag::LOCAL) == server::flag::AVAILABLE;
    if !usable || flow.has_outlived(found.word) {
        return None;
    }
    let hop = forward::prepare_v4(packet, server, entry.method()).ok()?;
    if !try_advance(env, flow, &found, entry.server(), request_direction(found.word)) {
        return None;
    }
    count_in(env, server, flow.net.len);
    Some(forward::send_v4(packet, env, &flow.net, server, entry, &hop).unwrap_or_else(Verdict::Drop))
}

#[inline(always)]
fn known_reply_v4<P: Packet, E: Env>(packet: &mut P, env: &E, flow: &Flow<'_>) -> Option<Verdict> {
    let probe = Probe::new(flow.request_key(), flow.config.seed.load(), env.replies_v4().buckets());
    let Glance::Found(reply) = table::glance(env.replies_v4(), &probe) else { return None };
    let Connection { found, entry, vip, vport } = behind_reply_v4(env, flow, reply)?;
    let hop = nat::route_to_client(packet, env, &flow.net, vip).ok()?;
    if !try_advance(env, flow, &found, entry.server(), Direction::Output) {
        return None;
    }
    if let Some(server) = env.server(entry.server()) {
        count_out(env, server, flow.net.len);
    }
    Some(nat::send_to_client(packet, env, &flow.net, vip, vport, &hop).unwrap_or_else(Verdict::Drop))
}

// -------------------------------------------------------------------------------------------------------- any packet

#[inline(always)]
fn balance_v4<P: Packet, E: Env>(packet: &mut P, env: &E, net: &NetV4) -> Verdict {
    let Some(config) = env.config() else { return Verdict::Pass(PassReason::Unconfigured) };
    let who = Recognised::in_v4(config, net);
    if who.nobody() {
        return Verdict::Pass(PassReason::NotOurs);
    }
    let flow = match Flow::read_v4(packet, env, config, net) {
        Ok(flow) => flow,
        Err(reason) => return Verdict::Pass(reason),
    };
    match direct_v4(packet, env, &flow, who) {
        Ok(verdict) => verdict,
        Err(complaint) => answer(packet, env, &flow, &complaint),
    }
}

/// The kernel's order: the reply hooks come before the request hook.
#[inline(always)]
fn direct_v4<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_>,
    who: Recognised,
) -> Result<Verdict, Answer> {
    if who.from_server
        && let Some(outcome) = reply_v4(packet, env, flow)
    {
        return outcome;
    }
    if who.to_vip {
        return request_v4(packet, env, flow);
    }
    let seen = observe_v4(env, flow);
    Ok(Verdict::Pass(if seen { PassReason::Reply } else { PassReason::NotOurs }))
}

// ---------------------------------------------------------------------------------------------------------- requests

/// What was decided for a request before it is forwarded.
enum Decision {
    /// Forward it as this entry says.
    Forward(Entry),
    /// No usable server: the client is told.
    NoServer,
    /// It is dropped.
    Drop(DropReason),
    /// It goes to the stack.
    Pass(PassReason),
    /// The entry that was found is gone, or another processor made it first: look again.
    Again,
}

/// A packet to a VIP: on its connection's way, or on that of a new connection.
#[inline(always)]
fn request_v4<P: Packet, E: Env>(packet: &mut P, env: &E, flow: &Flow<'_>) -> Result<Verdict, Answer> {
    let mut attempts = Attempts { env, flow, decision: Packed::from(Decision::Again) };
    env.repeat(ATTEMPTS, &mut attempts);
    match attempts.decision.unpack() {
        Decision::Forward(entry) => forward_v4(packet, env, flow, entry),
        Decision::NoServer => Err(Answer {
            complaint: Complaint::PortUnreachable,
            source: flow.net.dst,
            otherwise: DropReason::NoServer,
        }),
        Decision::Drop(reason) => Ok(Verdict::Drop(reason)),
        Decision::Pass(reason) => Ok(Verdict::Pass(reason)),
        Decision::Again => Ok(Verdict::Drop(DropReason::Contended)),
    }
}

/// Looking for a request's entry, or making it, until that is decided.
struct Attempts<'a, E> {
    env: &'a E,
    flow: &'a Flow<'a>,
    decision: Packed,
}

impl<E: Env> Step for Attempts<'_, E> {
    #[inline(always)]
    fn turn(&mut self, _i: u32) -> bool {
        let memory = self.env.conns_v4();
        let probe = Probe::new(self.flow.request_key(), self.flow.config.seed.load(), memory.buckets());
        let decision = match memory.look_up(&probe) {
            Some(slot) => match table::hold(memory, slot, &probe) {
                Some(found) => continue_v4(self.env, self.flow, found),
                None => Decision::Again,
            },
            None => schedule_v4(self.env, self.flow, &probe),
        };
        let again = matches!(decision, Decision::Again);
        self.decision = Packed::from(decision);
        again
    }
}

/// A decision in one register, which the verifier can follow through memory. The entry's unused byte tells which.
#[derive(Clone, Copy)]
struct Packed(u64);

impl Packed {
    const KIND: u32 = 56;

    #[inline(always)]
    fn unpack(self) -> Decision {
        match (self.0 >> Self::KIND) as u8 {
            0 => Decision::Forward(Entry(self.0)),
            1 => Decision::NoServer,
            2 => DropReason::from_u8(self.0 as u8).map_or(Decision::Again, Decision::Drop),
            3 => PassReason::from_u8(self.0 as u8).map_or(Decision::Again, Decision::Pass),
            _ => Decision::Again,
        }
    }
}

impl From<Decision> for Packed {
    #[inline(always)]
    fn from(decision: Decision) -> Self {
        let (kind, value) = match decision {
            Decision::Forward(entry) => (0, entry.0),
            Decision::NoServer => (1, 0),
            Decision::Drop(reason) => (2, reason as u64),
            Decision::Pass(reason) => (3, reason as u64),
            Decision::Again => (4, 0),
        };
        Self(kind << Self::KIND | value)
    }
}

/// A packet of a connection that has an entry.
#[inline(always)]
fn continue_v4<E: Env>(env: &E, flow: &Flow<'_>, found: Found<'_, V4>) -> Decision {
    let entry = Entry(found.body.entry.load());
    let Some(server) = env.server(entry.server()) else { return Decision::Drop(DropReason::Broken) };
    let flags = server.flags();
    let gone = flags & server::flag::AVAILABLE == 0;
    let retired = flow.has_outlived(found.word)
        || (flow.looks_new() && is_to_be_rescheduled(flow, &found, flags))
        || (gone && flow.config.has(switch::EXPIRE_NODEST_CONN));
    if retired {
        retire(env, flow, &found);
        return Decision::Again;
    }
    if gone {
        return Decision::Drop(DropReason::ServerGone);
    }
    if !advance(env, flow, &found, entry.server(), request_direction(found.word)) {
        return Decision::Again;
    }
    count_in(env, server, flow.net.len);
    Decision::Forward(entry)
}

/// Removes an entry that has had its time; the packet then goes on as if there had been none.
#[inline(always)]
fn retire<E: Env>(env: &E, flow: &Flow<'_>, found: &Found<'_, V4>) {
    if expire::remove_v4(env, flow.config, found)
        && let Some(counters) = env.counters()
    {
        counters.expired.bump(1);
    }
}

/// Does a SYN on this entry open a new connection rather than continue the old one (`conn_reuse_mode`)?
#[inline(always)]
fn is_to_be_rescheduled(flow: &Flow<'_>, found: &Found<'_, V4>, server_flags: u16) -> bool {
    if flow.config.has(switch::EXPIRE_NODEST_CONN) && server_flags & server::flag::QUIESCED != 0 {
        return true;
    }
    let mode = flow.config.reuse_mode.load();
    if mode == 0 || (found.body.link.load() >> 32) as u32 != NO_SLOT {
        return false;
    }
    let state = found.word.state();
    state == TcpState::TimeWait as u8
        || state == TcpState::Close as u8
        || (mode & 2 != 0 && state == TcpState::FinWait as u8 && found.word.no_output())
}

#[inline(always)]
fn request_direction(word: Word) -> Direction {
    if word.no_output() { Direction::InputOnly } else { Direction::Input }
}

/// [`advance`] for the short way: one try. `false`: another processor was faster, and nothing happened.
#[inline(always)]
fn try_advance<E: Env>(
    env: &E,
    flow: &Flow<'_>,
    found: &Found<'_, V4>,
    server: u32,
    direction: Direction,
) -> bool {
    let next = |word| successor(flow, word, direction);
    table::change(found, 1, next, |before, after| settle_active(env, server, before, after)) == Change::Done
}

/// Moves a connection on for a packet in this direction. `false`: its entry is gone.
///
/// Nothing is written when nothing changed, which is so for all but four packets a second.
#[inline(always)]
fn advance<E: Env>(
    env: &E,
    flow: &Flow<'_>,
    found: &Found<'_, V4>,
    server: u32,
    direction: Direction,
) -> bool {
    let next = |word| successor(flow, word, direction);
    let settle = |before, after| settle_active(env, server, before, after);
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
fn successor(flow: &Flow<'_>, word: Word, direction: Direction) -> Word {
    let word = if matches!(direction, Direction::Output) { word.with_no_output(false) } else { word };
    if flow.is_tcp() {
        let secure = flow.config.has(switch::SECURE_TCP);
        let next = state::next_tcp(word.state(), direction, flow.transport.flags, secure);
        word.in_state(next, flow.config.tcp_class_of(next), TcpState::is_active(next)).seen_at(flow.now)
    } else {
        word.in_state(state::UDP_NORMAL, flow.config.udp_class.load() as u8, false).seen_at(flow.now)
    }
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

#[inline(always)]
fn count_in<E: Env>(env: &E, server: &Server, bytes: u16) {
    if let Some(stats) = env.stats(server.place().stats) {
        stats.count_in(bytes);
    }
}

#[inline(always)]
fn count_out<E: Env>(env: &E, server: &Server, bytes: u16) {
    if let Some(stats) = env.stats(server.place().stats) {
        stats.count_out(bytes);
    }
}

/// A packet without an entry: may it open a connection, to which service, and which server gets it?
#[inline(always)]
fn schedule_v4<E: Env>(env: &E, flow: &Flow<'_>, probe: &Probe<V4>) -> Decision {
    if flow.is_tcp() && !may_open(flow.config, flow.transport.flags) {
        return Decision::Pass(PassReason::NoConnection);
    }
    let Some(service) = find_service_v4(env, flow) else { return Decision::Pass(PassReason::NoService) };
    let question = Question::v4(service, flow.net.src, flow.transport.src, flow.net.dst);
    match sched::pick(env, &question) {
        Some(server) => connect_v4(env, flow, probe, server),
        None => Decision::NoServer,
    }
}

/// TCP: a SYN without RST, or with `sloppy_tcp` anything but RST.
#[inline(always)]
fn may_open(config: &Config, flags: u8) -> bool {
    let sloppy = config.has(switch::SLOPPY_TCP);
    flags & tcp_flag::RST == 0 && (sloppy || flags & tcp_flag::SYN != 0)
}

#[inline(always)]
fn find_service_v4<E: Env>(env: &E, flow: &Flow<'_>) -> Option<u32> {
    let (net, t) = (&flow.net, &flow.transport);
    let key = service_key_v4(net.dst, t.dst, net.protocol);
    let probe = Probe::new(key, flow.config.seed.load(), env.services_v4().buckets());
    let slot = env.services_v4().look_up(&probe)?;
    let found = table::hold(env.services_v4(), slot, &probe)?;
    let service = found.body.entry.load() as u32;
    found.is_there().then_some(service)
}

/// The key under which a service lies in the service table. Port as on the wire.
#[inline(always)]
pub const fn service_key_v4(vip: [u8; 4], port: [u8; 2], protocol: u8) -> [u64; V4] {
    key::v4([0; 4], [0; 2], vip, port, protocol, Kind::Conn)
}

/// Makes the entry of a new connection to this server, in the state that its first packet leads to.
#[inline(always)]
fn connect_v4<E: Env>(env: &E, flow: &Flow<'_>, probe: &Probe<V4>, id: u32) -> Decision {
    let (Some(server), Some(block)) = (env.server(id), env.block(block_of(id))) else {
        return Decision::Drop(DropReason::Broken);
    };
    let method = (server.flags() & server::flag::METHOD) as u8;
    let port = destination_port(block, lane_of(id), flow.transport.dst);
    let entry = Entry::new(id, port, method);
    let nat = method == Method::Masquerade as u8;
    let direction = if nat { Direction::Input } else { Direction::InputOnly };
    let word = successor(flow, Word(0).with_no_output(!nat), direction);
    let new = New { word, entry: entry.0, link: (NO_SLOT as u64) << 32 };
    let slot = match env.conns_v4().put(probe, &new) {
        Ok(slot) => slot,
        Err(Refused::Full) => {
            let reclaimed = reclaim_v4(env, flow, probe);
            return if reclaimed { Decision::Again } else { Decision::Drop(DropReason::TableFull) };
        }
        Err(Refused::Exists | Refused::Contended) => return Decision::Again,
    };
    block.bind(lane_of(id));
    if word.active() {
        block.count_active(lane_of(id), true);
    }
    // The entry is counted from here on; should it be gone already, its remover has settled with the counters.
    let Some(found) = table::hold(env.conns_v4(), slot, probe) else { return Decision::Again };
    if nat && let Err(why) = link_reply_v4(env, flow, &found, server, port) {
        let _ended_by_another = expire::remove_v4(env, flow.config, &found);
        return match why {
            Refused::Full => Decision::Drop(DropReason::TableFull),
            Refused::Exists | Refused::Contended => Decision::Again,
        };
    }
    if let Some(stats) = env.stats(server.place().stats) {
        stats.conns.bump(1);
        stats.count_in(flow.net.len);
    }
    Decision::Forward(entry)
}

/// Removes what has expired from the buckets that a new entry may go into: so the table goes on taking connections while
/// no daemon sweeps it. `false`: all that is there lives.
#[inline(always)]
fn reclaim_v4<E: Env>(env: &E, flow: &Flow<'_>, probe: &Probe<V4>) -> bool {
    let mut reclaim = Reclaim { env, flow, buckets: probe.candidates(), reclaimed: false };
    env.repeat(2 * table::LANES as u32, &mut reclaim);
    reclaim.reclaimed
}

struct Reclaim<'a, E> {
    env: &'a E,
    flow: &'a Flow<'a>,
    buckets: [u32; 2],
    reclaimed: bool,
}

impl<E: Env> Step for Reclaim<'_, E> {
    #[inline(always)]
    fn turn(&mut self, i: u32) -> bool {
        let [first, second] = self.buckets;
        let bucket = if i < table::LANES as u32 { first } else { second };
        let slot = SlotId::new(bucket, (i & 7) as usize);
        self.reclaimed |= expire::sweep_slot_v4(self.env, self.flow.config, slot, self.flow.now);
        true
    }
}

/// The server's port, or the packet's where the server has none.
#[inline(always)]
fn destination_port(block: &service::Block, lane: usize, packets: [u8; 2]) -> [u8; 2] {
    match block.port.get(lane & (service::BLOCK - 1)).map(|p| (p.load() as u16).to_ne_bytes()) {
        Some(port) if port != [0, 0] => port,
        _ => packets,
    }
}

/// Lets the replies of a NAT connection find it.
#[inline(always)]
fn link_reply_v4<E: Env>(
    env: &E,
    flow: &Flow<'_>,
    found: &Found<'_, V4>,
    server: &Server,
    port: [u8; 2],
) -> Result<(), Refused> {
    let probe = expire::reply_probe_v4(env, flow.config, flow.request_key(), server.addr_v4(), port);
    let link = Backlink::new(found.id.0, found.word.generation());
    let memory = env.replies_v4();
    if let Some(old) = memory.look_up(&probe).and_then(|slot| table::hold(memory, slot, &probe)) {
        // The same client port to the same server by another VIP: like the kernel's, the newer one gets the replies. Not
        // written over: the older connection's end would not see the difference and remove what is no longer its own.
        let _by_us_or_another = table::remove(&old);
    }
    let new = New { word: Word(0).seen_at(flow.now), entry: link.0, link: 0 };
    let slot = memory.put(&probe, &new)?;
    // Who ended the connection meanwhile either saw the backlink and removed it, or it is ours to remove.
    barrier();
    if !found.is_there()
        && let Some(mine) = table::hold(memory, slot, &probe)
        && mine.body.entry.load() == link.0
    {
        let _by_us_or_another = table::remove(&mine);
    }
    Ok(())
}

/// Sends a request to its server by the connection's method.
#[inline(always)]
fn forward_v4<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_>,
    entry: Entry,
) -> Result<Verdict, Answer> {
    let sent = Sent::unpack(send_packed_v4(packet, env, flow, entry));
    sent.or_else(|hindrance| hindered(hindrance, flow.net.dst))
}

/// The sending itself, in a function with a stack frame of its own: what it needs is not needed while a server is chosen,
/// and 512 bytes (on Linux 6.1 rounded up call by call) must do for all that is. Returns a packed [`Sent`].
#[inline(never)]
fn send_packed_v4<P: Packet, E: Env>(packet: &mut P, env: &E, flow: &Flow<'_>, entry: Entry) -> u64 {
    Sent::pack(send_request_v4(packet, env, flow, entry))
}

#[inline(always)]
fn send_request_v4<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_>,
    entry: Entry,
) -> Result<Verdict, Hindrance> {
    let Some(server) = env.server(entry.server()) else { return Err(DropReason::Broken.into()) };
    if server.flags() & server::flag::LOCAL != 0 {
        return Ok(Verdict::Pass(PassReason::Local));
    }
    let hop = forward::prepare_v4(packet, server, entry.method())?;
    Ok(forward::send_v4(packet, env, &flow.net, server, entry, &hop)?)
}

/// What sending came to, in one register.
struct Sent;

impl Sent {
    const KIND: u32 = 32;
    /// Nothing was sent, since it was none of our business.
    const NOT_OURS: u64 = 7 << Self::KIND;

    #[inline(always)]
    fn pack(sent: Result<Verdict, Hindrance>) -> u64 {
        let (kind, value) = match sent {
            Ok(Verdict::Pass(reason)) => (0, reason as u32),
            Ok(Verdict::Drop(reason)) | Err(Hindrance::Drop(reason)) => (1, reason as u32),
            Ok(Verdict::Transmit { ifindex }) => (2, ifindex),
            Ok(Verdict::Redirect { ifindex }) => (3, ifindex),
            Ok(Verdict::Answer { ifindex }) => (4, ifindex),
            Err(Hindrance::TtlExceeded) => (5, 0),
            Err(Hindrance::TooBig { mtu }) => (6, mtu as u32),
        };
        (kind as u64) << Self::KIND | value as u64
    }

    #[inline(always)]
    fn unpack(packed: u64) -> Result<Verdict, Hindrance> {
        let value = packed as u32;
        match (packed >> Self::KIND) as u8 {
            0 => PassReason::from_u8(value as u8).map(Verdict::Pass).ok_or(DropReason::Broken.into()),
            1 => Err(DropReason::from_u8(value as u8).unwrap_or(DropReason::Broken).into()),
            2 => Ok(Verdict::Transmit { ifindex: value }),
            3 => Ok(Verdict::Redirect { ifindex: value }),
            4 => Ok(Verdict::Answer { ifindex: value }),
            5 => Err(Hindrance::TtlExceeded),
            _ => Err(Hindrance::TooBig { mtu: value as u16 }),
        }
    }
}

// ----------------------------------------------------------------------------------------------------------- answers

/// An ICMP error instead of the packet.
struct Answer {
    complaint: Complaint,
    /// As whom the director speaks.
    source: [u8; 4],
    /// What counts when the error may not be sent.
    otherwise: DropReason,
}

/// What a packet that cannot be sent on gets instead.
#[inline(always)]
fn hindered(hindrance: Hindrance, source: [u8; 4]) -> Result<Verdict, Answer> {
    let (complaint, otherwise) = match hindrance {
        Hindrance::Drop(reason) => return Ok(Verdict::Drop(reason)),
        Hindrance::TtlExceeded => (Complaint::TtlExceeded, DropReason::TtlExceeded),
        Hindrance::TooBig { mtu } => (Complaint::TooBig { mtu }, DropReason::TooBig),
    };
    Err(Answer { complaint, source, otherwise })
}

/// Answers with an ICMP error, or drops the packet where that is not allowed.
#[inline(always)]
fn answer<P: Packet, E: Env>(packet: &mut P, env: &E, flow: &Flow<'_>, with: &Answer) -> Verdict {
    if is_answered(packet, env, flow, with) {
        Verdict::Answer { ifindex: env.ingress() }
    } else {
        Verdict::Drop(with.otherwise)
    }
}

/// Turns the packet into the answer, if that is allowed. A function with a stack frame of its own: what it needs is not
/// needed while connections are looked up, and 512 bytes must do for all that is.
#[inline(never)]
fn is_answered<P: Packet, E: Env>(packet: &mut P, env: &E, flow: &Flow<'_>, with: &Answer) -> bool {
    let Some(counters) = env.counters() else { return false };
    if !counters.may_send_icmp(flow.now) {
        return false;
    }
    counters.ip_id.bump(1);
    let id = (counters.ip_id.load() as u16).to_be_bytes();
    let reply = icmp::Reply { complaint: with.complaint, source: with.source, length: flow.net.len, id };
    icmp::answer_v4(packet, env, &reply).is_some()
}

// ----------------------------------------------------------------------------------------------------------- replies

/// The connection to which this entry of the reply table leads.
#[inline(always)]
fn behind_reply_v4<'e, E: Env>(env: &'e E, flow: &Flow<'_>, reply: Found<'e, V4>) -> Option<Connection<'e>> {
    let link = Backlink(reply.body.entry.load());
    if !reply.is_there() {
        return None;
    }
    let found = table::at(env.conns_v4(), SlotId(link.slot()))?;
    if found.word.generation() != link.generation() || flow.has_outlived(found.word) {
        return None;
    }
    let (_, _, vip, vport, _, _) = key::parts_v4(found.body.key());
    Some(Connection { found, entry: Entry(found.body.entry.load()), vip, vport })
}

/// What a reply needs to know of its connection. Sure when the entry turns out to be still there.
struct Connection<'e> {
    found: Found<'e, V4>,
    entry: Entry,
    vip: [u8; 4],
    vport: [u8; 2],
}

/// A packet from a real server. `None`: it is no reply of a NAT connection.
#[inline(always)]
fn reply_v4<P: Packet, E: Env>(packet: &mut P, env: &E, flow: &Flow<'_>) -> Option<Result<Verdict, Answer>> {
    let mut inside = [0; 4];
    let packed = reply_packed_v4(packet, env, flow, &mut inside);
    if packed == Sent::NOT_OURS {
        return None;
    }
    Some(Sent::unpack(packed).or_else(|hindrance| hindered(hindrance, inside)))
}

/// A reply's way in a function with a stack frame of its own, for the reason that [`send_packed_v4`] gives. Tells the
/// director's address towards the server, and returns a packed [`Sent`], or that it is no reply.
#[inline(never)]
fn reply_packed_v4<P: Packet, E: Env>(packet: &mut P, env: &E, flow: &Flow<'_>, inside: &mut [u8; 4]) -> u64 {
    send_reply_v4(packet, env, flow, inside).map_or(Sent::NOT_OURS, Sent::pack)
}

#[inline(always)]
fn send_reply_v4<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_>,
    inside: &mut [u8; 4],
) -> Option<Result<Verdict, Hindrance>> {
    let probe = Probe::new(flow.request_key(), flow.config.seed.load(), env.replies_v4().buckets());
    let slot = env.replies_v4().look_up(&probe)?;
    let reply = table::hold(env.replies_v4(), slot, &probe)?;
    let Connection { found, entry, vip, vport } = behind_reply_v4(env, flow, reply)?;
    if !advance(env, flow, &found, entry.server(), Direction::Output) {
        return None;
    }
    let server = env.server(entry.server())?;
    *inside = server.source_v4();
    count_out(env, server, flow.net.len);
    let hop = match nat::route_to_client(packet, env, &flow.net, vip) {
        Ok(hop) => hop,
        Err(hindrance) => {
            if matches!(hindrance, Hindrance::Drop(DropReason::ClientUnresolved)) {
                env.want_neighbour_v4(flow.net.dst);
            }
            return Some(Err(hindrance));
        }
    };
    Some(nat::send_to_client(packet, env, &flow.net, vip, vport, &hop).map_err(Hindrance::Drop))
}

/// A packet from a VIP that passes the director: the direct reply of a DR or TUN server whose way leads through here.
/// The connection sees it, the packet goes on untouched. `false`: no connection's.
#[inline(always)]
fn observe_v4<E: Env>(env: &E, flow: &Flow<'_>) -> bool {
    let probe = Probe::new(flow.reverse_key(), flow.config.seed.load(), env.conns_v4().buckets());
    let memory = env.conns_v4();
    let found = memory.look_up(&probe).and_then(|slot| table::hold(memory, slot, &probe));
    let Some(found) = found.filter(|found| !flow.has_outlived(found.word)) else { return false };
    let entry = Entry(found.body.entry.load());
    if !advance(env, flow, &found, entry.server(), Direction::Output) {
        return false;
    }
    if let Some(server) = env.server(entry.server()) {
        count_out(env, server, flow.net.len);
    }
    true
}
