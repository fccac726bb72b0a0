//! Runs a [`Resolver`] on a netlink socket.
//!
//! One socket carries requests, answers and notifications, so that they come in the order in which the
//! kernel made them: an answer read before a notification cannot be newer than it.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::IpAddr,
    time::Instant,
};

use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use nix::{
    libc,
    sys::socket::{setsockopt, sockopt},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Change, Event, News, Request, Resolver,
    wire::{self, Ending, Frame},
};

/// Requests that may await their answer at a time. Each answer takes a few KiB of the socket's buffer; where
/// that is too small, fewer are sent (as TCP does: half as many after a loss, one more after many answers).
const IN_FLIGHT: usize = 64;
const ANSWERS_TO_GROW: u32 = 256;
/// The socket's buffer: room for a burst of notifications while this task waits for its turn.
const RECEIVE_BUFFER: usize = 4 << 20;
/// The longest datagram: the kernel fills 32 KiB when it dumps.
const LONGEST_DATAGRAM: usize = 64 << 10;
const KERNEL: u32 = 0;

/// What the owner of a running resolver may ask of it.
#[derive(Debug)]
pub enum Command {
    /// Other servers are wanted.
    Targets(Change),
    /// A router on the way to a server has said how large packets may be.
    PathMtu {
        /// The server's address.
        addr: IpAddr,
        /// Bytes of an IP packet.
        mtu: u32,
    },
    /// A sentence about an address, as [`Resolver::describe`] gives it.
    Describe {
        /// The address.
        addr: IpAddr,
        /// Where to send the sentence.
        reply: oneshot::Sender<String>,
    },
}

