//! The two ends of a site: sockets that send and see whole frames.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvmsg, send, socket,
};

use super::site::Site;
use super::{Seen, Side};
use crate::netns::Netns;

/// As large as any frame here.
const FRAME: usize = 65_536;
/// What a packet socket says of a frame that it sent itself: `PACKET_OUTGOING`.
const OUTGOING: u8 = 4;

/// See the module.
pub(super) struct Ends {
    client: OwnedFd,
    server: OwnedFd,
}

impl Ends {
    /// Opens both.
    pub(super) fn open(site: &Site) -> Result<Self> {
        Ok(Self { client: end(&site.client, "c0")?, server: end(&site.server, "s0")? })
    }

    /// Puts a frame on the wire.
    pub(super) fn send(&self, side: Side, frame: &[u8]) -> Result<()> {
        let end = self.end(side).as_raw_fd();
        send(end, frame, MsgFlags::empty()).with_context(|| format!("send {} bytes", frame.len()))?;
        Ok(())
    }

    /// What arrives within this time.
    pub(super) fn seen_within(&self, time: Duration) -> Result<Vec<Seen>> {
        let deadline = Instant::now() + time;
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(seen);
            }
            // A started millisecond is waited for to its end.
            let patience = PollTimeout::try_from(left + Duration::from_millis(1))?;
            let ends = [&self.client, &self.server];
            let mut ends = ends.map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN));
            poll(&mut ends, patience).context("poll both ends")?;
            for side in [Side::Client, Side::Server] {
                while let Some(frame) = self.receive(side)? {
                    seen.extend((!is_noise(&frame)).then_some(Seen { at: side, frame }));
                }
            }
        }
    }

    /// Nobody cares for what has come so far.
    pub(super) fn forget(&self) -> Result<()> {
        for side in [Side::Client, Side::Server] {
            while self.receive(side)?.is_some() {}
        }
        Ok(())
    }

    fn receive(&self, side: Side) -> Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; FRAME];
        loop {
            let mut into = [IoSliceMut::new(&mut buffer)];
            match recvmsg::<LinkAddr>(self.end(side).as_raw_fd(), &mut into, None, MsgFlags::MSG_DONTWAIT) {
                Ok(message) if message.address.is_some_and(|from| from.pkttype() == OUTGOING) => {}
                Ok(message) => {
                    let length = message.bytes;
                    buffer.truncate(length);
                    return Ok(Some(buffer));
                }
                Err(Errno::EAGAIN) => return Ok(None),
                Err(why) => return Err(why).context("receive a frame"),
            }
        }
    }

    fn end(&self, side: Side) -> &OwnedFd {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }
}

fn end(netns: &Netns, device: &str) -> Result<OwnedFd> {
    netns.run(|| {
        let end =
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, Some(SockProtocol::EthAll))
                .context("open a packet socket")?;
        let own = getifaddrs().context("list interfaces")?.filter(|own| own.interface_name == device);
        let link = own.filter_map(|own| own.address?.as_link_addr().copied()).next();
        bind(end.as_raw_fd(), &link.with_context(|| format!("there is no {device}"))?)
            .with_context(|| format!("bind to {device}"))?;
        Ok(end)
    })
}

/// What hosts say of themselves on any link: neighbour discovery and multicast listeners, and what is neither IP nor ARP.
fn is_noise(frame: &[u8]) -> bool {
    const HOP_BY_HOP: u8 = 0;
    const ICMP_V6: u8 = 58;
    match frame.get(12..14) {
        Some([0x86, 0xdd]) => {
            let at = match frame.get(20) {
                Some(&ICMP_V6) => 54,
                Some(&HOP_BY_HOP) => 62,
                _ => return false,
            };
            matches!(frame.get(at), Some(130..=136 | 143))
        }
        Some([0x08, 0x00 | 0x06]) => false,
        _ => true,
    }
}
