//! Who are you? Over TCP and UDP: the client says `hi`, the real server answers its name. A longer datagram it answers with its name
//! and the datagram.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv6Addr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::cmsg_space;
use nix::libc::in6_pktinfo;
use nix::sys::socket::sockopt::Ipv6RecvPacketInfo;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6};
use nix::sys::socket::{recvmsg, sendmsg, setsockopt};

use crate::http::stop_accepting;
use crate::netns::Netns;
use crate::topology::Lab;

/// A client that says nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers its name until dropped. A TCP client that closes is closed; until then it may ask again.
pub struct NameServer {
    listener: Arc<TcpListener>,
    datagrams: Arc<UdpSocket>,
    threads: Vec<JoinHandle<()>>,
}

impl NameServer {
    /// Starts it on all addresses of a namespace, both families.
    pub fn start(netns: &Netns, name: &str, port: u16) -> Result<NameServer> {
        let any = (Ipv6Addr::UNSPECIFIED, port);
        let sockets = netns.run(|| Ok::<_, io::Error>((TcpListener::bind(any)?, UdpSocket::bind(any)?)));
        let (listener, datagrams) =
            sockets.with_context(|| format!("bind port {port} in {}", netns.name()))?;
        setsockopt(&datagrams, Ipv6RecvPacketInfo, &true).context("ask for the address of datagrams")?;
        let (listener, datagrams) = (Arc::new(listener), Arc::new(datagrams));
        let threads =
            vec![answering(&listener, name, serve_connections), answering(&datagrams, name, serve_datagrams)];
        Ok(NameServer { listener, datagrams, threads })
    }

    /// Starts one on every real server of a lab.
    pub fn on_all(lab: &Lab, port: u16) -> Result<Vec<NameServer>> {
        lab.servers.iter().map(|server| NameServer::start(&server.netns, &server.name, port)).collect()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        stop_accepting(&*self.listener);
        stop_accepting(&*self.datagrams);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn answering<S: Send + Sync + 'static>(socket: &Arc<S>, name: &str, serve: fn(&S, &str)) -> JoinHandle<()> {
    let (socket, name) = (socket.clone(), name.to_owned());
    std::thread::spawn(move || serve(&socket, &name))
}

fn serve_connections(listener: &TcpListener, name: &str) {
    while let Ok((stream, _)) = listener.accept() {
        let name = name.to_owned();
        std::thread::spawn(move || drop(answer_until_closed(stream, &name)));
    }
}

fn answer_until_closed(mut stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut question = [0; 16];
    while stream.read(&mut question)? > 0 {
        stream.write_all(name.as_bytes())?;
    }
    Ok(())
}

/// The longest question that is answered by the name alone.
const SHORT: usize = 16;

fn serve_datagrams(socket: &UdpSocket, name: &str) {
    let mut question = vec![0; 1 << 16];
    // An error is either the end (shut down) or word of an earlier answer that nobody took.
    while let Ok(asked) = receive(socket, &mut question) {
        let Some(Asked { asker, at, length }) = asked else { return };
        let said = if length > SHORT { &question[..length] } else { &[] };
        answer(socket, &[name.as_bytes(), said].concat(), asker, at).ok();
    }
}

/// A datagram that came.
pub(crate) struct Asked {
    /// Who sent it.
    pub(crate) asker: SockaddrIn6,
    /// To which of our addresses: a VIP, with DR and TUN.
    pub(crate) at: in6_pktinfo,
    /// How many bytes.
    pub(crate) length: usize,
}

/// Waits for a datagram. None when shut down.
pub(crate) fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> nix::Result<Option<Asked>> {
    let mut control = cmsg_space!(in6_pktinfo);
    let mut slices = [IoSliceMut::new(buffer)];
    let message =
        recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty())?;
    let asked = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(info),
        _ => None,
    });
    let length = message.bytes;
    Ok(message.address.zip(asked).map(|(asker, at)| Asked { asker, at, length }))
}

/// Answers from the address that was asked; the kernel would choose its own otherwise.
pub(crate) fn answer(
    socket: &UdpSocket,
    said: &[u8],
    asker: SockaddrIn6,
    mut from: in6_pktinfo,
) -> nix::Result<usize> {
    // The way back may lead out of another device than the question came in by.
    from.ipi6_ifindex = 0;
    let asker = SockaddrIn6::from(SocketAddrV6::from(asker));
    let control = [ControlMessage::Ipv6PacketInfo(&from)];
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(said)], &control, MsgFlags::empty(), Some(&asker))
}
