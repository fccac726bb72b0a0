//! The end of tunnels whose packets come in fragments: the stack puts them together, which an XDP program cannot, and a raw socket
//! unpacks them.
//!
//! Only IP in IP of one family, for servers whose kernel has no tunnels.

use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::libc::{IPPROTO_IPIP, IPPROTO_IPV6, IPPROTO_RAW, SOCK_RAW};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Netns;
use crate::topology::Lab;

/// How soon a dropped end notices that it is.
const GLANCE: Duration = Duration::from_millis(50);

/// Unpacks until dropped.
pub struct TunnelEnd {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl TunnelEnd {
    /// Starts one on every real server of a lab.
    pub fn on_all(lab: &Lab) -> Result<Vec<TunnelEnd>> {
        lab.servers.iter().map(|server| TunnelEnd::start(&server.netns)).collect()
    }

    fn start(netns: &Netns) -> Result<TunnelEnd> {
        let is_over = Arc::new(AtomicBool::new(false));
        let open = |domain, protocol| netns.run(|| Ways::open(domain, protocol));
        let ways = [open(Domain::IPV4, IPPROTO_IPIP), open(Domain::IPV6, IPPROTO_IPV6)];
        let mut threads = Vec::new();
        for ways in ways {
            let ways = ways.with_context(|| format!("open raw sockets in {}", netns.name()))?;
            let is_over = Arc::clone(&is_over);
            threads.push(std::thread::spawn(move || ways.unpack_until(&is_over)));
        }
        Ok(TunnelEnd { is_over, threads })
    }
}

impl Drop for TunnelEnd {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// Where tunnelled packets of a family come from, and where what was inside goes.
struct Ways {
    outside: Socket,
    inside: Socket,
}

impl Ways {
    fn open(domain: Domain, protocol: i32) -> io::Result<Ways> {
        let raw = |protocol| Socket::new(domain, Type::from(SOCK_RAW), Some(Protocol::from(protocol)));
        let (outside, inside) = (raw(protocol)?, raw(IPPROTO_RAW)?);
        outside.set_read_timeout(Some(GLANCE))?;
        Ok(Ways { outside, inside })
    }

    fn unpack_until(mut self, is_over: &AtomicBool) {
        let mut packet = vec![0; 1 << 16];
        while !is_over.load(Ordering::Relaxed) {
            match self.outside.read(&mut packet) {
                Ok(length) => self.deliver(&packet[..length]),
                Err(why) if why.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    /// Sends what is inside to ourselves. Of IPv4 the outer header is read too.
    fn deliver(&self, packet: &[u8]) {
        let outer = if packet[0] >> 4 == 4 && packet.get(9) == Some(&(IPPROTO_IPIP as u8)) { 20 } else { 0 };
        let inner = &packet[outer..];
        let to = match inner.first().map(|first| first >> 4) {
            Some(4) => {
                inner.get(16..20).and_then(|to| Some(Ipv4Addr::from(<[u8; 4]>::try_from(to).ok()?).into()))
            }
            _ => inner.get(24..40).and_then(|to| Some(Ipv6Addr::from(<[u8; 16]>::try_from(to).ok()?).into())),
        };
        if let Some(to) = to {
            // Who waits for the packet will say that it did not come.
            self.inside.send_to(inner, &SocketAddr::new(to, 0).into()).ok();
        }
    }
}
