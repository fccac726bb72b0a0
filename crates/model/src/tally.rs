//! What is asked of all services together, counted as they come and go: nobody has to look through them.

use std::collections::HashMap;
use std::net::IpAddr;

use xlvs_core::persist;

use crate::spec::{Protocol, ServiceKey, ServiceSpec};

/// FTP's port, of its commands.
const FTP: u16 = u16::from_be_bytes(persist::FTP);

/// How many services there are of which kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    vips: HashMap<IpAddr, usize>,
    of_all_ports: usize,
    of_ftp: usize,
    with_mss: usize,
}

impl Tally {
    /// Is this the address of a service?
    pub fn is_vip(&self, addr: &IpAddr) -> bool {
        self.vips.contains_key(addr)
    }

    /// Is there a service for all ports of an address?
    pub fn serves_all_ports(&self) -> bool {
        self.of_all_ports != 0
    }

    /// Is there one of FTP?
    pub fn serves_ftp(&self) -> bool {
        self.of_ftp != 0
    }

    /// Has one a say in how long segments are?
    pub fn has_mss(&self) -> bool {
        self.with_mss != 0
    }

    pub(crate) fn add(&mut self, spec: &ServiceSpec) {
        if let ServiceKey::Address { addr, .. } = spec.key {
            *self.vips.entry(addr).or_default() += 1;
        }
        for (count, is) in self.kinds(spec) {
            *count += usize::from(is);
        }
    }

    /// One that was added goes.
    pub(crate) fn remove(&mut self, spec: &ServiceSpec) {
        if let ServiceKey::Address { addr, .. } = spec.key
            && let Some(count) = self.vips.get_mut(&addr)
        {
            *count -= 1;
            if *count == 0 {
                self.vips.remove(&addr);
            }
        }
        for (count, was) in self.kinds(spec) {
            *count -= usize::from(was);
        }
    }

    /// The counts, and whether a service is of each kind.
    fn kinds(&mut self, spec: &ServiceSpec) -> [(&mut usize, bool); 3] {
        let (all_ports, ftp) = match spec.key {
            ServiceKey::Address { protocol, port, .. } => {
                (port == 0, protocol == Protocol::Tcp && port == FTP)
            }
            ServiceKey::Mark { .. } => (false, false),
        };
        [
            (&mut self.of_all_ports, all_ports),
            (&mut self.of_ftp, ftp),
            (&mut self.with_mss, spec.mss.is_some()),
        ]
    }
}
