//! The way of a packet: from its bytes to its verdict. `docs/packet-path.md` tells it in the same words.
//!
//! [`known`] takes the packets of connections that go on as before, nearly all of them, and declines everything else without
//! having changed anything. [`reply`] takes what comes from servers, and [`request`] what is for a VIP. Each is written once for
//! both families ([`Family`]). [`related_v4`] and [`related_v6`] take ICMP errors about connections, [`fragments`] takes fragments,
//! and [`unusual`] takes VLAN tags off, which [`vlan::dispatch`] puts on again, and takes frames of several buffers. [`outgoing`] sees what
//! the director's own stack sends.

mod answer;
mod clamp;
mod connect;
mod flow;
mod life;
mod local;
mod own_tunnel;
mod related;
mod reply;
mod request;
mod schedule;
mod stray;

use crate::config::Config;
use crate::conn::key;
use crate::conn::word::Tick;
use crate::env::Env;
use crate::errand;
use crate::family::{Family, V4, V6};
use crate::icmp::Complaint;
use crate::packet::Packet;
use crate::parse::{self, Net};
use crate::verdict::{DropReason, PassReason, Verdict};
use crate::verifier::{in_turn, low_bits};
use crate::vlan;
use crate::wire::{Ethernet, ethertype, ip_protocol};

use answer::Answer;
use flow::{Flow, Recognised};

pub use answer::Sent;
pub use connect::{mark_key, server_key, service_key};
pub use local::may_answer;

/// Where a packet goes on when a stage declines it. In the kernel each stage is a program of its own: the first is small
/// enough for the instruction cache, and each has the whole stack, of which there are 512 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// [`reply`] of IPv4
    ReplyV4 = 0,
    /// [`request`] of IPv4
    RequestV4 = 1,
    /// [`known`] of IPv6
    KnownV6 = 2,
    /// [`reply`] of IPv6
    ReplyV6 = 3,
    /// [`request`] of IPv6
    RequestV6 = 4,
    /// [`related_v4`]
    RelatedV4 = 5,
    /// [`related_v6`]
    RelatedV6 = 6,
    /// [`hearsay`] of IPv4
    HearsayV4 = 7,
    /// [`hearsay`] of IPv6
    HearsayV6 = 8,
    /// [`fragments`]
    Fragments = 9,
    /// [`unusual`]
    Unusual = 10,
}

impl Stage {
    /// How many there are.
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// All of them, by their numbers.
    pub const ALL: [Self; 11] = [
        Self::ReplyV4,
        Self::RequestV4,
        Self::KnownV6,
        Self::ReplyV6,
        Self::RequestV6,
        Self::RelatedV4,
        Self::RelatedV6,
        Self::HearsayV4,
        Self::HearsayV6,
        Self::Fragments,
        Self::Unusual,
    ];

    /// The first stage of a packet that was put together, by its ethertype.
    pub const fn of_whole(kind: u16) -> Self {
        if kind == ethertype::IPV4 { Self::ReplyV4 } else { Self::ReplyV6 }
    }

    #[inline(always)]
    const fn reply<const K: usize>() -> Self {
        if K == key::V4 { Self::ReplyV4 } else { Self::ReplyV6 }
    }

    #[inline(always)]
    const fn related<const K: usize>() -> Self {
        if K == key::V4 { Self::RelatedV4 } else { Self::RelatedV6 }
    }

    #[inline(always)]
    const fn hearsay<const K: usize>() -> Self {
        if K == key::V4 { Self::HearsayV4 } else { Self::HearsayV6 }
    }

    #[inline(always)]
    const fn request<const K: usize>() -> Self {
        if K == key::V4 { Self::RequestV4 } else { Self::RequestV6 }
    }
}

/// Decides the fate of any packet, and rewrites it accordingly: all stages in their order.
pub fn balance<P: Packet, E: Env>(packet: &mut P, env: &E) -> Verdict {
    match first(packet, env) {
        Ok(verdict) => verdict,
        Err(stage) => go_on(packet, env, Err(stage)),
    }
}

/// The same for a packet that was put together from fragments ([`Packet::largest_fragment`]).
pub fn balance_whole<P: Packet, E: Env>(packet: &mut P, env: &E) -> Verdict {
    let outcome = match parse::ethernet(packet) {
        Ok(kind) => Err(Stage::of_whole(kind)),
        Err(reason) => Ok(counted(env, Verdict::Pass(reason))),
    };
    go_on(packet, env, outcome)
}

