//! Who answers ARP for an address on a device.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

/// Answers may take this long.
const PATIENCE: Duration = Duration::from_millis(400);
/// Each question is asked so often: one may be lost.
const TIMES: usize = 2;
/// Between two looks at what has come.
const PAUSE: Duration = Duration::from_millis(5);

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Who answers for each of these addresses on a device. This host hears nothing of itself.
///
/// The questions name no sender (RFC 5227, "probes"), so that nobody learns anything from them.
pub fn who_has(device: &str, targets: &[Ipv4Addr]) -> io::Result<BTreeMap<Ipv4Addr, BTreeSet<Mac>>> {
    let (link, mac) = link(device)?;
    let socket = frames_of(Some(&link))?;
    let mut answers = BTreeMap::<_, BTreeSet<_>>::new();
    for _ in 0..TIMES {
        for target in targets {
            send(socket.as_raw_fd(), &question(mac, *target), MsgFlags::empty())?;
        }
        let deadline = Instant::now() + PATIENCE / TIMES as u32;
        while Instant::now() < deadline {
            for frame in received(&socket)? {
                let Some((sender, mac)) = answer(&frame) else { continue };
                if targets.contains(&sender) {
                    answers.entry(sender).or_default().insert(mac);
                }
            }
            std::thread::sleep(PAUSE);
        }
    }
    Ok(answers)
}

/// A socket that sees whole frames, of one device or of all. It does not wait.
pub(crate) fn frames_of(link: Option<&LinkAddr>) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, Some(SockProtocol::EthAll))?;
    if let Some(link) = link {
        bind(socket.as_raw_fd(), link)?;
    }
    Ok(socket)
}

/// What has come since the last time.
pub(crate) fn received(socket: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => frames.push(buffer.get(..length).unwrap_or_default().to_vec()),
            Err(Errno::EAGAIN) => return Ok(frames),
            Err(why) => return Err(why.into()),
        }
    }
}

/// A device's address as sockets name it, and its MAC.
pub(crate) fn link(device: &str) -> io::Result<(LinkAddr, Mac)> {
    let own = getifaddrs()?.filter(|own| own.interface_name == device);
    let link = own.filter_map(|own| own.address?.as_link_addr().copied()).next();
    let found = link.and_then(|link| Some((link, Mac(link.addr()?))));
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{device} has no MAC")))
}

fn question(mac: Mac, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = [[0xff; 6], mac.0].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac.0.iter().chain(&[0; 4]).chain(&[0; 6]).chain(&target.octets()));
    frame
}

/// Who has which address, if the frame says so.
fn answer(frame: &[u8]) -> Option<(Ipv4Addr, Mac)> {
    const REPLY_OF_IPV4: [u8; 10] = [8, 6, 0, 1, 8, 0, 6, 4, 0, 2];
    if frame.get(12..22)? != REPLY_OF_IPV4 {
        return None;
    }
    let mac = Mac(frame.get(22..28)?.try_into().ok()?);
    let sender: [u8; 4] = frame.get(28..32)?.try_into().ok()?;
    Some((sender.into(), mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_of_ipv4_is_one() {
        let mac = Mac([2, 0, 0, 0, 0, 0xfe]);
        let mut frame = question(mac, [10, 0, 0, 100].into());
        assert_eq!((frame.len(), answer(&frame)), (42, None));
        frame[21] = 2;
        assert_eq!(answer(&frame), Some(([0; 4].into(), mac)));
        assert_eq!(mac.to_string(), "02:00:00:00:00:fe");
        frame.truncate(31);
        assert_eq!(answer(&frame), None);
    }
}
