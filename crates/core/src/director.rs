//! The way of a packet: from its bytes to its verdict. `docs/packet-path.md` tells it in the same words.
//!
//! [`known`] takes the packets of connections that go on as before, nearly all of them, and declines everything else without
//! having changed anything. [`reply`] takes what comes from servers, and [`request`] what is for a VIP.

use crate::cell::barrier;
use crate::config::{Config, switch};
use crate::conn::entry::{Backlink, Entry, IN_PACKETS_ENOUGH, Link};
use crate::conn::key::{self, Kind, V4};
use crate::conn::table::{self, Change, Found, Glance, Memory, New, Probe, Refused, SlotId};
use crate::conn::word::{Tick, Word};
use crate::env::{Env, Step};
use crate::expire;
use crate::forward::{self, Hindrance, nat};
use crate::icmp::{self, Complaint};
use crate::method::Method;
use crate::packet::{self, Packet};
use crate::parse::{self, Net, NetV4, Transport};
use crate::persist::{self, Without};
use crate::sched::{self, Question};
use crate::server::{self, Server};
use crate::service::{self, Service, block_of, lane_of};
use crate::state::{self, Direction, TcpState};
use crate::verdict::{DropReason, PassReason, Verdict};
use crate::wire::{Ipv4, ip_protocol, tcp_flag};

/// How often a packet starts over because the entry that it found was taken away, or another processor was faster.
const ATTEMPTS: u32 = 8;

/// How often a transition is tried against other processors that change the same connection.
const SWAPS: usize = 4;

/// Where a packet goes on when [`known`] or [`reply`] declines it. In the kernel each stage is a program of its own: the
/// first is small enough for the instruction cache, and each has the whole stack, of which there are 512 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// [`reply`]
    Reply = 0,
    /// [`request`]
    Request = 1,
}

/// Decides the fate of any packet, and rewrites it accordingly: all stages in their order.
pub fn balance<P: Packet, E: Env>(packet: &mut P, env: &E) -> Verdict {
    let declined = match known(packet, env) {
        Err(Stage::Reply) => reply(packet, env),
        declined => declined,
    };
    declined.unwrap_or_else(|_request| request(packet, env))
}

/// Decides the fate of a packet whose connection goes on as before, and rewrites it accordingly. `Err`: it is not such a
/// packet, nothing was changed or counted, and that stage must see it.
#[inline(always)]
pub fn known<P: Packet, E: Env>(packet: &mut P, env: &E) -> Result<Verdict, Stage> {
    let verdict = match parse::network(packet) {
        Ok(Net::V4(net)) => known_v4(packet, env, &net)?,
        Err(reason) => Verdict::Pass(reason),
    };
    count(env, verdict);
    Ok(verdict)
}

/// Decides the fate of a packet from a real server or a VIP, and rewrites it accordingly. `Err`: it is none of ours; nothing
/// was changed or counted, and that stage must see it as a packet to a VIP.
#[inline(always)]
pub fn reply<P: Packet, E: Env>(packet: &mut P, env: &E) -> Result<Verdict, Stage> {
    let Some(config) = env.config() else { return Ok(Verdict::Pass(PassReason::Unconfigured)) };
    let mut flow = Flow::blank(config, env.now());
    let verdict = match flow.read(packet) {
        Ok(()) => match from_inside_v4(packet, env, &flow)? {
            Ok(verdict) => verdict,
            Err(complaint) => answer(packet, env, &flow, &complaint),
        },
        Err(reason) => Verdict::Pass(reason),
    };
    count(env, verdict);
    Ok(verdict)
}

/// Decides the fate of a packet to a VIP, and rewrites it accordingly.
#[inline(always)]
pub fn request<P: Packet, E: Env>(packet: &mut P, env: &E) -> Verdict {
    let Some(config) = env.config() else { return Verdict::Pass(PassReason::Unconfigured) };
    let mut flow = Flow::blank(config, env.now());
    let verdict = match flow.read(packet) {
        Ok(()) => match request_v4(packet, env, &flow) {
            Ok(verdict) => verdict,
            Err(complaint) => answer(packet, env, &flow, &complaint),
        },
        Err(reason) => Verdict::Pass(reason),
    };
    count(env, verdict);
    verdict
}

