//! An echo request.

use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use xlvs_core::checksum::{Sum, sum_of_bytes};

use super::Trouble;

/// Bytes that are sent along, and must come back.
const PAYLOAD: usize = 16;
const HEAD: usize = 8;

/// Asks, and waits for the answer.
pub(super) async fn ask(server: IpAddr) -> Result<(), Trouble> {
    let socket = socket(server)
        .map_err(|why| Trouble::Ours(format!("no echo can be asked for: {}", super::in_words(&why))))?;
    socket.connect(SocketAddr::new(server, 0)).await.map_err(|why| Trouble::of(&why))?;
    let question = question(server, std::array::from_fn(|_| fastrand::u8(..)));
    socket.send(&question).await.map_err(|why| Trouble::of(&why))?;
    let mut answer = [0; 2048];
    loop {
        let length = socket.recv(&mut answer).await.map_err(|why| Trouble::of(&why))?;
        if answers(server, &answer[..length], &question) {
            return Ok(());
        }
    }
}

/// A raw socket, which hears what a server sends by ICMP, with the IP header before it where that is IPv4. To Tokio it is like one of UDP.
fn socket(server: IpAddr) -> std::io::Result<UdpSocket> {
    let (domain, protocol) =
        if server.is_ipv4() { (Domain::IPV4, Protocol::ICMPV4) } else { (Domain::IPV6, Protocol::ICMPV6) };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

/// An echo request with these for its identifier, sequence number and payload.
fn question(server: IpAddr, chance: [u8; 4 + PAYLOAD]) -> [u8; HEAD + PAYLOAD] {
    let mut message = [0; HEAD + PAYLOAD];
    message[0] = if server.is_ipv4() { 8 } else { 128 };
    message[4..].copy_from_slice(&chance);
    // The kernel sums what is ICMPv6 itself.
    if server.is_ipv4() {
        let sum = Sum::of(sum_of_bytes(&message)).checksum();
        message[2..4].copy_from_slice(&sum);
    }
    message
}

fn answers(server: IpAddr, heard: &[u8], question: &[u8; HEAD + PAYLOAD]) -> bool {
    let (kind, head) = match server {
        IpAddr::V4(_) => (0, heard.first().map_or(0, |first| usize::from(first & 15) * 4)),
        IpAddr::V6(_) => (129, 0),
    };
    let message = heard.get(head..).unwrap_or_default();
    message.first() == Some(&kind) && message.get(4..) == Some(&question[4..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_to_this_question() {
        let (v4, v6): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
        let asked = question(v4, [7; 20]);
        assert_eq!(
            asked.as_chunks::<2>().0.iter().fold(Sum::ZERO, |sum, pair| sum.add16(*pair)).checksum(),
            [0, 0]
        );
        let mut echo = asked;
        echo[0] = 0;
        let with_head = |message: &[u8]| [&[0x45][..], &[0; 19], message].concat();
        assert!(answers(v4, &with_head(&echo), &asked));
        // One's own question comes by on the loopback.
        assert!(!answers(v4, &with_head(&asked), &asked));
        assert!(!answers(v4, &with_head(&echo[..23]), &asked) && !answers(v4, &[], &asked));
        echo[0] = 129;
        assert!(answers(v6, &echo, &question(v6, [7; 20])));
    }
}
