//! Where probes' packets leave, and where answers are sorted by whom they are for.
//!
//! A probe's port is held by a socket that takes nothing in: so nobody else has the port, and the kernel neither refuses an answer
//! on it nor says that nobody listens there.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::{Rc, Weak};

use anyhow::Context;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{MsgFlags, bind, recv, setsockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use xlvs_core::wire::ip_protocol;

use super::filter;
use super::tuple::Tuple;
use crate::daemon::errands::{Wire, link};

/// What a probe hears.
#[derive(Debug)]
pub enum Heard {
    /// An IP packet for it.
    Packet(Vec<u8>),
    /// Somebody says by ICMP that its packets cannot be delivered.
    Unreachable,
}

/// So many packets wait for a probe; more are lost.
const WAITING: usize = 64;

/// Bytes of packets that wait for the daemon: of thousands of probes many are answered at once.
const WAITING_BYTES: usize = 8 << 20;

/// The longest packet, also one that a driver put together from several.
const LONGEST: usize = 1 << 16;

/// The post office of all probes.
pub struct Post {
    wire: Wire,
    /// Of IPv4 and of IPv6.
    taps: [Rc<AsyncFd<Socket>>; 2],
    watched: RefCell<Vec<IpAddr>>,
    letterboxes: RefCell<HashMap<Tuple, mpsc::Sender<Heard>>>,
    held: RefCell<HashMap<(u8, SocketAddr), Weak<Socket>>>,
    next: Cell<u16>,
}

impl Post {
    /// Opens it. It stays open.
    pub fn open() -> anyhow::Result<Rc<Self>> {
        let tap = |ethertype| -> anyhow::Result<Rc<AsyncFd<Socket>>> {
            // SAFETY: the socket owns its descriptor, which stays open and the same for as long as the socket lives.
            let tap = unsafe { AsyncFd::register(tap(ethertype)?) };
            Ok(Rc::new(tap.context("wait for answers to probes")?))
        };
        let post = Rc::new(Self {
            wire: Wire::open()?,
            taps: [tap(libc::ETH_P_IP as u16)?, tap(libc::ETH_P_IPV6 as u16)?],
            watched: RefCell::default(),
            letterboxes: RefCell::default(),
            held: RefCell::default(),
            next: Cell::new(fastrand::u16(..)),
        });
        for tap in &post.taps {
            tokio::task::spawn_local(sort(Rc::clone(&post), Rc::clone(tap)));
        }
        Ok(post)
    }

    /// A port of this address of the director's, and what comes to it from `peer`.
    pub fn rent(
        self: &Rc<Self>,
        protocol: u8,
        own: IpAddr,
        peer: SocketAddr,
    ) -> io::Result<(Letterbox, mpsc::Receiver<Heard>)> {
        self.watch(own)?;
        let (own, held) = self.hold(protocol, own, peer)?;
        let (sender, heard) = mpsc::channel(WAITING);
        let tuple = Tuple { protocol, from: peer, to: own };
        self.letterboxes.borrow_mut().insert(tuple, sender);
        Ok((Letterbox { post: Rc::clone(self), tuple, _held: held }, heard))
    }

    /// Has answers to this address picked up.
    fn watch(&self, own: IpAddr) -> io::Result<()> {
        let mut watched = self.watched.borrow_mut();
        if watched.contains(&own) {
            return Ok(());
        }
        watched.push(own);
        self.taps[0].get_ref().attach_filter(&filter::of_v4(&watched))?;
        self.taps[1].get_ref().attach_filter(&filter::of_v6(&watched))
    }

    /// Ports are taken in turn, so that one comes back as late as it can; different peers may share one.
    fn hold(&self, protocol: u8, own: IpAddr, peer: SocketAddr) -> io::Result<(SocketAddr, Rc<Socket>)> {
        let ports = 1 << filter::PORT_BITS;
        for _ in 0..ports {
            let port = (filter::PORTS << filter::PORT_BITS) + self.next.get() % ports;
            self.next.set(self.next.get().wrapping_add(1));
            let own = SocketAddr::new(own, port);
            if self.letterboxes.borrow().contains_key(&Tuple { protocol, from: peer, to: own }) {
                continue;
            }
            let known = self.held.borrow().get(&(protocol, own)).and_then(Weak::upgrade);
            let held = match known.map_or_else(|| holding(protocol, own).map(Rc::new), Ok) {
                Err(why) if why.kind() == io::ErrorKind::AddrInUse => continue,
                held => held?,
            };
            self.held.borrow_mut().insert((protocol, own), Rc::downgrade(&held));
            return Ok((own, held));
        }
        // As the kernel says it when it has no port.
        Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL))
    }

    fn deliver(&self, packet: &[u8]) {
        let letterboxes = self.letterboxes.borrow();
        let (tuple, heard) = match Tuple::of(packet) {
            Some(tuple) => (tuple, Heard::Packet(packet.to_vec())),
            None => match Tuple::quoted_in(packet) {
                Some(Tuple { protocol, from, to }) => {
                    (Tuple { protocol, from: to, to: from }, Heard::Unreachable)
                }
                None => return,
            },
        };
        if let Some(letterbox) = letterboxes.get(&tuple) {
            // Full: it is lost, and sent again if it matters.
            let _lost = letterbox.try_send(heard);
        }
    }
}

