//! What would become of a packet: the core tells, over copies of the tables' records; here that is put into words.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::rc::Rc;

use nix::net::if_::if_indextoname;
use xlvs_core::sched::Scheduler;
use xlvs_core::sched::wlc::overhead;
use xlvs_core::verdict::{DropReason, PassReason, Verdict};
use xlvs_core::wire::ip_protocol;
use xlvs_datapath::engine::Engine;
use xlvs_datapath::rehearsal::{Asked, Outcome, Rehearsal, Routes, Tuple};
use xlvs_model::spec::{Method, Protocol};
use xlvs_model::view::ServerView;
use xlvs_model::{ServerKey, ServiceKey};

use super::Daemon;
use super::way::{Asking, Came};
use crate::explain::{Candidate, Explanation, Fate, Kind, Question, Scheduling};
use crate::plan;
use crate::simulate::wire::{self, ACK, FIN, PSH, RST, SYN, Transport};
use crate::sketch;

/// Bytes of an Ethernet and an IPv4 header.
const ICMP_AT: usize = 14 + 20;

/// Explains a packet; the error says what to ask instead.
pub async fn explain(daemon: &Daemon, question: &Question) -> Result<Explanation, String> {
    let (mut told, address) = told_now(daemon, question)?;
    if let Some(address) = address {
        told.next_hop = daemon.hops.describe(address).await;
    }
    Ok(told)
}

/// All but the next hop, and whose next hop that is.
fn told_now(daemon: &Daemon, question: &Question) -> Result<(Explanation, Option<IpAddr>), String> {
    let Question { from, to, protocol, kind, vlan } = *question;
    if from.is_ipv4() != to.is_ipv4() {
        return Err(format!(
            "{from} and {to} are of different families: no packet goes from one to the other"
        ));
    }
    let engine = daemon.engine.borrow();
    let now = daemon.xdp.borrow().now().map_err(|why| why.to_string())?;
    let came = Came::of(daemon, from.ip(), vlan)?;
    let seed = RandomState::new().hash_one(from);
    let routes = Rc::new(Asking::default());
    let stage = Rehearsal::by(Rc::clone(&routes) as Rc<dyn Routes>, engine.tables(), now, came.ingress, seed);
    let tuple = Tuple { client: from, dest: to, protocol };
    let connection = stage.connection(&tuple);
    let kind = kind.unwrap_or(if connection.is_some() { Kind::Ack } else { Kind::Syn });
    let (transport, payload, name) = packet(protocol, kind)?;
    let frame = came.tagged(wire::frame(from, to, transport, payload));
    let outcome = stage.play(&frame, &tuple);

    let chosen = outcome.connection.as_ref().or(connection.as_ref()).map(|c| c.server);
    let chosen = chosen.or_else(|| outcome.asked.and_then(|asked| asked.chosen));
    let place = chosen.and_then(|id| place_of(&engine, id));
    let service = match (place, outcome.asked) {
        (Some((service, _)), _) => Some(service),
        (None, Some(asked)) => service_of(&engine, asked.service),
        (None, None) => None,
    };
    let server = place.map(|(_, server)| server);
    let spec = place.and_then(|(service, server)| engine.model().service(&service)?.server(&server));
    // A connection keeps the method that it was made with.
    let kept = outcome.connection.as_ref().and_then(|c| Method::from_u8(c.method));
    let method = kept.or(spec.map(|spec| spec.method));
    let method = method.map(|method| plan::method(method, spec.map(|spec| spec.tunnel).unwrap_or_default()));
    let (fate, reason, sentence) = fate_of(&outcome);
    let told = Explanation {
        packet: format!("{}{name} {from} -> {to}", sketch::tags(&frame)),
        service,
        connection: connection.map(|c| c.view),
        scheduling: outcome.asked.and_then(|asked| scheduling(&engine, asked)),
        server,
        method,
        next_hop: routes.told(),
        leaves: outcome.connection.filter(|_| fate == Fate::Forward).map(|c| c.view),
        fate,
        reason: reason.map(str::to_owned),
        sentence,
    };
    Ok((told, server.map(|server| server.addr)))
}

