//! What programs hand over: fragments become packets again, long packets are cut, and what comes of it goes where it belongs.
//!
//! All decisions are the programs', which are asked about whole packets; all state is [`Errands`]'. Here are the ring, the
//! clock and the socket.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use nix::libc;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, sendto, socket};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};
use xlvs_core::errand::ErrandView;
use xlvs_datapath::fragments::{Done, Errands, HIGH_THRESH, Outgoing, Reassembler, TIMEOUT_V4, TIMEOUT_V6};
use xlvs_datapath::xdp::Ring;

use super::Daemon;

/// Errands that are done before others have their turn.
const AT_ONCE: usize = 64;

/// Errands that the ring has room for, and some more.
const WAITING: usize = 300;

/// Never ends.
pub async fn run(daemon: Rc<Daemon>) {
    match Runner::new(daemon) {
        Ok(runner) => runner.run().await,
        Err(why) => {
            tracing::error!(why = format!("{why:#}"), "fragments and packets that must be cut are dropped");
        }
    }
    std::future::pending().await
}

/// What the task has.
struct Runner {
    daemon: Rc<Daemon>,
    ring: AsyncFd<Ring>,
    wire: Wire,
    errands: Errands,
    began: Instant,
}

impl Runner {
    fn new(daemon: Rc<Daemon>) -> anyhow::Result<Self> {
        let ring = daemon.xdp.borrow_mut().take_errands().context("there is no ring of errands")?;
        // SAFETY: the ring owns its descriptor, which stays open and the same for as long as the ring lives.
        let mut ring = unsafe { AsyncFd::register(ring) }.context("wait for errands")?;
        // What waited for a daemon is too old by now.
        for _ in 0..WAITING {
            let _too_old = ring.get_mut().next();
        }
        let held = Reassembler::new(
            (
                seconds("/proc/sys/net/ipv4/ipfrag_time").unwrap_or(TIMEOUT_V4),
                seconds("/proc/sys/net/ipv6/ip6frag_time").unwrap_or(TIMEOUT_V6),
            ),
            HIGH_THRESH,
        );
        let errands = Errands::new(held, fastrand::u64(..));
        Ok(Self { daemon, ring, wire: Wire::open()?, errands, began: Instant::now() })
    }

    async fn run(mut self) {
        loop {
            let due = self.errands.deadline().map(|deadline| self.began + deadline);
            tokio::select! {
                ready = self.ring.readable_mut() => {
                    let Ok(mut ready) = ready else { return };
                    let mut done = 0;
                    while done < AT_ONCE
                        && let Some(record) = ready.get_inner_mut().next()
                    {
                        done += 1;
                        let Some(errand) = ErrandView::from_bytes(&record) else { continue };
                        let now = self.began.elapsed();
                        let result = self.errands.run(&errand, now, &*self.daemon.xdp.borrow());
                        settle(&self.daemon, &self.wire, result);
                    }
                    if done < AT_ONCE {
                        ready.clear_ready();
                    }
                }
                () = sleep_until(due.unwrap_or(self.began)), if due.is_some() => {
                    let result = self.errands.tick(self.began.elapsed(), &*self.daemon.xdp.borrow());
                    settle(&self.daemon, &self.wire, result);
                }
            }
            self.daemon.fragments.set(self.errands.tally());
            tokio::task::yield_now().await;
        }
    }
}

fn settle(daemon: &Daemon, wire: &Wire, done: Done) {
    for Outgoing { ifindex, frame } in done.sent {
        if let Err(why) = wire.send(ifindex, &frame) {
            tracing::debug!(%why, ifindex, "a frame is not sent");
        }
    }
    for Outgoing { ifindex, frame } in done.passed {
        if let Err(why) = daemon.xdp.borrow().give_back(ifindex, &frame) {
            tracing::debug!(%why, ifindex, "a fragment that is none of the director's does not reach the stack");
        }
    }
}

/// A setting of the kernel's, in seconds.
fn seconds(path: &str) -> Option<Duration> {
    fs::read_to_string(path).ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Sends frames as they are.
pub struct Wire {
    socket: OwnedFd,
}

impl Wire {
    /// Opens it.
    pub fn open() -> anyhow::Result<Self> {
        // Of no protocol: it receives nothing.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None);
        Ok(Self { socket: socket.context("open a packet socket")? })
    }

    /// Sends a frame by this interface.
    pub fn send(&self, ifindex: u32, frame: &[u8]) -> nix::Result<()> {
        sendto(self.socket.as_raw_fd(), frame, &link(0, ifindex), MsgFlags::empty()).map(drop)
    }
}

/// The address of an interface (0: of all), for packets of this ethertype.
pub fn link(ethertype: u16, ifindex: u32) -> LinkAddr {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: ifindex as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: it points to a whole address of that length, which is copied.
    let link = unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(length)) };
    link.expect("an address of this family")
}
