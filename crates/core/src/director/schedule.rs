//! A packet without an entry: may it open a connection, to which service, and which server gets it?

use super::connect::{Opening, Wants, find_service};
use super::flow::Flow;
use super::request::Decision;
use crate::config::{Config, switch};
use crate::conn::entry::{Entry, Link};
use crate::conn::key;
use crate::conn::table;
use crate::env::Env;
use crate::family::Family;
use crate::persist::{self, Without};
use crate::sched;
use crate::sctp::state::Event;
use crate::service::{self, Service, block_of, lane_of};
use crate::trace::Note;
use crate::verdict::{DropReason, PassReason};
use crate::wire::{ip_protocol, tcp_flag};

/// See the module. `Err`: what becomes of it instead.
#[inline(always)]
pub fn schedule<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
) -> Result<Opening, Decision> {
    env.note(|| Note::NoConnection);
    if flow.is_ipsec() {
        return Err(Decision::Pass(PassReason::Protocol));
    }
    if !flow.is_hearsay && !may_open(flow) {
        return Err(Decision::Pass(PassReason::NoConnection));
    }
    let Some(id) = find_service(env, flow) else { return Err(Decision::Pass(PassReason::NoService)) };
    env.note(|| Note::Service(id));
    let Some(service) = env.service(id) else { return Err(Decision::Drop(DropReason::Broken)) };
    if is_thinned_out(flow.config) {
        return Err(Decision::Drop(DropReason::Pressure));
    }
    if flow.transport.src == FTP_DATA {
        return Err(Decision::Pass(PassReason::FtpData));
    }
    choose(env, flow, id, service)
}

/// TCP: a SYN without RST, or with `sloppy_tcp` anything but RST. SCTP: INIT, or with `sloppy_sctp` anything but ABORT. A datagram may.
#[inline(always)]
fn may_open<F: Family<K>, const K: usize>(flow: &Flow<'_, F, K>) -> bool {
    let flags = flow.transport.flags;
    if flow.is_tcp() {
        flags & tcp_flag::RST == 0 && (flow.is_syn() || flow.config.has(switch::SLOPPY_TCP))
    } else if flow.is_sctp() {
        flow.looks_new() || (flags != Event::Abort as u8 && flow.config.has(switch::SLOPPY_SCTP))
    } else {
        true
    }
}

/// The port that an FTP server's data connections come from.
pub const FTP_DATA: [u8; 2] = 20u16.to_be_bytes();

/// Does `drop_packet` take this packet? Every n-th that would be scheduled goes.
#[inline(always)]
fn is_thinned_out(config: &Config) -> bool {
    let rate = config.drop_rate.load();
    rate != 0 && (config.drop_counter.add(1).wrapping_add(1)).is_multiple_of(rate)
}

/// The server that the client's template names, or else the scheduler.
#[inline(always)]
fn choose<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    id: u32,
    service: &Service,
) -> Result<Opening, Decision> {
    let is_persistent = service.has(service::flag::PERSISTENT);
    let template =
        if is_persistent { F::find_template(env, &flow.asked(id)).slot() } else { Err(Without::Template) };
    let (server, link, wants) = match template {
        Ok(slot) => {
            env.note(|| Note::Template);
            let template = table::at(F::conns(env), slot).ok_or(Decision::Again)?;
            (Entry(template.body.entry.load()).server(), Link::to_template(slot.0), Wants::Entry)
        }
        Err(Without::Template) => {
            let picked = pick(env, flow, id, service);
            env.note(|| picked.map_or(Note::NobodyScheduled, Note::Scheduled));
            let wants = if is_persistent { Wants::Template } else { Wants::Entry };
            match picked {
                Some(server) => (server, Link::NONE, wants),
                None => return nobody(env, flow, id, service),
            }
        }
        Err(Without::Luck) => return Err(Decision::Again),
    };
    let block = env.block(block_of(server)).ok_or(Decision::Drop(DropReason::Broken))?;
    let packets = flow.transport.dst;
    let is_own_port = !is_persistent || service.has_port(packets);
    let own = if is_own_port { block.port_of(lane_of(server)) } else { [0, 0] };
    let wants = if !flow.is_hearsay && matches!(wants, Wants::Entry) { kept(flow, service) } else { wants };
    Ok(Opening { service: id, server, link, port: if own == [0, 0] { packets } else { own }, wants })
}

/// The server that the scheduler chooses. A service for all ports, and FTP's for its data, know their clients by templates
/// only: without persistence nobody is found.
#[inline(always)]
fn pick<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    id: u32,
    service: &Service,
) -> Option<u32> {
    let is_for_it =
        service.has(service::flag::PERSISTENT | service::flag::MARK) || service.has_port(flow.transport.dst);
    if !is_for_it {
        return None;
    }
    sched::pick(env, &F::question(id, flow.net.src, flow.transport.src, flow.net.dst))
}

/// What becomes of a packet to a service that has nobody for it. With `cache_bypass`, one of a mark's service goes where it is
/// addressed to, unless that is here. One that only may have been FTP's data is the stack's.
#[inline(always)]
fn nobody<F: Family<K>, E: Env, const K: usize>(
    env: &E,
    flow: &Flow<'_, F, K>,
    id: u32,
    service: &Service,
) -> Result<Opening, Decision> {
    let bypass = flow.config.bypass.load();
    if bypass != 0 && service.has(service::flag::MARK) && !flow.is_hearsay && is_foreign(env, flow) {
        let server = if K == key::V4 { bypass } else { bypass + 1 };
        let wants = kept(flow, service);
        return Ok(Opening { service: id, server, link: Link::NONE, port: [0, 0], wants });
    }
    Err(if service.has_port(persist::FTP) && flow.transport.dst != persist::FTP {
        Decision::Pass(PassReason::NoService)
    } else {
        Decision::NoServer
    })
}

/// Is the packet for an address that is neither a VIP nor the director's?
#[inline(always)]
pub fn is_foreign<F: Family<K>, E: Env, const K: usize>(env: &E, flow: &Flow<'_, F, K>) -> bool {
    !F::is_in(&flow.config.vips, flow.net.dst) && F::leads_elsewhere(env, &flow.net, 0)
}

/// What is made for a connection that needs no template: its entry, or nothing with one-packet scheduling, which is for datagrams
/// only, also where a mark service gets both.
#[inline(always)]
fn kept<F: Family<K>, const K: usize>(flow: &Flow<'_, F, K>, service: &Service) -> Wants {
    if service.has(service::flag::ONE_PACKET) && flow.net.protocol == ip_protocol::UDP {
        Wants::Nothing
    } else {
        Wants::Entry
    }
}
