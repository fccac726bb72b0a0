//! Whom a probe asks, and by which way: streams and datagrams that are the same to those who speak over them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UdpSocket};
use xlvs_core::wire::ip_protocol;

use super::Trouble;
use crate::daemon::path::{self, Through};

/// Whom a probe asks.
pub struct Whom {
    /// The server, or whoever is asked in its place.
    pub server: SocketAddr,
    /// How a client would reach it; `None`: it is asked directly.
    pub through: Option<Through>,
}

impl Whom {
    /// Address and port that are asked for, as a client would write them.
    pub fn asked(&self) -> SocketAddr {
        self.through.as_ref().map_or(self.server, Through::virt)
    }

    /// Connects, or says why not.
    pub async fn connect(&self) -> Result<Stream, Trouble> {
        let connected = match self.line(ip_protocol::TCP).await? {
            Some(line) => path::Stream::connect(line).await.map(Stream::Path),
            None => TcpStream::connect(self.server).await.map(Stream::Own),
        };
        connected.map_err(|why| Trouble::of(&why))
    }

    /// Datagrams to the server and from it, and nobody else's; also what is said by ICMP of them.
    pub async fn datagrams(&self) -> Result<Datagrams, Trouble> {
        match self.line(ip_protocol::UDP).await? {
            Some(line) => Ok(Datagrams::Path(Box::new(path::Datagrams::over(line)))),
            None => own_datagrams(self.server).await.map(Datagrams::Own).map_err(|why| Trouble::of(&why)),
        }
    }

    async fn line(&self, protocol: u8) -> Result<Option<path::Line>, Trouble> {
        match &self.through {
            Some(through) => through.line(protocol).await,
            None => Ok(None),
        }
    }
}

#[cfg(test)]
impl From<SocketAddr> for Whom {
    fn from(server: SocketAddr) -> Self {
        Self { server, through: None }
    }
}

async fn own_datagrams(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(target).await?;
    Ok(socket)
}

/// A connection with a server.
pub enum Stream {
    /// Of the director's own stack.
    Own(TcpStream),
    /// On a client's way.
    Path(path::Stream),
}

impl Stream {
    /// The director's end of it.
    pub fn own(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Own(stream) => stream.local_addr(),
            Self::Path(stream) => Ok(stream.own()),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Own(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Path(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Own(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Path(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Own(stream) => Pin::new(stream).poll_flush(cx),
            Self::Path(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Own(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Path(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Datagrams to a server and from it.
pub enum Datagrams {
    /// Of the director's own stack.
    Own(UdpSocket),
    /// On a client's way.
    Path(Box<path::Datagrams>),
}

impl Datagrams {
    /// Sends one.
    pub async fn send(&mut self, payload: &[u8]) -> Result<(), Trouble> {
        let sent = match self {
            Self::Own(socket) => socket.send(payload).await.map(drop),
            Self::Path(datagrams) => datagrams.send(payload),
        };
        sent.map_err(|why| Trouble::of(&why))
    }

    /// Waits for one, and returns its length.
    pub async fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, Trouble> {
        let received = match self {
            Self::Own(socket) => socket.recv(buffer).await,
            Self::Path(datagrams) => datagrams.recv(buffer).await,
        };
        received.map_err(|why| Trouble::of(&why))
    }
}
