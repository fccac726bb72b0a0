//! Tables and the ways out of them.

use std::net::IpAddr;
use std::sync::Arc;

use xlvs_core::director;
use xlvs_core::env::Route;
use xlvs_core::packet::Frame;
use xlvs_core::server::Hop;
use xlvs_core::verdict::Verdict;
use xlvs_datapath::engine::Engine;
use xlvs_datapath::host::HostEnv;
use xlvs_datapath::tables::{Sizes, Tables};
use xlvs_model::spec::{Method, Protocol, Scheduler, Tunnel};
use xlvs_model::{Change, ServerKey, ServerSpec, ServiceKey, ServiceSpec};

use crate::packets::beside;

/// The VIP.
pub const VIP: [u8; 4] = [10, 0, 0, 100];
/// The director's address towards servers.
pub const INSIDE: [u8; 4] = [10, 1, 0, 254];

/// An address of either family.
pub fn address(v6: bool, addr: [u8; 4]) -> IpAddr {
    if v6 { beside(addr).into() } else { addr.into() }
}

/// A director on the host.
pub struct Site {
    pub tables: Arc<Tables>,
    pub engine: Engine,
}

impl Site {
    /// One with these changes made, and the ways to its servers known.
    pub fn of(changes: &[Change]) -> Self {
        let sizes = Sizes { affinity: 16, choices: 2048, ..Sizes::for_site(64, 64, 64, 1) };
        let tables = Arc::new(Tables::on_heap(sizes, 42));
        let mut engine = Engine::new(Arc::clone(&tables));
        engine.apply(changes).expect("a site that is right");
        engine.defend(u32::MAX);
        let site = Self { tables, engine };
        site.resolve(1500);
        site
    }

    /// Every way takes packets of so many bytes.
    pub fn resolve(&self, mtu: u16) {
        for destination in self.engine.destinations() {
            let hop = Hop { to: [2, 0, 0, 0, 1, 1], from: [2, 0, 0, 0, 1, 0xfe], ifindex: 2, mtu };
            self.engine.resolve(destination.id, &hop, address(destination.addr.is_ipv6(), INSIDE));
        }
    }

    /// Every other server is the director itself, which sees what its own stack sends.
    pub fn serve_itself(&self) {
        self.engine.see_own(true);
        for destination in self.engine.destinations().iter().step_by(2) {
            self.engine.unresolve(destination.id, true);
        }
    }

    /// Its surroundings at this tick; clients are on the network that everything comes from.
    pub fn env(&self, tick: u32) -> HostEnv<'_> {
        let env = HostEnv::new(&self.tables, 0);
        env.set_now(tick);
        env.set_routes(|asked| match asked.len {
            1401.. => Route::TooBig { mtu: 1400 },
            _ => Route::Via { ifindex: 1, from: [2, 0, 0, 0, 0, 0xfe], to: [2, 0, 0, 0, 0, 1] },
        });
        // Every packet may be answered.
        self.tables.counters[0].icmp_sent.store(0);
        env
    }

    /// Decides about a frame.
    pub fn decide(&self, env: &HostEnv<'_>, frame: &[u8]) -> (Verdict, Vec<u8>) {
        self.decide_about(env, frame, 0)
    }

    /// The same of one that was put together from fragments of which the largest was so long; 0: it came whole.
    pub fn decide_about(&self, env: &HostEnv<'_>, frame: &[u8], largest: u16) -> (Verdict, Vec<u8>) {
        let mut buffer = [&[0; Frame::HEADROOM][..], frame].concat();
        let mut packet = Frame::new(&mut buffer, Frame::HEADROOM).put_together_from(largest);
        let decide = if largest == 0 { director::balance } else { director::balance_whole };
        let verdict = decide(&mut packet, env);
        (verdict, packet.bytes().to_vec())
    }
}

/// What the director makes of a frame that its own stack sends.
pub fn see_off(env: &HostEnv<'_>, frame: &[u8]) -> (Verdict, Vec<u8>) {
    let mut buffer = frame.to_vec();
    let mut packet = Frame::new(&mut buffer, 0);
    let verdict = director::see_off(&mut packet, env);
    (verdict, packet.bytes().to_vec())
}

/// A service of the VIP.
pub fn service(v6: bool, protocol: Protocol, port: u16, scheduler: Scheduler) -> ServiceSpec {
    ServiceSpec::new(ServiceKey::Address { protocol, addr: address(v6, VIP), port }, scheduler)
}

/// A server with this number.
pub fn server(v6: bool, number: u8, port: u16, method: Method, tunnel: Tunnel) -> ServerSpec {
    let key = ServerKey { addr: address(v6, [10, 1, 0, number]), port };
    ServerSpec { tunnel, ..ServerSpec::new(key, method) }
}