fn packet(protocol: u8, kind: Kind) -> Result<(Transport, &'static [u8], &'static str), String> {
    Ok(match (protocol, kind) {
        (ip_protocol::UDP, _) => (Transport::Udp, b"?", "UDP"),
        (ip_protocol::TCP, Kind::Syn) => (Transport::Tcp(SYN), b"", "TCP SYN"),
        (ip_protocol::TCP, Kind::Ack) => (Transport::Tcp(PSH | ACK), b"?", "TCP ACK"),
        (ip_protocol::TCP, Kind::Fin) => (Transport::Tcp(FIN | ACK), b"", "TCP FIN"),
        (ip_protocol::TCP, Kind::Rst) => (Transport::Tcp(RST), b"", "TCP RST"),
        (other, _) => {
            let name = Protocol::from_u8(other).map_or("this protocol", Protocol::listed);
            return Err(format!("packets of {name} cannot be made here; explain one of TCP or UDP"));
        }
    })
}

/// The server with this number, and its service.
pub(super) fn place_of(engine: &Engine, id: u32) -> Option<(ServiceKey, ServerKey)> {
    engine.roster().seats().find_map(|(service, seat)| {
        let server = seat.lanes.iter().find(|(_, lane)| lane.id == id)?.0;
        Some((*service, *server))
    })
}

/// The service with this number.
pub(super) fn service_of(engine: &Engine, id: u32) -> Option<ServiceKey> {
    engine.roster().seats().find(|(_, seat)| seat.id == id && seat.alive).map(|(key, _)| *key)
}

fn scheduling(engine: &Engine, asked: Asked) -> Option<Scheduling> {
    let key = service_of(engine, asked.service)?;
    let view = engine.services(Some(&key)).pop()?;
    let scheduler = view.spec.scheduler;
    let candidate = |server: &ServerView| {
        let unusable = unusable(engine, &key, server);
        Candidate {
            server: server.spec.key,
            weight: server.spec.weight,
            active: server.active,
            inactive: server.inactive,
            load: load(scheduler, server).filter(|_| unusable.is_none()),
            unusable,
        }
    };
    Some(Scheduling {
        scheduler: plan::service_words(&view.spec),
        candidates: view.servers.iter().map(candidate).collect(),
        chosen: asked.chosen.and_then(|id| place_of(engine, id)).map(|(_, server)| server),
    })
}

fn unusable(engine: &Engine, service: &ServiceKey, server: &ServerView) -> Option<String> {
    if server.spec.weight == 0 {
        return Some("weight 0: gets nothing new".to_owned());
    }
    engine.is_overloaded(service, &server.spec.key).then(|| {
        let connections = u64::from(server.active) + u64::from(server.inactive);
        format!("over its threshold: {connections} connections of at most {}", server.spec.upper)
    })
}

/// What these schedulers compare; the others go by turns, by weight or by a hash.
fn load(scheduler: Scheduler, server: &ServerView) -> Option<f64> {
    let (active, weight) = (server.active, f64::from(server.spec.weight));
    let connections = overhead(active, active.saturating_add(server.inactive)) as f64;
    match scheduler {
        Scheduler::Wlc | Scheduler::Lblc | Scheduler::Lblcr | Scheduler::Twos => Some(connections / weight),
        Scheduler::Lc => Some(connections),
        // An idle server is taken before all others.
        Scheduler::Nq if active == 0 => Some(0.0),
        Scheduler::Sed | Scheduler::Nq => Some((f64::from(active) + 1.0) / weight),
        _ => None,
    }
}