/// Never ends.
async fn sort(post: Rc<Post>, tap: Rc<AsyncFd<Socket>>) {
    let mut buffer = vec![0; LONGEST];
    loop {
        let Ok(mut ready) = tap.readable().await else { return };
        match recv(tap.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => post.deliver(&buffer[..length]),
            Err(Errno::EAGAIN) => ready.clear_ready(),
            // An interface went down: that is told once.
            Err(_) => {}
        }
    }
}

/// A socket for what comes in of an ethertype, from the IP header on; nothing until it is told what.
fn tap(ethertype: u16) -> anyhow::Result<Socket> {
    // Of no protocol until it has its filter.
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, None).context("open a packet socket")?;
    socket.set_nonblocking(true).context("set up a packet socket")?;
    socket.attach_filter(&filter::nothing()).context("filter what a packet socket hears")?;
    // More than `net.core.rmem_max` allows others; without it the usual room is there.
    let _usual = setsockopt(&socket, RcvBufForce, &WAITING_BYTES);
    bind(socket.as_raw_fd(), &link(ethertype, 0)).context("bind a packet socket")?;
    Ok(socket)
}

/// Holds a port.
fn holding(protocol: u8, own: SocketAddr) -> io::Result<Socket> {
    let (kind, number) = if protocol == ip_protocol::TCP {
        (Type::STREAM, Protocol::TCP)
    } else {
        (Type::DGRAM, Protocol::UDP)
    };
    let socket = Socket::new(Domain::for_address(own), kind, Some(number))?;
    socket.attach_filter(&filter::nothing())?;
    socket.bind(&own.into())?;
    if protocol == ip_protocol::TCP {
        // Only then is it asked about what comes in.
        socket.listen(1)?;
    }
    Ok(socket)
}

/// A probe's address and port, as long as it lives.
pub struct Letterbox {
    post: Rc<Post>,
    tuple: Tuple,
    _held: Rc<Socket>,
}

impl Letterbox {
    /// The probe's own address and port.
    pub fn own(&self) -> SocketAddr {
        self.tuple.to
    }

    /// Sends a frame by an interface.
    pub fn send(&self, ifindex: u32, frame: &[u8]) -> nix::Result<()> {
        self.post.wire.send(ifindex, frame)
    }
}

impl Drop for Letterbox {
    fn drop(&mut self) {
        self.post.letterboxes.borrow_mut().remove(&self.tuple);
        let at = (self.tuple.protocol, self.tuple.to);
        let mut held = self.post.held.borrow_mut();
        if held.get(&at).is_some_and(|socket| socket.strong_count() <= 1) {
            held.remove(&at);
        }
    }
}
