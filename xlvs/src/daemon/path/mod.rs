//! A client's way for probes: to the service's address, and from there as the server's method has it.
//!
//! The daemon is the client itself: its packets are rewritten by the core, for exactly the server that is asked, and leave by a packet
//! socket ([`post`]); answers are picked up from what the programs pass to the stack. TCP is spoken by a stack of the probe's own
//! ([`stream`]): the kernel would take an answer from a VIP that is its own for a forgery. So a probe needs no route, rule or address,
//! is not scheduled, and is in no table.

mod datagrams;
mod filter;
mod post;
mod source;
mod stream;
mod tuple;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc;
use xlvs_core::server::Hop;
use xlvs_datapath::nexthop::{Reason, State};
use xlvs_datapath::straight::Straight;
use xlvs_datapath::tables::Tables;
use xlvs_model::{ServerSpec, ServiceKey};

pub use self::datagrams::Datagrams;
pub use self::stream::Stream;

use self::post::{Heard, Letterbox, Post};
use self::source::Addresses;
use super::Daemon;
use super::probe::Trouble;

/// What all probes that go a client's way share.
#[derive(Default)]
pub struct Path {
    post: RefCell<Option<Rc<Post>>>,
    addresses: Addresses,
}

impl Path {
    /// Sockets are opened for the first probe.
    fn post(&self) -> anyhow::Result<Rc<Post>> {
        if let Some(post) = &*self.post.borrow() {
            return Ok(Rc::clone(post));
        }
        let post = Post::open()?;
        *self.post.borrow_mut() = Some(Rc::clone(&post));
        Ok(post)
    }
}

/// Which server a probe asks, and as which client's destination.
pub struct Through {
    daemon: Rc<Daemon>,
    virt: SocketAddr,
    server: ServerSpec,
    port: u16,
}

impl Through {
    /// The way to this port of a server. `None`: the service has no address.
    pub fn new(daemon: &Rc<Daemon>, service: &ServiceKey, server: ServerSpec, port: u16) -> Option<Self> {
        let ServiceKey::Address { addr, port: virtual_port, .. } = *service else { return None };
        let is_clients_port = server.key.port == port && virtual_port != 0;
        let virt = SocketAddr::new(addr, if is_clients_port { virtual_port } else { port });
        Some(Self { daemon: Rc::clone(daemon), virt, server, port })
    }

    /// What a client would ask.
    pub fn virt(&self) -> SocketAddr {
        self.virt
    }

    /// A line to the server for one probe. `None`: the server is the director itself, and the stack has its packets at once.
    pub async fn line(&self, protocol: u8) -> Result<Option<Line>, Trouble> {
        let daemon = &self.daemon;
        let (hop, towards) = match daemon.hops.way_to(self.server.key.addr).await {
            Some(State::Resolved { ifindex, source_mac, dest_mac, mtu, source }) => {
                let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
                (Hop { to: dest_mac, from: source_mac, ifindex, mtu }, source)
            }
            Some(State::Unresolved { reason: Reason::Local }) => return Ok(None),
            Some(State::Unresolved { reason }) => {
                return Err(Trouble::Server(format!("no next hop: {reason}")));
            }
            None => return Err(Trouble::Ours("the way to the server is not known yet".to_owned())),
        };
        let ours = |why: anyhow::Error| Trouble::Ours(format!("no packet can be sent: {why:#}"));
        let own =
            daemon.path.addresses.source(daemon, &self.server, self.virt.ip(), towards).map_err(ours)?;
        let own = own.ok_or_else(|| {
            let family = if self.virt.is_ipv4() { "IPv4" } else { "IPv6" };
            Trouble::Ours(format!(
                "the director has no {family} address on its interfaces to ask from; give it one, or say via = \"server\""
            ))
        })?;
        let straight = Straight::new(&self.server, self.port, self.virt, hop, towards);
        let peer = if straight.is_translated() {
            SocketAddr::new(self.server.key.addr, self.port)
        } else {
            self.virt
        };
        let post = daemon.path.post().map_err(ours)?;
        let (letterbox, heard) = post.rent(protocol, own, peer).map_err(|why| Trouble::of(&why))?;
        let tables = Arc::clone(daemon.engine.borrow().tables());
        Ok(Some(Line { straight, virt: self.virt, tables, letterbox, heard }))
    }
}

/// One probe's packets to one server, and what comes back.
pub struct Line {
    straight: Straight,
    virt: SocketAddr,
    tables: Arc<Tables>,
    letterbox: Letterbox,
    heard: mpsc::Receiver<Heard>,
}

impl Line {
    /// The probe's own address and port.
    fn own(&self) -> SocketAddr {
        self.letterbox.own()
    }

    /// The longest IP packet that it takes.
    fn room(&self) -> u16 {
        self.straight.room().unwrap_or(0)
    }

    /// Sends an IP packet. What is lost, is lost as a client's would be.
    fn send(&self, packet: &[u8]) {
        let sent = match self.straight.frame(&self.tables, packet) {
            Ok(frame) => self.letterbox.send(self.straight.ifindex(), &frame).map_err(|why| why.to_string()),
            Err(why) => Err(format!("{why:?}")),
        };
        if let Err(why) = sent {
            tracing::debug!(server = %self.virt, %why, "a probe's packet is not sent");
        }
    }

    /// What comes next, as a client would get it.
    async fn hear(&mut self) -> Option<Heard> {
        loop {
            match self.heard.recv().await? {
                Heard::Packet(packet) if self.straight.is_translated() => {
                    if let Ok(packet) = self.straight.answer(&self.tables, &packet) {
                        return Some(Heard::Packet(packet));
                    }
                }
                heard => return Some(heard),
            }
        }
    }
}
