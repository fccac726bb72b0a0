//! TCP on a client's way: a small stack for each probe, whose packets go over the probe's line.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{self, RecvError, State};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::Line;
use super::post::Heard;

/// Bytes that the stack keeps of what comes and goes.
const ROOM: usize = 16 << 10;

/// A connection that is given up is ended in order for so long, and then broken off.
const FAREWELL: Duration = Duration::from_secs(1);

/// Where there is nothing to wait for.
const IDLE: Duration = Duration::from_secs(3600);

/// A connection with a server.
pub struct Stream {
    end: Rc<RefCell<End>>,
    bell: Rc<Notify>,
    own: SocketAddr,
}

impl Stream {
    /// Connects.
    pub async fn connect(line: Line) -> io::Result<Self> {
        let own = line.own();
        let end = Rc::new(RefCell::new(End::of(&line)?));
        let bell = Rc::new(Notify::new());
        tokio::task::spawn_local(pump(Rc::clone(&end), Rc::clone(&bell), line));
        let stream = Self { end, bell, own };
        poll_fn(|cx| stream.end.borrow_mut().poll_connected(cx)).await?;
        Ok(stream)
    }

    /// The director's address and port.
    pub fn own(&self) -> SocketAddr {
        self.own
    }

    /// Does something with the socket, and has what follows from it done.
    fn with<T>(&self, act: impl FnOnce(&mut tcp::Socket<'static>) -> T) -> T {
        let done = act(self.end.borrow_mut().socket());
        self.bell.notify_one();
        done
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(|socket| {
            if socket.can_recv() {
                let length = socket.recv_slice(buffer.initialize_unfilled()).unwrap_or(0);
                buffer.advance(length);
                return Poll::Ready(Ok(()));
            }
            match socket.recv_slice(&mut []) {
                Ok(_) => {
                    socket.register_recv_waker(cx.waker());
                    Poll::Pending
                }
                Err(RecvError::Finished) => Poll::Ready(Ok(())),
                Err(RecvError::InvalidState) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        })
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|socket| match socket.send_slice(bytes) {
            Ok(0) if !bytes.is_empty() => {
                socket.register_send_waker(cx.waker());
                Poll::Pending
            }
            Ok(length) => Poll::Ready(Ok(length)),
            Err(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(tcp::Socket::close);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.with(tcp::Socket::close);
        self.end.borrow_mut().let_go = Some(Instant::now());
    }
}

/// Runs a connection, also for a moment after it was let go, as the kernel does.
async fn pump(end: Rc<RefCell<End>>, bell: Rc<Notify>, mut line: Line) {
    loop {
        let wait = {
            let mut end = end.borrow_mut();
            end.go_on().iter().for_each(|packet| line.send(packet));
            if end.is_over() {
                return;
            }
            end.patience()
        };
        tokio::select! {
            heard = line.hear() => match heard {
                Some(heard) => end.borrow_mut().hear(heard),
                None => return,
            },
            () = bell.notified() => {}
            () = sleep(wait) => {}
        }
    }
}

/// The probe's end of its connection.
struct End {
    interface: Interface,
    queue: Queue,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    began: Instant,
    is_unreachable: bool,
    let_go: Option<Instant>,
}

impl End {
    /// One that connects.
    fn of(line: &Line) -> io::Result<Self> {
        let mut queue = Queue { mtu: line.room().into(), ..Queue::default() };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = fastrand::u64(..);
        let own = IpAddress::from(line.own().ip());
        let mut interface = Interface::new(config, &mut queue, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // There is room for one.
            _ = addresses.push(IpCidr::new(own, 0));
        });
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket.set_tsval_generator(Some(milliseconds));
        let connecting = socket.connect(interface.context(), line.virt, line.own());
        connecting.map_err(|why| io::Error::other(format!("{why}")))?;
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Ok(Self {
            interface,
            queue,
            sockets,
            handle,
            began: Instant::now(),
            is_unreachable: false,
            let_go: None,
        })
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn now(&self) -> smoltcp::time::Instant {
        smoltcp::time::Instant::from_micros(
            i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX),
        )
    }

    fn poll_connected(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let is_unreachable = self.is_unreachable;
        let socket = self.socket();
        match socket.state() {
            State::Closed | State::TimeWait if is_unreachable => {
                Poll::Ready(Err(io::ErrorKind::HostUnreachable.into()))
            }
            State::Closed | State::TimeWait => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
            State::SynSent | State::SynReceived => {
                socket.register_send_waker(cx.waker());
                Poll::Pending
            }
            _ => Poll::Ready(Ok(())),
        }
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Packet(packet) => self.queue.came.push_back(packet),
            // What is said of a connection that is there, is not believed (RFC 5927).
            Heard::Unreachable if self.socket().state() == State::SynSent => {
                self.is_unreachable = true;
                self.socket().close();
            }
            Heard::Unreachable => {}
        }
    }

    /// Does what is due, and returns what is to be sent.
    fn go_on(&mut self) -> Vec<Vec<u8>> {
        if self.let_go.is_some_and(|since| since.elapsed() >= FAREWELL) {
            self.socket().abort();
        }
        let now = self.now();
        let _changed = self.interface.poll(now, &mut self.queue, &mut self.sockets);
        std::mem::take(&mut self.queue.goes)
    }

    fn is_over(&mut self) -> bool {
        self.let_go.is_some() && matches!(self.socket().state(), State::Closed | State::TimeWait)
    }

    /// So long nothing is due.
    fn patience(&mut self) -> Duration {
        let now = self.now();
        let due = self.interface.poll_delay(now, &self.sockets).map(Duration::from);
        let farewell = self.let_go.map(|since| FAREWELL.saturating_sub(since.elapsed()));
        due.into_iter().chain(farewell).min().unwrap_or(IDLE)
    }
}

fn buffer() -> tcp::SocketBuffer<'static> {
    tcp::SocketBuffer::new(vec![0; ROOM])
}

/// A clock that goes on over restarts: a server that still remembers a connection of these ports takes the next one by it
/// (RFC 7323 5.5).
fn milliseconds() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u32
}

/// Packets on their way into the stack and out of it.
#[derive(Default)]
struct Queue {
    came: VecDeque<Vec<u8>>,
    goes: Vec<Vec<u8>>,
    mtu: usize,
}

impl Device for Queue {
    type RxToken<'a> = Came;
    type TxToken<'a> = Goes<'a>;

    fn receive(&mut self, _now: smoltcp::time::Instant) -> Option<(Came, Goes<'_>)> {
        Some((Came(self.came.pop_front()?), Goes(&mut self.goes)))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Goes<'_>> {
        Some(Goes(&mut self.goes))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        // Of what comes from this machine the checksum is often left to a device that is not on the way.
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }
}

/// A packet that came.
struct Came(Vec<u8>);

impl RxToken for Came {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

/// Where a packet is put that goes.
struct Goes<'q>(&'q mut Vec<Vec<u8>>);

impl TxToken for Goes<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let written = write(&mut packet);
        self.0.push(packet);
        written
    }
}