fn go_on<P: Packet, E: Env>(packet: &mut P, env: &E, mut outcome: Result<Verdict, Stage>) -> Verdict {
    loop {
        outcome = match outcome {
            Ok(verdict) => return vlan::dispatch(packet, env, verdict),
            Err(Stage::Unusual) => unusual(packet, env),
            Err(Stage::ReplyV4) => reply::<V4, P, E, { key::V4 }>(packet, env),
            Err(Stage::RequestV4) => Ok(request::<V4, P, E, { key::V4 }>(packet, env)),
            Err(Stage::KnownV6) => known::<V6, P, E, { key::V6 }>(packet, env),
            Err(Stage::ReplyV6) => reply::<V6, P, E, { key::V6 }>(packet, env),
            Err(Stage::RelatedV4) => related_v4(packet, env),
            Err(Stage::RelatedV6) => related_v6(packet, env),
            Err(Stage::HearsayV4) => hearsay::<V4, P, E, { key::V4 }>(packet, env),
            Err(Stage::HearsayV6) => hearsay::<V6, P, E, { key::V6 }>(packet, env),
            Err(Stage::Fragments) => Ok(fragments(packet, env)),
            Err(Stage::RequestV6) => Ok(request::<V6, P, E, { key::V6 }>(packet, env)),
        }
    }
}

/// The first stage: what is IPv4 and [`known`]; what is IPv6, or has tags, is another's.
#[inline(always)]
pub fn first<P: Packet, E: Env>(packet: &mut P, env: &E) -> Result<Verdict, Stage> {
    let Some(eth) = packet.header::<Ethernet>(0) else { return Err(Stage::Unusual) };
    match eth.ethertype() {
        _ if eth.is_to_group() => Err(Stage::Unusual),
        ethertype::IPV4 => known::<V4, P, E, { key::V4 }>(packet, env),
        ethertype::IPV6 => Err(Stage::KnownV6),
        _ => Err(Stage::Unusual),
    }
}

/// Takes the VLAN tags off a frame, and tells which stage must see what [`known`] does not look at (`Err`): among others frames of
/// several buffers, headers with options, fragments, and protocols other than TCP and UDP.
#[inline(always)]
pub fn unusual<P: Packet, E: Env>(packet: &mut P, env: &E) -> Result<Verdict, Stage> {
    let Some(config) = env.config() else { return Ok(Verdict::Pass(PassReason::Unconfigured)) };
    let kind = match parse::ethernet(packet) {
        Err(PassReason::Vlan) => {
            vlan::take_off(packet, env, config.vlan_devices.load()).and_then(|()| parse::ethernet(packet))
        }
        kind => kind,
    };
    let passed = match kind {
        Ok(ethertype::IPV4) => sort::<V4, P, { key::V4 }>(packet, config),
        Ok(_ipv6) => sort::<V6, P, { key::V6 }>(packet, config),
        Err(reason) => Ok(reason),
    };
    passed.map(|reason| counted(env, Verdict::Pass(reason)))
}

/// Which stage is to see a packet, if it is not a known connection's. `Ok`: none, for this reason.
#[inline(always)]
fn sort<F: Family<K>, P: Packet, const K: usize>(packet: &P, config: &Config) -> Result<PassReason, Stage> {
    let net = match F::read(packet) {
        Ok(net) => net,
        Err(reason) => return Ok(reason),
    };
    if net.protocol == F::ICMP {
        return Err(Stage::related::<K>());
    }
    let who = Recognised::in_packet::<F, K>(config, &net);
    if who.nobody::<F, K>(config, &net) {
        return Ok(PassReason::NotOurs);
    }
    if net.fragment {
        return Err(Stage::Fragments);
    }
    Err(if who.to_vip & !who.from_server { Stage::request::<K>() } else { Stage::reply::<K>() })
}

/// Decides the fate of a packet whose connection goes on as before, and rewrites it accordingly. `Err`: it is not such a
/// packet, nothing was changed or counted, and that stage must see it.
#[inline(always)]
pub fn known<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
) -> Result<Verdict, Stage> {
    // What is rare is looked at by a stage that has room for all of it.
    let Some(net) = F::read_plain(packet) else { return Err(Stage::Unusual) };
    match net.protocol {
        ip_protocol::TCP => known_of::<F, P, E, K, { ip_protocol::TCP }>(packet, env, net),
        ip_protocol::UDP => known_of::<F, P, E, K, { ip_protocol::UDP }>(packet, env, net),
        // As `unusual` would say of it.
        icmp if icmp == F::ICMP => Err(Stage::related::<K>()),
        _ => Err(Stage::Unusual),
    }
}