/// The reading itself, in a function with a stack frame of its own: what it needs is not needed afterwards, and 512 bytes
/// must do for all that is. Returns the number of a [`PassReason`], or one that none has.
#[inline(never)]
fn read_packed<P: Packet>(packet: &mut P, flow: &mut Flow<'_>) -> u8 {
    match read_into(packet::by_reference(packet), flow) {
        Ok(()) => u8::MAX,
        Err(reason) => reason as u8,
    }
}

#[inline(always)]
fn read_into<P: Packet>(packet: &P, flow: &mut Flow<'_>) -> Result<(), PassReason> {
    let Net::V4(net) = parse::network(packet)?;
    flow.net = net;
    flow.read_rest_v4(packet)
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
    /// One that nothing was read into yet.
    #[inline(always)]
    fn blank(config: &'e Config, now: Tick) -> Self {
        let net = NetV4 { l4: 0, src: [0; 4], dst: [0; 4], protocol: 0, len: 0, fragment: false };
        Self { net, transport: Transport { src: [0; 2], dst: [0; 2], flags: 0 }, config, now }
    }

    /// Reads a packet that may be ours. `Err`: why the stack gets it.
    #[inline(always)]
    fn read<P: Packet>(&mut self, packet: &mut P) -> Result<(), PassReason> {
        match PassReason::from_u8(read_packed(packet, self)) {
            None => Ok(()),
            Some(reason) => Err(reason),
        }
    }

    /// Reads the rest of a packet that may be ours. `Err`: why the stack gets it.
    #[inline(always)]
    fn read_rest_v4<P: Packet>(&mut self, packet: &P) -> Result<(), PassReason> {
        if self.net.fragment {
            return Err(PassReason::Fragment);
        }
        if !parse::checksum_holds_v4(packet, &self.net) {
            return Err(PassReason::Malformed);
        }
        self.transport = parse::transport(packet, self.net.l4, self.net.protocol)?;
        Ok(())
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

    /// The packet, to who keeps clients on their servers.
    #[inline(always)]
    fn asked(&self, service: u32) -> persist::Asked {
        persist::Asked {
            service,
            client: self.net.src,
            vip: self.net.dst,
            port: self.transport.dst,
            protocol: self.net.protocol,
        }
    }

    /// Where the template of the packet's client is, or will be.
    #[inline(always)]
    fn template_probe<E: Env>(&self, env: &E, service: &Service) -> Probe<V4> {
        let key = persist::template_key(service, &self.asked(0));
        Probe::new(key, self.config.seed.load(), env.conns_v4().buckets())
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
fn known_v4<P: Packet, E: Env>(packet: &mut P, env: &E, net: &NetV4) -> Result<Verdict, Stage> {
    let Some(config) = env.config() else { return Ok(Verdict::Pass(PassReason::Unconfigured)) };
    let who = Recognised::in_v4(config, net);
    if who.nobody() {
        return Ok(Verdict::Pass(PassReason::NotOurs));
    }
    // A server may be a client of a VIP as well: what is no reply is looked at again as a request.
    let stage = if who.to_vip & !who.from_server { Stage::Request } else { Stage::Reply };
    if net.l4 != parse::L3 + Ipv4::LEN {
        // Options are rare, and summing them takes a loop.
        return Err(stage);
    }
    let mut flow = Flow { net: *net, ..Flow::blank(config, env.now()) };
    if let Err(reason) = flow.read_rest_v4(packet) {
        return Ok(Verdict::Pass(reason));
    }
    let verdict = if who.from_server {
        known_reply_v4(packet, env, &flow)
    } else if who.to_vip {
        known_request_v4(packet, env, &flow)
    } else {
        None
    };
    verdict.ok_or(stage)
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
    let link = Link(found.body.link.load());
    let direction = request_direction(found.word);
    if link.template().is_some() && assures(flow, found.word, successor(flow, found.word, direction)) {
        return None;
    }
    if !try_advance(env, flow, &found, entry.server(), direction) {
        return None;
    }
    count_in_packet(&found, link);
    count_in(env, server, flow.net.len);
    Some(forward::send_v4(packet, env, &flow.net, server, entry, &hop).unwrap_or_else(Verdict::Drop))
}

#[inline(always)]
fn known_reply_v4<P: Packet, E: Env>(packet: &mut P, env: &E, flow: &Flow<'_>) -> Option<Verdict> {
    let probe = Probe::new(flow.request_key(), flow.config.seed.load(), env.replies_v4().buckets());
    let Glance::Found(reply) = table::glance(env.replies_v4(), &probe) else { return None };
    let Connection { found, entry, vip, vport } = behind_reply_v4(env, flow, reply)?;
    let hop = nat::route_to_client(packet, env, &flow.net, vip).ok()?;
    let is_persistent = Link(found.body.link.load()).template().is_some();
    if is_persistent && assures(flow, found.word, successor(flow, found.word, Direction::Output)) {
        return None;
    }
    if !try_advance(env, flow, &found, entry.server(), Direction::Output) {
        return None;
    }
    if let Some(server) = env.server(entry.server()) {
        count_out(env, server, flow.net.len);
    }
    Some(nat::send_to_client(packet, env, &flow.net, vip, vport, &hop).unwrap_or_else(Verdict::Drop))
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
    count_in_packet(&found, Link(found.body.link.load()));
    count_in(env, server, flow.net.len);
    Decision::Forward(entry)
}

/// Counts a packet from the client, as long as anybody wants to know.
#[inline(always)]
fn count_in_packet(found: &Found<'_, V4>, link: Link) {
    if link.in_packets() < IN_PACKETS_ENOUGH {
        let _before = found.body.link.add(1);
    }
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
    if mode == 0 || Link(found.body.link.load()).template().is_some() {
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
    let settle = |before, after| {
        settle_active(env, server, before, after);
        if assures(flow, before, after)
            && let Some(template) = Link(found.body.link.load()).template()
        {
            persist::assure_v4(env, template);
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
fn successor(flow: &Flow<'_>, word: Word, direction: Direction) -> Word {
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

/// Does this transition show that there is a client, and not only somebody who sends first packets?
#[inline(always)]
fn assures(flow: &Flow<'_>, before: Word, after: Word) -> bool {
    let proof = if flow.is_tcp() { TcpState::Established as u8 } else { state::udp::ANSWERED };
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
    let Some(id) = find_service_v4(env, flow) else { return Decision::Pass(PassReason::NoService) };
    let Some(service) = env.service(id) else { return Decision::Drop(DropReason::Broken) };
    if is_thinned_out(flow.config) {
        return Decision::Drop(DropReason::Pressure);
    }
    if flow.transport.src == FTP_DATA {
        return Decision::Pass(PassReason::FtpData);
    }
    let opening = match choose_v4(env, flow, id, service) {
        Ok(opening) => opening,
        Err(Unopened::Full) => return make_room_v4(env, flow, &flow.template_probe(env, service)),
        Err(Unopened::Because(decision)) => return decision,
    };
    if is_one_packet(flow, service) {
        return send_once_v4(env, flow, &opening);
    }
    match connect_v4(env, flow, probe, &opening) {
        Ok(decision) => decision,
        Err(Refused::Full) => make_room_v4(env, flow, probe),
        Err(Refused::Exists | Refused::Contended) => Decision::Again,
    }
}

/// The port that an FTP server's data connections come from.
const FTP_DATA: [u8; 2] = 20u16.to_be_bytes();

/// A connection to be opened.
struct Opening {
    server: u32,
    /// Its template, if it has one.
    link: Link,
    /// The server's port, as on the wire.
    port: [u8; 2],
}

/// Why none is.
enum Unopened {
    /// There is no room for its template.
    Full,
    Because(Decision),
}

/// Does `drop_packet` take this packet? Every n-th that would be scheduled goes.
#[inline(always)]
fn is_thinned_out(config: &Config) -> bool {
    let rate = config.drop_rate.load();
    rate != 0 && (config.drop_counter.add(1).wrapping_add(1)).is_multiple_of(rate)
}

/// The server that the client's template names, or else the scheduler.
#[inline(always)]
fn choose_v4<E: Env>(env: &E, flow: &Flow<'_>, id: u32, service: &Service) -> Result<Opening, Unopened> {
    let is_persistent = service.has(service::flag::PERSISTENT);
    let template =
        if is_persistent { env.find_template_v4(&flow.asked(id)).slot() } else { Err(Without::Template) };
    let (server, link) = match template {
        Ok(slot) => {
            let template = table::at(env.conns_v4(), slot).ok_or(Unopened::Because(Decision::Again))?;
            (Entry(template.body.entry.load()).server(), Link::to_template(slot.0))
        }
        Err(Without::Template) => {
            let server = pick_v4(env, flow, id, service).ok_or(Unopened::Because(nobody(flow, service)))?;
            (
                server,
                if is_persistent { make_template_v4(env, flow, id, service, server)? } else { Link::NONE },
            )
        }
        Err(Without::Room | Without::Luck) => return Err(Unopened::Because(Decision::Again)),
    };
    let block = env.block(block_of(server)).ok_or(Unopened::Because(Decision::Drop(DropReason::Broken)))?;
    let packets = flow.transport.dst;
    let is_own_port = !is_persistent || service.has_port(packets);
    let own = if is_own_port { block.port_of(lane_of(server)) } else { [0, 0] };
    Ok(Opening { server, link, port: if own == [0, 0] { packets } else { own } })
}

/// The server that the scheduler chooses. A service for all ports, and FTP's for its data, know their clients by templates
/// only: without persistence nobody is found.
#[inline(always)]
fn pick_v4<E: Env>(env: &E, flow: &Flow<'_>, id: u32, service: &Service) -> Option<u32> {
    let is_for_it =
        service.has(service::flag::PERSISTENT | service::flag::MARK) || service.has_port(flow.transport.dst);
    if !is_for_it {
        return None;
    }
    sched::pick(env, &Question::v4(id, flow.net.src, flow.transport.src, flow.net.dst))
}

/// What becomes of a packet to a service that has nobody for it. One that only may have been FTP's data is the stack's.
#[inline(always)]
fn nobody(flow: &Flow<'_>, service: &Service) -> Decision {
    if service.has_port(persist::FTP) && flow.transport.dst != persist::FTP {
        Decision::Pass(PassReason::NoService)
    } else {
        Decision::NoServer
    }
}

#[inline(always)]
fn make_template_v4<E: Env>(
    env: &E,
    flow: &Flow<'_>,
    id: u32,
    service: &Service,
    server: u32,
) -> Result<Link, Unopened> {
    match persist::make_v4(env, service, &flow.asked(id), &flow.template_probe(env, service), server) {
        Ok(slot) => Ok(Link::to_template(slot.0)),
        Err(Without::Room) => Err(Unopened::Full),
        Err(Without::Template | Without::Luck) => Err(Unopened::Because(Decision::Again)),
    }
}

/// An entry found no room where it would lie: what has expired there goes.
#[inline(always)]
fn make_room_v4<E: Env>(env: &E, flow: &Flow<'_>, probe: &Probe<V4>) -> Decision {
    if expire::reclaim_v4(env, flow.config, probe, flow.now) {
        Decision::Again
    } else {
        Decision::Drop(DropReason::TableFull)
    }
}

/// One-packet scheduling is for datagrams only, also where a mark service gets both.
#[inline(always)]
fn is_one_packet(flow: &Flow<'_>, service: &Service) -> bool {
    service.has(service::flag::ONE_PACKET) && flow.net.protocol == ip_protocol::UDP
}

/// A datagram for which no connection is kept.
#[inline(always)]
fn send_once_v4<E: Env>(env: &E, flow: &Flow<'_>, opening: &Opening) -> Decision {
    let Some(server) = env.server(opening.server) else { return Decision::Drop(DropReason::Broken) };
    count_connection(env, server, flow.net.len);
    if let Some(template) = opening.link.template().and_then(|slot| table::at(env.conns_v4(), SlotId(slot))) {
        // It stands for the connections that are not kept.
        count_in_packet(&template, Link(template.body.link.load()));
    }
    let method = (server.flags() & server::flag::METHOD) as u8;
    Decision::Forward(Entry::new(opening.server, opening.port, method))
}

#[inline(always)]
fn count_connection<E: Env>(env: &E, server: &Server, bytes: u16) {
    if let Some(stats) = env.stats(server.place().stats) {
        stats.conns.bump(1);
        stats.count_in(bytes);
    }
}

/// TCP: a SYN without RST, or with `sloppy_tcp` anything but RST.
#[inline(always)]
fn may_open(config: &Config, flags: u8) -> bool {
    let sloppy = config.has(switch::SLOPPY_TCP);
    flags & tcp_flag::RST == 0 && (sloppy || flags & tcp_flag::SYN != 0)
}

/// The kernel's order: the very port; FTP's service for what may be its data; the service for all ports.
#[inline(always)]
fn find_service_v4<E: Env>(env: &E, flow: &Flow<'_>) -> Option<u32> {
    let port = flow.transport.dst;
    service_at_v4(env, flow, port)
        .or_else(|| if may_be_ftp_data(flow, port) { service_at_v4(env, flow, persist::FTP) } else { None })
        .or_else(|| {
            let any = flow.config.has(switch::ANY_PORT_SERVICE);
            if any { service_at_v4(env, flow, [0, 0]) } else { None }
        })
}

/// `ip_unprivileged_port_start`, at its default.
const UNPRIVILEGED: u16 = 1024;

#[inline(always)]
fn may_be_ftp_data(flow: &Flow<'_>, port: [u8; 2]) -> bool {
    flow.is_tcp()
        && flow.config.has(switch::FTP_SERVICE)
        && (port == FTP_DATA || u16::from_be_bytes(port) >= UNPRIVILEGED)
}

#[inline(always)]
fn service_at_v4<E: Env>(env: &E, flow: &Flow<'_>, port: [u8; 2]) -> Option<u32> {
    let key = service_key_v4(flow.net.dst, port, flow.net.protocol);
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

/// Makes the entry of a new connection, in the state that its first packet leads to.
#[inline(always)]
fn connect_v4<E: Env>(
    env: &E,
    flow: &Flow<'_>,
    probe: &Probe<V4>,
    opening: &Opening,
) -> Result<Decision, Refused> {
    let Opening { server: id, port, link } = *opening;
    let (Some(server), Some(block)) = (env.server(id), env.block(block_of(id))) else {
        return Ok(Decision::Drop(DropReason::Broken));
    };
    let method = (server.flags() & server::flag::METHOD) as u8;
    let entry = Entry::new(id, port, method);
    let nat = method == Method::Masquerade as u8;
    let direction = if nat { Direction::Input } else { Direction::InputOnly };
    let word = successor(flow, Word(0).with_no_output(!nat), direction);
    hold_template_v4(env, link);
    let new = New { word, entry: entry.0, link: link.0 | FIRST_PACKET };
    let slot = env.conns_v4().put(probe, &new).inspect_err(|_| expire::release_template_v4(env, link))?;
    block.bind(lane_of(id));
    if word.active() {
        block.count_active(lane_of(id), true);
    }
    if assures(flow, Word(0), word)
        && let Some(template) = link.template()
    {
        persist::assure_v4(env, template);
    }
    // The entry is counted from here on; should it be gone already, its remover has settled with the counters.
    let Some(found) = table::hold(env.conns_v4(), slot, probe) else { return Ok(Decision::Again) };
    if nat && let Err(why) = link_reply_v4(env, flow, &found, server, port) {
        let _ended_by_another = expire::remove_v4(env, flow.config, &found);
        return match why {
            Refused::Full => Ok(Decision::Drop(DropReason::TableFull)),
            Refused::Exists | Refused::Contended => Ok(Decision::Again),
        };
    }
    count_connection(env, server, flow.net.len);
    Ok(Decision::Forward(entry))
}

/// What a new connection's link counts: the packet that opened it.
const FIRST_PACKET: u64 = 1;

/// A connection's template controls one more. Before the connection is there: whoever removes it takes that back.
#[inline(always)]
fn hold_template_v4<E: Env>(env: &E, link: Link) {
    if let Some(slot) = link.template()
        && let Some(template) = table::at(env.conns_v4(), SlotId(slot))
    {
        let _before = template.body.link.add(Link::CONTROLLED);
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

/// The kernel's order: its hooks for replies come before that for requests. `Err`: not a packet from inside.
#[inline(always)]
fn from_inside_v4<P: Packet, E: Env>(
    packet: &mut P,
    env: &E,
    flow: &Flow<'_>,
) -> Result<Result<Verdict, Answer>, Stage> {
    let who = Recognised::in_v4(flow.config, &flow.net);
    if who.from_server
        && let Some(outcome) = reply_v4(packet, env, flow)
    {
        return Ok(outcome);
    }
    if who.to_vip {
        return Err(Stage::Request);
    }
    let seen = observe_v4(env, flow);
    Ok(Ok(Verdict::Pass(if seen { PassReason::Reply } else { PassReason::NotOurs })))
}

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
    // The replies of NAT come from the server's own address: from the VIP, they are somebody else's.
    let is_nat = entry.method() == Method::Masquerade as u8;
    if is_nat || !advance(env, flow, &found, entry.server(), Direction::Output) {
        return false;
    }
    if let Some(server) = env.server(entry.server()) {
        count_out(env, server, flow.net.len);
    }
    true
}
