//! The host that this process runs on.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::lifecycle::Host;
use crate::netlink::Netlink;
use crate::plan::{Device, Sight, conf};
use crate::setting::{Found, Setting, TunnelSetup};
use crate::tunnel;

/// IPv6 knows no metric 0: told none it takes 1024, and a default route that a router announced has that, too.
const METRIC_V4: u32 = 0;
const METRIC_V6: u32 = 1;

/// Parameters that plans and findings look at.
const WATCHED: [&str; 3] = ["arp_ignore", "arp_announce", "rp_filter"];

/// See the module. Everything happens in the network namespace of the thread that opened it.
pub struct Kernel {
    netlink: Netlink,
    /// The setup that a tunnel end was last given, as the state file has it: the kernel tells only that it is ours.
    setups: Vec<TunnelSetup>,
}

impl Kernel {
    /// Opens it; of tunnel ends that are in place it is told how they were set up.
    pub fn open(setups: Vec<TunnelSetup>) -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open()?, setups })
    }

    /// Its rtnetlink socket, for further questions.
    pub fn netlink(&mut self) -> &mut Netlink {
        &mut self.netlink
    }

    /// What can be seen.
    pub fn sight(&mut self) -> io::Result<Sight> {
        let devices = self.netlink.devices()?;
        let addresses = self.netlink.addresses()?;
        let places = ["all"].into_iter().chain(devices.iter().map(|device| device.name.as_str()));
        let keys = places.flat_map(|place| WATCHED.map(|name| conf(place, name)));
        let sysctls = keys.filter_map(|key| Some((key.clone(), read_sysctl(&key).ok()??))).collect();
        Ok(Sight { devices, addresses, sysctls })
    }

    /// A kernel parameter by its path below `/proc/sys`. `None`: there is none of that name.
    pub fn sysctl(&self, key: &str) -> io::Result<Option<String>> {
        read_sysctl(key)
    }

    fn device(&mut self, name: &str) -> io::Result<Option<Device>> {
        Ok(self.netlink.devices()?.into_iter().find(|device| device.name == name))
    }

    fn index(&mut self, name: &str) -> io::Result<u32> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, format!("there is no device {name}"));
        self.device(name)?.map(|device| device.index).ok_or_else(gone)
    }

    fn look_at_route(&mut self, to: IpNet, gateway: IpAddr) -> io::Result<Found> {
        let row = self.netlink.routes_to(to)?.into_iter().find(|row| row.metric == metric(gateway));
        Ok(match row {
            None => Found::Nothing,
            Some(row) if row.gateway == Some(gateway) => Found::Same,
            Some(row) => Found::OtherRoute(row.raw),
        })
    }

    fn look_at_tunnel_end(&mut self, setup: &TunnelSetup) -> io::Result<Found> {
        let Some(device) = self.device(&setup.device)? else { return Ok(Found::Nothing) };
        Ok(match device.program {
            None => Found::Nothing,
            Some(_) if !tunnel::is_ours(&device) => Found::Foreign,
            Some(_) if self.setups.contains(setup) => Found::Same,
            Some(_) => Found::OtherSetup,
        })
    }

    fn make_tunnel_end(&mut self, setup: &TunnelSetup) -> io::Result<()> {
        let device = self.device(&setup.device)?;
        let device = device.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        tunnel::attach(&mut self.netlink, &device, setup)?;
        self.setups.retain(|known| known.device != setup.device);
        self.setups.push(setup.clone());
        Ok(())
    }
}

fn metric(gateway: IpAddr) -> u32 {
    if gateway.is_ipv4() { METRIC_V4 } else { METRIC_V6 }
}

fn path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key)
}

/// `None`: there is no such parameter.
fn read_sysctl(key: &str) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path(key)) {
        Ok(value) => Ok(Some(value.trim().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

impl Host for Kernel {
    fn look(&mut self, setting: &Setting) -> io::Result<Found> {
        let same_if = |there| if there { Found::Same } else { Found::Nothing };
        match setting {
            Setting::Sysctl { key, .. } => Ok(read_sysctl(key)?.map_or(Found::Nothing, Found::Value)),
            Setting::Address { device, address } => {
                let mut held = self.netlink.addresses()?.into_iter();
                let wanted = IpNet::from(*address);
                Ok(same_if(held.any(|held| held.device == *device && held.address == wanted)))
            }
            Setting::LinkUp { device } => {
                Ok(same_if(self.device(device)?.is_some_and(|device| device.is_up)))
            }
            Setting::Route { to, gateway } => self.look_at_route(*to, *gateway),
            Setting::TunnelEnd(setup) => self.look_at_tunnel_end(setup),
        }
    }

    fn make(&mut self, setting: &Setting) -> io::Result<()> {
        match setting {
            Setting::Sysctl { key, value } => std::fs::write(path(key), value),
            Setting::Address { device, address } => {
                let index = self.index(device)?;
                self.netlink.add_address(index, *address)
            }
            Setting::LinkUp { device } => {
                let index = self.index(device)?;
                self.netlink.set_up(index, true)
            }
            Setting::Route { to, gateway } => self.netlink.replace_route(*to, *gateway, metric(*gateway)),
            Setting::TunnelEnd(setup) => self.make_tunnel_end(setup),
        }
    }

    fn put_back(&mut self, setting: &Setting, before: &Found) -> io::Result<()> {
        match (setting, before) {
            (Setting::Sysctl { key, .. }, Found::Value(value)) => std::fs::write(path(key), value),
            (Setting::Sysctl { .. }, _) => Ok(()),
            (Setting::Address { device, address }, _) => {
                let index = self.index(device)?;
                self.netlink.delete_address(index, *address)
            }
            (Setting::LinkUp { device }, _) => {
                let index = self.index(device)?;
                self.netlink.set_up(index, false)
            }
            (Setting::Route { .. }, Found::OtherRoute(raw)) => self.netlink.restore_route(raw),
            (Setting::Route { to, gateway }, _) => self.netlink.delete_route(*to, *gateway, metric(*gateway)),
            (Setting::TunnelEnd(setup), _) => {
                let index = self.index(&setup.device)?;
                self.netlink.detach_xdp(index)?;
                self.setups.retain(|known| known.device != setup.device);
                Ok(())
            }
        }
    }
}
