//! A datagram, and whether it is refused or answered as it should be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;
use xlvs_model::watch::UdpSpec;

use super::{Trouble, find};

/// Of an answer so much is looked at.
const MOST: usize = 64 << 10;

/// Asks. Where no answer is needed, silence of so long is no refusal.
pub(super) async fn ask(spec: &UdpSpec, target: SocketAddr, silence: Duration) -> Result<(), Trouble> {
    let socket = connected(target).await?;
    socket.send(spec.send.as_bytes()).await.map_err(|why| Trouble::of(&why))?;
    let Some(pattern) = &spec.answer else {
        return match timeout(silence, socket.recv(&mut [0])).await {
            Ok(Err(why)) => Err(Trouble::of(&why)),
            Ok(Ok(_)) | Err(_) => Ok(()),
        };
    };
    let mut answer = vec![0; MOST];
    let length = socket.recv(&mut answer).await.map_err(|why| Trouble::of(&why))?;
    Ok(find(pattern, "the answer", &answer[..length])?)
}

/// A socket that hears this server only, also when it is told by ICMP that nobody listens there.
pub(super) async fn connected(target: SocketAddr) -> Result<UdpSocket, Trouble> {
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await.map_err(|why| Trouble::of(&why))?;
    socket.connect(target).await.map_err(|why| Trouble::of(&why))?;
    Ok(socket)
}