/// [`known`] of one protocol: with one way for both, each question that depends on it would be asked of every packet.
#[inline(always)]
fn known_of<F: Family<K>, P: Packet, E: Env, const K: usize, const PROTOCOL: u8>(
    packet: &mut P,
    env: &E,
    net: Net<F::Addr>,
) -> Result<Verdict, Stage> {
    let Some(config) = env.config() else { return Ok(Verdict::Pass(PassReason::Unconfigured)) };
    // A server may be a client of a VIP as well: what is no reply is looked at again as a request.
    if F::is_in(&config.rips, net.src) {
        // Of IPv6, a reply's way needs more stack than is left here.
        if K != key::V4 {
            return Err(Stage::reply::<K>());
        }
        // What is looked at by reference lies in memory: only this copy has to.
        let Net { src, dst, l4, len, .. } = net;
        let net = Net { src, dst, l4, protocol: PROTOCOL, len, fragment: false };
        return match packet.apart(|packet| known_reply::<F, P, E, K>(packet, env, &net)) {
            DECLINED => Err(Stage::reply::<K>()),
            packed => Ok(Sent::unpack(packed).unwrap_or(Verdict::Drop(DropReason::Broken))),
        };
    }
    let mut flow = Flow::<F, K>::blank(config, Tick::new(0));
    flow.net = Net { protocol: PROTOCOL, ..net };
    // Marks may be for any address.
    if F::is_in(&config.vips, net.dst) || config.mark_rules.load() != 0 {
        return match flow.read_known(packet) {
            Ok(()) => counted_or_declined(env, request::known(packet, env, &mut flow), Stage::request::<K>()),
            Err(reason) => Ok(counted(env, Verdict::Pass(reason))),
        };
    }
    if F::is_in(&config.vips, net.src) {
        return Err(Stage::reply::<K>());
    }
    Ok(counted(env, Verdict::Pass(PassReason::NotOurs)))
}

/// What [`known_reply`] says of a packet that it declines.
const DECLINED: u64 = u64::MAX;

/// [`reply::known`], in a function with a stack frame of its own: requests would otherwise have to keep more on theirs. Returns a packed
/// [`Sent`].
#[inline(never)]
fn known_reply<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    net: &Net<F::Addr>,
) -> u64 {
    let Some(config) = env.config() else { return DECLINED };
    let mut flow = Flow::<F, K>::blank(config, env.now());
    flow.net = *net;
    let outcome = match flow.read_known(packet) {
        Ok(()) => counted_or_declined(env, reply::known(packet, env, &flow), Stage::reply::<K>()),
        Err(reason) => Ok(counted(env, Verdict::Pass(reason))),
    };
    outcome.map_or(DECLINED, |verdict| Sent::pack(Ok(verdict)))
}

#[inline(always)]
fn counted_or_declined<E: Env>(env: &E, verdict: Option<Verdict>, stage: Stage) -> Result<Verdict, Stage> {
    match verdict {
        // It is in its server's statistics, and nowhere else (`Counters::told_apart`).
        Some(verdict @ (Verdict::Transmit { .. } | Verdict::Redirect { .. })) => Ok(verdict),
        Some(verdict) => Ok(counted(env, verdict)),
        None => {
            // Apart, or the compiler would write down where to go on before each of the questions that may end here.
            let _nothing = in_turn(0);
            Err(stage)
        }
    }
}

/// Decides the fate of a packet from a real server or a VIP, and rewrites it accordingly. `Err`: it is none of ours; nothing
/// was changed or counted, and that stage must see it as a packet to a VIP.
#[inline(always)]
pub fn reply<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
) -> Result<Verdict, Stage> {
    let Some(config) = env.config() else { return Ok(Verdict::Pass(PassReason::Unconfigured)) };
    let mut flow = Flow::<F, K>::blank(config, env.now());
    let verdict = match flow.read(packet, env) {
        Ok(()) => match reply::from_inside(packet, env, &flow)? {
            Ok(verdict) => verdict,
            Err(answer) => answer::answer(packet, env, &flow, &answer),
        },
        Err(reason) => Verdict::Pass(reason),
    };
    Ok(counted(env, verdict))
}

/// Decides the fate of a packet to a VIP, and rewrites it accordingly.
#[inline(always)]
pub fn request<F: Family<K>, P: Packet, E: Env, const K: usize>(packet: &mut P, env: &E) -> Verdict {
    let Some(config) = env.config() else { return Verdict::Pass(PassReason::Unconfigured) };
    let mut flow = Flow::<F, K>::blank(config, env.now());
    let verdict = match flow.read(packet, env) {
        Ok(()) => match request::request(packet, env, &flow) {
            Ok(verdict) => verdict,
            Err(answer) => answer::answer(packet, env, &flow, &answer),
        },
        Err(reason) => Verdict::Pass(reason),
    };
    counted(env, verdict)
}

