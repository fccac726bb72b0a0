//! The director itself as a server: what its own stack sends is seen as long as there is such a server.

use xlvs_core::config::switch;
use xlvs_datapath::engine::Engine;
use xlvs_model::ServiceKey;
use xlvs_model::spec::Method;

use super::Daemon;
use super::explain::place_of;
use crate::{named, plan};

/// One of the servers is the director itself. To be called before its record says so.
pub fn serve(daemon: &Daemon) {
    if daemon.xdp.borrow().sees_own() {
        return;
    }
    let seen = daemon.xdp.borrow_mut().see_own();
    match seen {
        Ok(()) => {
            tracing::info!("a server is the director itself: what it sends is seen as it leaves");
            daemon.engine.borrow().see_own(true);
            daemon.own_is_hidden.set(false);
        }
        Err(why) => {
            overlook(daemon);
            if !daemon.own_is_hidden.replace(true) {
                tracing::warn!(
                    %why,
                    "a server is the director itself, but what it sends cannot be seen: it gets packets as they came, and its \
                     connections' states follow their clients alone"
                );
            }
        }
    }
}

/// Looks whether there still is one.
pub fn settle(daemon: &Daemon) {
    if daemon.xdp.borrow().sees_own() && !daemon.engine.borrow().serves_itself() {
        tracing::info!("no server is the director itself any more");
        overlook(daemon);
    }
}

fn overlook(daemon: &Daemon) {
    daemon.engine.borrow().see_own(false);
    if let Err(why) = daemon.xdp.borrow_mut().overlook_own() {
        tracing::error!(%why, "what the director sends is looked at in vain");
    }
}

/// Says of a NAT server that is the director itself what cannot work.
pub fn warn_of(engine: &Engine, id: u32) {
    let Some((service, server)) = place_of(engine, id) else { return };
    let spec = engine.model().service(&service).and_then(|known| known.server(&server));
    if spec.is_none_or(|spec| spec.method != Method::Masquerade) {
        return;
    }
    let (named, planned) = (named::of(&service), plan::server(&server));
    let is_translated = engine.tables().config().has(switch::SEES_OWN);
    match service {
        _ if is_translated && server.addr.is_loopback() => tracing::warn!(
            service = %named,
            server = %planned,
            "NAT leads nobody from outside to a loopback address, so packets for this server are dropped: give it another of the director's \
             addresses"
        ),
        ServiceKey::Address { addr, port, .. } if !is_translated && server.port != port && port != 0 => {
            tracing::warn!(
                service = %named,
                server = %planned,
                "this server is the director itself, which gets packets as they came: have it listen on {addr} and port {port}, or let \
                 netfilter redirect that port to it"
            );
        }
        _ => {}
    }
}