/// Why next hops cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket.
    #[error(
        "open a netlink socket to follow next hops; is there a Tokio runtime, and a file descriptor left?"
    )]
    Open(#[source] io::Error),
    /// No notifications.
    #[error("subscribe to routing notifications; run as root or with CAP_NET_ADMIN")]
    Subscribe(#[source] io::Error),
    /// The socket broke.
    #[error("read routing notifications; restart to resolve next hops again, packets keep flowing meanwhile")]
    Receive(#[source] io::Error),
    /// The socket broke.
    #[error("send a routing request; restart to resolve next hops again, packets keep flowing meanwhile")]
    Send(#[source] io::Error),
}

/// Resolves next hops until `commands` is closed or nobody receives `events`.
///
/// The socket is opened before this returns, in the network namespace of the calling thread, which must be
/// inside a Tokio runtime; the future may run on any thread.
pub fn run(
    commands: mpsc::Receiver<Command>,
    events: mpsc::UnboundedSender<News>,
) -> Result<impl Future<Output = Result<(), Error>> + Send, Error> {
    let driver = Driver::open(events)?;
    Ok(driver.run(commands))
}

struct Driver {
    socket: TokioSocket,
    port: u32,
    resolver: Resolver,
    events: mpsc::UnboundedSender<News>,
    urgent: VecDeque<Request>,
    questions: VecDeque<Request>,
    in_flight: HashMap<u32, InFlight>,
    window: usize,
    answers: u32,
    sequence: u32,
}

struct InFlight {
    request: Request,
    interrupted: bool,
}

impl Driver {
    fn open(events: mpsc::UnboundedSender<News>) -> Result<Self, Error> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(Error::Open)?;
        enlarge_buffer(&socket);
        socket.socket_mut().bind(&SocketAddr::new(0, wire::GROUPS)).map_err(Error::Subscribe)?;
        let mut own = SocketAddr::new(0, 0);
        socket.socket_ref().get_address(&mut own).map_err(Error::Subscribe)?;
        Ok(Self {
            socket,
            port: own.port_number(),
            resolver: Resolver::new(Instant::now()),
            events,
            urgent: VecDeque::new(),
            questions: VecDeque::new(),
            in_flight: HashMap::new(),
            window: IN_FLIGHT,
            answers: 0,
            sequence: 0,
        })
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<(), Error> {
        let mut buffer = Vec::with_capacity(LONGEST_DATAGRAM);
        while !self.events.is_closed() {
            self.send_queued().await?;
            buffer.clear();
            let deadline = self.resolver.next_deadline().into();
            tokio::select! {
                received = self.socket.recv(&mut buffer) => self.receive(received, &mut buffer)?,
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return Ok(()),
                },
                () = tokio::time::sleep_until(deadline) => self.step(Event::Tick),
            }
        }
        Ok(())
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Targets(change) => self.step(Event::Targets(change)),
            Command::PathMtu { addr, mtu } => self.step(Event::PathMtu { addr, mtu }),
            // Whoever asked may have stopped waiting.
            Command::Describe { addr, reply } => drop(reply.send(self.resolver.describe(addr))),
        }
    }

    fn step(&mut self, event: Event) {
        let effects = self.resolver.step(event, Instant::now());
        for request in effects.requests {
            self.enqueue(request);
        }
        // A receiver that has gone ends the loop in `run`.
        let devices = effects.devices.into_iter().map(News::Devices);
        let news = devices.chain(effects.changes.into_iter().map(News::NextHop));
        news.for_each(|news| drop(self.events.send(news)));
    }

    /// Tens of thousands of questions may wait; a dump or a neighbour does not wait behind them.
    fn enqueue(&mut self, request: Request) {
        match request {
            Request::Route(_) => self.questions.push_back(request),
            Request::Dump(_) | Request::Neighbour { .. } => self.urgent.push_back(request),
        }
    }

    async fn send_queued(&mut self) -> Result<(), Error> {
        while self.in_flight.len() < self.window {
            let Some(request) = self.urgent.pop_front().or_else(|| self.questions.pop_front()) else { break };
            self.sequence = self.sequence.wrapping_add(1).max(1);
            let bytes = wire::encode(&request, self.sequence);
            self.in_flight.insert(self.sequence, InFlight { request, interrupted: false });
            let kernel = SocketAddr::new(KERNEL, 0);
            match self.socket.send_to(&bytes, &kernel).await {
                Ok(_) => {}
                // No memory for it just now.
                Err(error) if is_overflow(&error) => {
                    self.overflow();
                    break;
                }
                Err(error) => return Err(Error::Send(error)),
            }
        }
        Ok(())
    }

    fn receive(&mut self, received: io::Result<()>, buffer: &mut Vec<u8>) -> Result<(), Error> {
        match received {
            Ok(()) => self.take_all(buffer),
            Err(error) if is_overflow(&error) => {
                self.drain(buffer)?;
                self.overflow();
            }
            Err(error) => return Err(Error::Receive(error)),
        }
        Ok(())
    }

    /// Reads what is left after an overflow. Until the buffer is empty, the kernel drops all else without
    /// saying so again (`NETLINK_S_CONGESTED`); nothing may be asked before.
    fn drain(&mut self, buffer: &mut Vec<u8>) -> Result<(), Error> {
        loop {
            buffer.clear();
            match self.socket.socket_ref().recv(buffer, 0) {
                Ok(_) => self.take_all(buffer),
                Err(error) if is_overflow(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(Error::Receive(error)),
            }
        }
    }

    fn take_all(&mut self, datagram: &[u8]) {
        wire::frames(datagram).iter().for_each(|frame| self.take(frame));
    }

    /// A notification that one of our requests caused carries our port too, but number 0.
    fn take(&mut self, frame: &Frame<'_>) {
        if frame.port == self.port && frame.sequence != 0 {
            self.take_reply(frame);
        } else {
            self.take_news(frame);
        }
    }

    fn take_news(&mut self, frame: &Frame<'_>) {
        if let Some(event) = frame.news() {
            self.step(event);
        }
    }

    fn take_reply(&mut self, frame: &Frame<'_>) {
        // Without a request it is an answer that came after all, to a question that was asked again.
        let Some(mut waiting) = self.in_flight.remove(&frame.sequence) else { return };
        self.widen();
        match (waiting.request, frame.ending()) {
            (Request::Route(addr), _) => self.step(frame.route_answer(addr)),
            (Request::Neighbour { key, .. }, Ending::Failed(errno)) => {
                self.step(Event::NeighbourRefused { key, errno })
            }
            (Request::Neighbour { .. }, _) => {}
            (Request::Dump(_), Ending::NotYet) => {
                waiting.interrupted |= frame.is_interrupted();
                self.in_flight.insert(frame.sequence, waiting);
                self.take_news(frame);
            }
            (Request::Dump(dump), ending) => {
                let whole = ending == Ending::Done && !waiting.interrupted && !frame.is_interrupted();
                self.step(Event::DumpDone { dump, complete: whole });
            }
        }
    }

    /// The kernel had no room for something. Answers may be lost, so the questions under way are asked again;
    /// dumps are waited for: the kernel makes them piece by piece as there is room, so they do end.
    fn overflow(&mut self) {
        self.window = (self.window / 2).max(1);
        self.answers = 0;
        let waiting = std::mem::take(&mut self.in_flight);
        for (sequence, waiting) in waiting {
            match waiting.request {
                Request::Dump(_) => drop(self.in_flight.insert(sequence, waiting)),
                Request::Route(_) => self.questions.push_front(waiting.request),
                // If it was refused, it will be again: entries in need are asked for every few seconds.
                Request::Neighbour { .. } => {}
            }
        }
        self.step(Event::Overflow);
    }

    fn widen(&mut self) {
        self.answers += 1;
        if self.answers >= ANSWERS_TO_GROW {
            self.answers = 0;
            self.window = (self.window + 1).min(IN_FLIGHT);
        }
    }
}

/// Past the limit that `net.core.rmem_max` sets, which root may pass; otherwise up to it. A small buffer costs
/// full looks, not correctness, so a refusal is no error.
fn enlarge_buffer(socket: &TokioSocket) {
    let socket = socket.socket_ref();
    let forced = setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER);
    forced.or_else(|_| setsockopt(socket, sockopt::RcvBuf, &RECEIVE_BUFFER)).ok();
}

fn is_overflow(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}