/// Decides the fate of a fragment. The daemon puts packets together, asks about the whole ([`balance_whole`]), and asks here
/// about the first fragment of a packet of which others did not come: its sender is told.
#[inline(always)]
pub fn fragments<P: Packet, E: Env>(packet: &mut P, env: &E) -> Verdict {
    let Some(config) = env.config() else { return Verdict::Pass(PassReason::Unconfigured) };
    if packet.largest_fragment() == 0 {
        let given_back = errand::given_back(config.seed.load());
        if packet.header::<Ethernet>(0).is_some_and(|eth| eth.src == given_back) {
            // Its packet was counted when the daemon asked about it.
            return Verdict::Pass(PassReason::Fragment);
        }
        return counted(env, Verdict::PutTogether { ifindex: vlan::came_by(env) });
    }
    let verdict = match parse::ethernet(packet) {
        Ok(ethertype::IPV4) => incomplete::<V4, P, E, { key::V4 }>(packet, env, config),
        Ok(_ipv6) => incomplete::<V6, P, E, { key::V6 }>(packet, env, config),
        Err(reason) => Verdict::Pass(reason),
    };
    counted(env, verdict)
}

/// Tells who sent a packet to a VIP that some of its fragments did not come.
#[inline(always)]
fn incomplete<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
    config: &Config,
) -> Verdict {
    let mut flow = Flow::<F, K>::blank(config, env.now());
    match F::read(packet) {
        Ok(net) => flow.net = net,
        Err(reason) => return Verdict::Pass(reason),
    }
    if !Recognised::in_packet::<F, K>(config, &flow.net).to_vip {
        return Verdict::Drop(DropReason::Incomplete);
    }
    let source = flow.net.dst;
    let answer = Answer { complaint: Complaint::INCOMPLETE, source, otherwise: DropReason::Incomplete };
    answer::answer(packet, env, &flow, &answer)
}

/// Decides the fate of a packet of the director's own stack's, of which [`may_answer`] says that it may be a server's answer, as it leaves.
/// What goes on is not counted: it may have nothing to do with the director.
#[inline(always)]
pub fn outgoing<P: Packet, E: Env>(packet: &mut P, env: &E) -> Verdict {
    match local::outgoing(packet, env) {
        Verdict::Drop(reason) => counted(env, Verdict::Drop(reason)),
        verdict => verdict,
    }
}

/// Does what the program at egress does with a packet of the director's own stack's: asks [`may_answer`], then [`outgoing`].
pub fn see_off<P: Packet, E: Env>(packet: &mut P, env: &E) -> Verdict {
    if may_answer(packet, env) { outgoing(packet, env) } else { Verdict::Pass(PassReason::NotOurs) }
}

/// Decides the fate of an IPv4 ICMP message, and rewrites it accordingly. `Err`: that stage must see it.
#[inline(always)]
pub fn related_v4<P: Packet, E: Env>(packet: &mut P, env: &E) -> Result<Verdict, Stage> {
    let Some(config) = env.config() else { return Ok(Verdict::Pass(PassReason::Unconfigured)) };
    let mut flow = Flow::blank(config, env.now());
    related::v4(packet, env, &mut flow).map(|verdict| counted(env, verdict))
}

/// The same for IPv6.
#[inline(always)]
pub fn related_v6<P: Packet, E: Env>(packet: &mut P, env: &E) -> Result<Verdict, Stage> {
    let Some(config) = env.config() else { return Ok(Verdict::Pass(PassReason::Unconfigured)) };
    let mut flow = Flow::blank(config, env.now());
    related::v6(packet, env, &mut flow).map(|verdict| counted(env, verdict))
}

/// Makes an entry for the connection that an ICMP error tells of. `Err`: there is one now, and that stage goes on.
#[inline(always)]
pub fn hearsay<F: Family<K>, P: Packet, E: Env, const K: usize>(
    packet: &mut P,
    env: &E,
) -> Result<Verdict, Stage> {
    let Some(config) = env.config() else { return Ok(Verdict::Pass(PassReason::Unconfigured)) };
    let mut heard_of = Flow::<F, K>::blank(config, env.now());
    related::hear(packet, env, &mut heard_of).map(|verdict| counted(env, verdict))
}

const DROPS: u64 = DropReason::SPACE as u64;
const PASSES: u64 = PassReason::SPACE as u64;
const _: () = assert!(DROPS.is_power_of_two() && PASSES.is_power_of_two());

#[inline(always)]
fn counted<E: Env>(env: &E, verdict: Verdict) -> Verdict {
    if let Some(counters) = env.counters() {
        let cell = match verdict {
            Verdict::Pass(reason) => counters.passes.get(low_bits::<{ PASSES - 1 }>(reason as u64)),
            Verdict::Local { .. } => counters.passes.get(PassReason::Local as usize),
            Verdict::Drop(reason) => counters.drops.get(low_bits::<{ DROPS - 1 }>(reason as u64)),
            Verdict::Transmit { .. } | Verdict::Redirect { .. } | Verdict::Cut { .. } => {
                Some(&counters.forwarded)
            }
            Verdict::PutTogether { .. } => Some(&counters.fragments),
            Verdict::Answer { .. } => Some(&counters.answered),
        };
        if let Some(cell) = cell {
            cell.bump(1);
        }
    }
    verdict
}
