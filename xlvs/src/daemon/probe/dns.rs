//! A question to a name server, and whether it is answered.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;

use super::{Trouble, trouble};

/// RFC 1035, 4.2.1: no answer over UDP is longer, as nothing else was offered. More of it is not read.
const ANSWER: usize = 512;
/// Identification, flags and four counts.
const HEADER: usize = 12;

/// Asks for the SOA of a name, and tells what is wrong with the answer.
pub(super) async fn ask(name: &str, target: SocketAddr) -> Result<(), Trouble> {
    let any = match target.ip() {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    // Connected: datagrams from elsewhere do not reach it, and ICMP errors do.
    let socket = UdpSocket::bind((any, 0)).await.map_err(|why| trouble(&why))?;
    socket.connect(target).await.map_err(|why| trouble(&why))?;
    let id = fastrand::u16(..);
    socket.send(&question(id, name)).await.map_err(|why| trouble(&why))?;
    let mut datagram = [0; ANSWER];
    loop {
        let length = socket.recv(&mut datagram).await.map_err(|why| trouble(&why))?;
        match code(id, &datagram[..length]) {
            None => {}
            Some(0) => return Ok(()),
            Some(code) => return Err(Trouble::Server(format!("the answer is {}", word(code)))),
        }
    }
}

fn question(id: u16, name: &str) -> Vec<u8> {
    const RECURSION_DESIRED: u16 = 0x0100;
    const SOA: u16 = 6;
    const INTERNET: u16 = 1;
    let mut message = Vec::with_capacity(HEADER + name.len() + 6);
    for field in [id, RECURSION_DESIRED, 1, 0, 0, 0] {
        message.extend(field.to_be_bytes());
    }
    for label in name.split('.').filter(|label| !label.is_empty()) {
        // The file takes labels of up to 63 bytes.
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend([SOA, INTERNET].into_iter().flat_map(u16::to_be_bytes));
    message
}

/// The response code, if this is an answer to the question of this id.
fn code(id: u16, datagram: &[u8]) -> Option<u8> {
    let header = datagram.get(..HEADER)?;
    let is_answer = header[..2] == id.to_be_bytes() && header[2] & 0x80 != 0;
    is_answer.then(|| header[3] & 0x0f)
}

fn word(code: u8) -> String {
    match code {
        1 => "FORMERR".to_owned(),
        2 => "SERVFAIL".to_owned(),
        3 => "NXDOMAIN".to_owned(),
        4 => "NOTIMP".to_owned(),
        5 => "REFUSED".to_owned(),
        other => format!("error {other}"),
    }
}