fn fate_of(outcome: &Outcome) -> (Fate, Option<&'static str>, String) {
    match outcome.verdict {
        Verdict::Transmit { ifindex } | Verdict::Redirect { ifindex } | Verdict::Cut { ifindex } => {
            (Fate::Forward, None, format!("{} by {}", whither(outcome), way_out(ifindex, &outcome.frame)))
        }
        Verdict::PutTogether { .. } => {
            (Fate::Forward, None, "a fragment: it waits for the others".to_owned())
        }
        Verdict::Pass(PassReason::NotOurs) => pass(PassReason::NotOurs, "not a packet of the director's"),
        Verdict::Pass(reason) => pass(reason, "passed to the director's own stack"),
        Verdict::Local { .. } => pass(PassReason::Local, REWRITTEN),
        Verdict::Drop(reason) => drop_because(reason),
        Verdict::Answer { .. } => (Fate::Answer, None, answer_words(outcome)),
    }
}

fn whither(outcome: &Outcome) -> &'static str {
    match (outcome.routed, outcome.is_bypassed()) {
        (_, true) => "no server is usable: sent where it is addressed to (cache_bypass)",
        (true, false) => "a reply: sent to the client with the VIP as its source",
        (false, false) => "sent to the server",
    }
}

/// An interface, and the tags that a frame leaves it with.
fn way_out(ifindex: u32, frame: &[u8]) -> String {
    format!("{} {}", interface(ifindex), sketch::tags(frame)).trim_end().to_owned()
}

/// An interface by name.
pub(super) fn interface(ifindex: u32) -> String {
    if_indextoname(ifindex)
        .map_or_else(|_| format!("interface {ifindex}"), |name| name.to_string_lossy().into_owned())
}

/// What becomes of a packet to a NAT server that is the director.
pub(super) const REWRITTEN: &str = "passed to the director's own stack, with its server's address and port";

/// What passing is, in words.
pub(super) fn pass(reason: PassReason, what: &str) -> (Fate, Option<&'static str>, String) {
    (Fate::Pass, Some(reason.label()), format!("{what}: {}", reason.sentence()))
}

/// What dropping is, in words.
pub(super) fn drop_because(reason: DropReason) -> (Fate, Option<&'static str>, String) {
    (Fate::Drop, Some(reason.label()), format!("dropped: {}", reason.sentence()))
}

fn answer_words(outcome: &Outcome) -> String {
    let error = outcome.frame.get(ICMP_AT..ICMP_AT + 2).unwrap_or_default();
    let (what, why) = match error {
        [3, 3] => ("port unreachable", "the service has no usable server"),
        [3, 4] => ("fragmentation needed", "the packet is larger than the way to the server takes"),
        [11, 0] => ("time exceeded", "the packet's time to live ends here"),
        _ => ("another error", "the packet cannot be forwarded"),
    };
    format!("answered with ICMP {what}: {why}")
}

#[cfg(test)]
mod tests {
    use xlvs_model::ServerSpec;

    use super::*;

    fn server(weight: u32, active: u32, inactive: u32) -> ServerView {
        let key = ServerKey { addr: [10, 1, 0, 11].into(), port: 80 };
        let mut view = ServerView::from(&ServerSpec { weight, ..ServerSpec::new(key, Method::Masquerade) });
        (view.active, view.inactive) = (active, inactive);
        view
    }

    #[test]
    fn a_load_is_what_its_scheduler_compares() {
        assert_eq!(load(Scheduler::Wlc, &server(2, 1, 3)), Some(130.0));
        assert_eq!(load(Scheduler::Lc, &server(2, 1, 3)), Some(260.0));
        assert_eq!(load(Scheduler::Sed, &server(2, 1, 3)), Some(1.0));
        assert_eq!(load(Scheduler::Nq, &server(2, 0, 3)), Some(0.0));
        assert_eq!(load(Scheduler::Rr, &server(2, 0, 3)), None);
    }

    #[test]
    fn only_tcp_and_udp_can_be_made() {
        assert!(packet(132, Kind::Syn).is_err_and(|why| why.contains("SCTP")));
        assert!(packet(ip_protocol::UDP, Kind::Fin).is_ok());
    }
}
