//! A question about one way, asked and answered at once. It changes nothing, and nobody follows what is answered.
//!
//! The resolver asks in the same words ([`Question`]), and reads answers by the same rules.

use std::io;
use std::net::IpAddr;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::libc;

use super::wire::{self, Ending};
use super::{Mac, Neighbour, NeighbourKey, Reason, Route};

/// Which way is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Where it leads to.
    pub to: IpAddr,
    /// Whose packet takes it, if it is not one of the director's own.
    pub from: Option<Arrival>,
    /// The packet's mark; 0: none.
    pub mark: u32,
}

/// A packet to be forwarded: whose it is, and how it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Its source address.
    pub addr: IpAddr,
    /// The interface by which it came in.
    pub ifindex: u32,
}

impl Question {
    /// The way of the director's own packets to an address.
    pub fn to(addr: IpAddr) -> Self {
        Self { to: addr, from: None, mark: 0 }
    }
}

/// The route that the kernel chooses now, or why there is none.
pub fn lookup(question: &Question) -> Result<Route, Reason> {
    ask(&wire::route_request(question, SEQUENCE), |frame| Some(frame.route())).unwrap_or_else(|error| {
        Err(Reason::LookUpFailed { errno: error.raw_os_error().unwrap_or(libc::EBADMSG) })
    })
}

/// The Ethernet address of a neighbour, if the kernel knows it now.
pub fn neighbour(key: NeighbourKey) -> Option<Mac> {
    let entry: Neighbour = ask(&wire::neighbour_question(key, SEQUENCE), |frame| frame.neighbour()).ok()?;
    entry.mac.filter(|_| entry.nud.is_usable())
}

/// One question a socket, so any number will do but 0, which is the notifications'.
const SEQUENCE: u32 = 1;

/// The kernel answers while it is asked, so there is nothing to wait for.
fn ask<T>(question: &[u8], read: impl Fn(&wire::Frame<'_>) -> Option<T>) -> io::Result<T> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(question, 0)?;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let Some(frame) = wire::frames(&datagram).into_iter().find(|frame| frame.sequence == SEQUENCE) else {
            continue;
        };
        return match (read(&frame), frame.ending()) {
            (Some(answer), _) => Ok(answer),
            (None, Ending::Failed(errno)) => Err(io::Error::from_raw_os_error(errno)),
            (None, _) => Err(io::ErrorKind::InvalidData.into()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_an_address_of_this_host_is_local_and_asking_needs_no_right() {
        assert_eq!(lookup(&Question::to([127, 0, 0, 1].into())), Err(Reason::Local));
    }

    #[test]
    fn nobody_is_a_neighbour_of_the_loopback() {
        assert_eq!(neighbour(NeighbourKey { ifindex: 1, addr: [192, 0, 2, 1].into() }), None);
    }
}
