//! What clients do: `curl`, connections from a chosen address and port, datagrams, `ping`.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Socket, Type};

use crate::layout::Layout;
use crate::netns::Netns;
use crate::process::Process;
use crate::stream::Digest;

/// A client gives up after so long: a lost SYN may be sent once more.
pub const PATIENCE: Duration = Duration::from_millis(1500);

/// The clients' host of a lab.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    netns: &'a Netns,
    layout: Layout,
}

/// Lets the kernel choose a port at that address.
pub fn ephemeral(address: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(address.into(), 0)
}

impl<'a> Client<'a> {
    pub(crate) fn new(netns: &'a Netns, layout: Layout) -> Client<'a> {
        Client { netns, layout }
    }

    /// Runs `curl` and returns what it got, without the line's end.
    pub fn get(&self, url: &str) -> Result<String> {
        let output = self.netns.output(Command::new("curl").args(["-sS", "--max-time", "5", url]))?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "curl {url}: {}", complaint.trim());
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Starts a download of `length` bytes with `curl`, at `rate` (such as `5M`) if one is given.
    pub fn download(&self, host: IpAddr, port: u16, length: u64, rate: Option<&str>) -> Result<Download> {
        let url = format!("http://{}/big?n={length}", SocketAddr::new(host, port));
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "120", &url]).stdin(Stdio::null()).stdout(Stdio::piped());
        if let Some(rate) = rate {
            curl.args(["--limit-rate", rate]);
        }
        let mut process = self.netns.spawn(&mut curl)?;
        let mut output = process.stdout()?;
        let reader = std::thread::spawn(move || -> std::io::Result<Digest> {
            let (mut digest, mut buffer) = (Digest::new(), vec![0; 1 << 16]);
            loop {
                match output.read(&mut buffer)? {
                    0 => return Ok(digest),
                    got => digest.update(&buffer[..got]),
                }
            }
        });
        Ok(Download { process, reader, length })
    }

    /// Connects from an address and port of our choice.
    pub fn connect(&self, from: SocketAddr, to: SocketAddr) -> Result<TcpStream> {
        let socket = self.bound(Type::STREAM, from)?;
        socket.connect_timeout(&to.into(), PATIENCE).with_context(|| format!("connect {from} to {to}"))?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Connects from client 1 and leaves the port to the kernel.
    pub fn connect_to(&self, to: SocketAddr) -> Result<TcpStream> {
        self.connect(ephemeral(self.address_towards(to)), to)
    }

    /// One short connection from client 1: asks the name server behind `to` for its name.
    pub fn ask(&self, to: SocketAddr) -> Result<String> {
        ask_again(&mut self.connect_to(to)?)
    }

    /// `count` short connections, one after the other; who answered how often is for the caller to see.
    pub fn ask_times(&self, to: SocketAddr, count: usize) -> Result<Vec<String>> {
        let from = ephemeral(self.address_towards(to));
        // One visit to the namespace for all: entering it costs more than a connection.
        self.netns.run(|| (0..count).map(|_| ask_from_here(from, to)).collect())
    }

    /// A UDP socket bound to an address and port of our choice, connected to `to`.
    pub fn datagrams(&self, from: SocketAddr, to: SocketAddr) -> Result<UdpSocket> {
        let socket = UdpSocket::from(self.bound(Type::DGRAM, from)?);
        socket.connect(to).with_context(|| format!("connect {from} to {to}"))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    }

    /// Asks the name server behind `to` for its name with one datagram from client 1.
    pub fn ask_by_datagram(&self, to: SocketAddr) -> Result<String> {
        ask_by(&self.datagrams(ephemeral(self.address_towards(to)), to)?)
    }

    /// Whether `ping` gets an answer to each of three echo requests.
    pub fn ping(&self, to: IpAddr) -> Result<()> {
        let to = to.to_string();
        let output =
            self.netns.output(Command::new("ping").args(["-c", "3", "-i", "0.2", "-W", "2", &to]))?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(said.contains(" 3 received"), "ping {to}: {}", said.trim());
        Ok(())
    }

    /// The first client's address of the family of `to`.
    pub fn address_towards(&self, to: SocketAddr) -> IpAddr {
        if to.is_ipv6() { self.layout.client6(1).into() } else { self.layout.client(1).into() }
    }

    fn bound(&self, kind: Type, from: SocketAddr) -> Result<Socket> {
        self.netns.run(|| bound_here(kind, from))
    }
}

fn bound_here(kind: Type, from: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(from), kind, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&from.into()).with_context(|| format!("bind {from}"))?;
    Ok(socket)
}

fn ask_from_here(from: SocketAddr, to: SocketAddr) -> Result<String> {
    let socket = bound_here(Type::STREAM, from)?;
    socket.connect_timeout(&to.into(), PATIENCE).with_context(|| format!("connect {from} to {to}"))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    ask_again(&mut stream)
}

/// Asks for the name of who is at the other end of a connection that stays open.
pub fn ask_again(stream: &mut TcpStream) -> Result<String> {
    let mut name = [0; 16];
    stream.write_all(b"hi").context("say hi")?;
    let length = stream.read(&mut name).context("hear a name")?;
    ensure!(length > 0, "hung up instead of saying its name");
    Ok(String::from_utf8_lossy(&name[..length]).into_owned())
}

/// Asks for the name of who is at the other end of a UDP socket.
pub fn ask_by(socket: &UdpSocket) -> Result<String> {
    let mut name = [0; 16];
    socket.send(b"hi").context("send hi")?;
    let length = socket.recv(&mut name).context("receive a name")?;
    Ok(String::from_utf8_lossy(&name[..length]).into_owned())
}

/// A download under way.
pub struct Download {
    process: Process,
    reader: std::thread::JoinHandle<std::io::Result<Digest>>,
    length: u64,
}

impl Download {
    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// Waits for its end: all bytes, and the right ones.
    pub fn finish(mut self) -> Result<()> {
        let digest = self.reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        let status = self.process.wait_up_to(Duration::from_secs(5)).context("curl does not end")?;
        ensure!(
            status.success(),
            "curl failed ({status}) after {} of {} bytes",
            digest.length(),
            self.length
        );
        ensure!(
            digest == Digest::of_stream(self.length),
            "{} bytes came, but not the right ones",
            digest.length()
        );
        Ok(())
    }
}

/// Whether a connection was not to be had: refused at once, or nobody answered in time.
pub(crate) fn refused(error: &anyhow::Error) -> bool {
    let kind =
        error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    matches!(
        kind,
        Some(
            ErrorKind::ConnectionRefused
                | ErrorKind::TimedOut
                | ErrorKind::WouldBlock
                | ErrorKind::HostUnreachable
        )
    )
}
