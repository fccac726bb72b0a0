//! Who answers ARP: whole frames, sent and seen on a host's device.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};
use xlvs_lab::Netns;

/// Answers may take this long.
const PATIENCE: Duration = Duration::from_millis(300);

/// An ARP packet of IPv4 over Ethernet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    pub is_reply: bool,
    pub sender_mac: [u8; 6],
    pub sender: Ipv4Addr,
    pub target: Ipv4Addr,
}

/// A device on which ARP is spoken and heard.
pub struct Ear {
    socket: OwnedFd,
    mac: [u8; 6],
}

impl Ear {
    /// Of a host's device.
    pub fn on(netns: &Netns, device: &str) -> Result<Self> {
        netns.run(|| {
            let kind = (AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_NONBLOCK);
            let socket = socket(kind.0, kind.1, kind.2, Some(SockProtocol::EthAll))?;
            let own = getifaddrs()?.filter(|own| own.interface_name == device);
            let links = own.filter_map(|own| own.address?.as_link_addr().copied());
            let link: LinkAddr = links.into_iter().next().with_context(|| format!("there is no {device}"))?;
            bind(socket.as_raw_fd(), &link)?;
            Ok(Self { socket, mac: link.addr().context("it has a MAC")? })
        })
    }

    /// Asks so many times who has an address. How often each MAC answered.
    pub fn who_has(
        &self,
        target: Ipv4Addr,
        asker: Ipv4Addr,
        times: usize,
    ) -> Result<BTreeMap<String, usize>> {
        self.heard()?;
        let mut answers = BTreeMap::new();
        let request = self.request(target, asker);
        for _ in 0..times {
            ensure!(send(self.socket.as_raw_fd(), &request, MsgFlags::empty())? == request.len());
            self.count(target, &mut answers)?;
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
            self.count(target, &mut answers)?;
        }
        Ok(answers)
    }

    fn count(&self, target: Ipv4Addr, answers: &mut BTreeMap<String, usize>) -> Result<()> {
        for arp in self.heard()?.into_iter().filter(|arp| arp.is_reply && arp.sender == target) {
            *answers.entry(text(arp.sender_mac)).or_default() += 1;
        }
        Ok(())
    }

    /// What has been heard since the last time.
    pub fn heard(&self) -> Result<Vec<Arp>> {
        let mut heard = Vec::new();
        let mut frame = [0; 2048];
        loop {
            match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Ok(length) => heard.extend(arp(&frame[..length])),
                Err(Errno::EAGAIN) => return Ok(heard),
                Err(why) => return Err(why).context("hear"),
            }
        }
    }

    fn request(&self, target: Ipv4Addr, asker: Ipv4Addr) -> Vec<u8> {
        let mut frame = [[0xff; 6], self.mac].concat();
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(self.mac.iter().chain(&asker.octets()).chain(&[0; 6]).chain(&target.octets()));
        frame
    }
}

fn arp(frame: &[u8]) -> Option<Arp> {
    if frame.get(12..14)? != [8, 6] {
        return None;
    }
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?));
    Some(Arp {
        is_reply: frame.get(21)? == &2,
        sender_mac: frame.get(22..28)?.try_into().ok()?,
        sender: address(28)?,
        target: address(38)?,
    })
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
