//! How a packet that is explained comes in, and how the host's routes would have it leave.

use std::cell::RefCell;
use std::net::IpAddr;

use nix::net::if_::if_nametoindex;
use xlvs_core::env;
use xlvs_core::vlan::Tags;
use xlvs_core::wire::ethertype;
use xlvs_datapath::nexthop::{self, Arrival, Mac, Question, Reason, Route, VlanDevice, lookup};
use xlvs_datapath::rehearsal::Routes;
use xlvs_datapath::xdp::Mode;

use super::Daemon;
use super::explain::interface;
use crate::explain::Vlan;

/// Bytes of both MACs: tags follow them.
const TAGS_AT: usize = 12;

/// The interface by which a packet comes in, and with which tags.
pub struct Came {
    /// One that the director is attached to.
    pub ingress: u32,
    tags: Tags,
}

impl Came {
    /// By this VLAN; where none is named, as packets of this client do that take the way back to it.
    pub fn of(daemon: &Daemon, client: IpAddr, vlan: Option<Vlan>) -> Result<Self, String> {
        let site = daemon.site.borrow();
        let attached: Vec<u32> =
            site.interfaces().iter().filter_map(|name| if_nametoindex(name.as_str()).ok()).collect();
        let devices = daemon.hops.vlan_devices();
        let hook = Hook { attached: &attached, sees_tags: daemon.options.mode() != Mode::Tc };
        match vlan {
            Some(vlan) => hook.by_vlan(vlan, &devices),
            None => hook.by_way(lookup(&Question::to(client)).ok().map(|route| route.ifindex), &devices),
        }
    }

    /// A frame with these tags.
    pub fn tagged(&self, mut frame: Vec<u8>) -> Vec<u8> {
        let tags = self.tags.0.to_be_bytes();
        let len = self.tags.count() * 4;
        frame.splice(TAGS_AT..TAGS_AT, tags.into_iter().take(len));
        frame
    }
}

/// Where the director looks at frames.
struct Hook<'a> {
    attached: &'a [u32],
    /// Else the kernel has taken tags off before.
    sees_tags: bool,
}

impl Hook<'_> {
    fn by_vlan(&self, vlan: Vlan, devices: &[VlanDevice]) -> Result<Came, String> {
        let mut named = devices.iter().filter(|device| is(vlan, device.tags));
        match named.find_map(|device| self.by_device(device)) {
            Some(came) => Ok(came),
            None if self.sees_tags => {
                let tags = Tags::one(ethertype::VLAN, vlan.outer);
                let inside = vlan.inner.and_then(|inner| tags.with_inside(ethertype::VLAN, inner));
                Ok(Came { ingress: self.first()?, tags: inside.unwrap_or(tags) })
            }
            None => Err("at the tc hook frames with tags come by their VLAN device: the director is not attached to one \
                         with these"
                .to_owned()),
        }
    }

    fn by_way(&self, back: Option<u32>, devices: &[VlanDevice]) -> Result<Came, String> {
        let back = back.unwrap_or(0);
        if self.attached.contains(&back) {
            return Ok(Came { ingress: back, tags: Tags(0) });
        }
        let device = devices.iter().find(|device| device.ifindex == back);
        match device.and_then(|device| self.by_device(device)) {
            Some(came) => Ok(came),
            None => Ok(Came { ingress: self.first()?, tags: Tags(0) }),
        }
    }

    fn by_device(&self, device: &VlanDevice) -> Option<Came> {
        if self.attached.contains(&device.ifindex) {
            return Some(Came { ingress: device.ifindex, tags: Tags(0) });
        }
        let is_seen = self.sees_tags && self.attached.contains(&device.lower);
        is_seen.then_some(Came { ingress: device.lower, tags: device.tags })
    }

    fn first(&self) -> Result<u32, String> {
        self.attached.first().copied().ok_or_else(|| "none of the director's interfaces is there".to_owned())
    }
}

fn is(vlan: Vlan, tags: Tags) -> bool {
    let id = |tag: u64| tag as u16 & 0xfff;
    let inner = (tags.count() == 2).then_some(id(tags.0));
    (vlan.outer, vlan.inner) == (id(tags.0 >> 32), inner)
}

/// The host's routes, asked when a packet asks for them.
#[derive(Default)]
pub struct Asking(RefCell<Option<String>>);

impl Asking {
    /// The way that was asked for, in a sentence.
    pub fn told(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    fn tell(&self, to: IpAddr, found: Result<(Route, Option<Mac>), Reason>) {
        let words = match found {
            Ok((route, Some(mac))) => {
                format!("{} lladdr {}", route.words(to, &interface(route.ifindex)), nexthop::colons(mac))
            }
            Ok((route, None)) => {
                format!("{}: its neighbour is not known", route.words(to, &interface(route.ifindex)))
            }
            Err(reason) => format!("{to}: {reason}"),
        };
        *self.0.borrow_mut() = Some(words);
    }
}

impl Routes for Asking {
    fn route(&self, ifindex: u32, from: IpAddr, to: IpAddr) -> env::Route {
        let found = forwarded(&Question { to, from: Some(Arrival { addr: from, ifindex }), mark: 0 })
            .map(|route| (route, nexthop::neighbour(route.neighbour_towards(to))));
        self.tell(to, found);
        match found {
            Ok((route, Some(to))) => env::Route::Via { ifindex: route.ifindex, from: [0; 6], to },
            Ok((_, None)) => env::Route::NoNeighbour,
            Err(_) => env::Route::None,
        }
    }

    fn leads_elsewhere(&self, ifindex: u32, from: IpAddr, to: IpAddr, mark: u32) -> bool {
        let found = forwarded(&Question { to, from: Some(Arrival { addr: from, ifindex }), mark });
        // What is forbidden leads elsewhere too, though it does not get there.
        matches!(found, Ok(_) | Err(Reason::Blocked | Reason::Encapsulated))
    }
}

/// The way of a packet that is forwarded. rtnetlink refuses sources that `bpf_fib_lookup` does not mind: a VIP, of which a reply
/// comes and which is the director's own, and who should have come by another interface (`rp_filter`). Of such the way is asked as
/// if the director sent the packet.
fn forwarded(question: &Question) -> Result<Route, Reason> {
    let found = lookup(question);
    match found {
        Err(Reason::Blocked | Reason::LookUpFailed { .. }) if question.from.is_some_and(is_forwarded) => {
            lookup(&Question { from: None, ..*question })
        }
        _ => found,
    }
}

/// Does the host forward what comes so?
fn is_forwarded(arrival: Arrival) -> bool {
    let family = if arrival.addr.is_ipv4() { "ipv4" } else { "ipv6" };
    let name = interface(arrival.ifindex);
    std::fs::read_to_string(format!("/proc/sys/net/{family}/conf/{name}/forwarding"))
        .is_ok_and(|switch| switch.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICES: [VlanDevice; 2] = [
        VlanDevice { ifindex: 7, lower: 2, tags: Tags::one(0x8100, 100) },
        VlanDevice { ifindex: 8, lower: 3, tags: Tags::one(0x88a8, 5).with_inside(0x8100, 6).unwrap() },
    ];

    fn vlan(text: &str) -> Vlan {
        text.parse().unwrap()
    }

    fn xdp(attached: &[u32]) -> Hook<'_> {
        Hook { attached, sees_tags: true }
    }

    #[test]
    fn tags_are_those_of_the_device_below_which_the_director_is() {
        let came = xdp(&[2, 3]).by_vlan(vlan("5.6"), &DEVICES).unwrap();
        assert_eq!((came.ingress, came.tags), (3, DEVICES[1].tags));
        let frame = came.tagged(vec![1; 14]);
        assert_eq!(frame[12..22], [0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 1, 1]);
        // Nobody takes these: they are shown as they would come.
        let came = xdp(&[2]).by_vlan(vlan("5"), &DEVICES).unwrap();
        assert_eq!((came.ingress, came.tags), (2, Tags::one(0x8100, 5)));
    }

    #[test]
    fn without_a_word_a_packet_comes_by_the_way_back() {
        let tagged = xdp(&[3, 2]).by_way(Some(7), &DEVICES).unwrap();
        assert_eq!((tagged.ingress, tagged.tags), (2, DEVICES[0].tags));
        let plain = xdp(&[3, 2]).by_way(Some(2), &DEVICES).unwrap();
        assert_eq!((plain.ingress, plain.tags), (2, Tags(0)));
        let elsewhere = xdp(&[3, 2]).by_way(Some(9), &DEVICES).unwrap();
        assert_eq!((elsewhere.ingress, elsewhere.tags), (3, Tags(0)));
        assert!(xdp(&[]).by_way(None, &DEVICES).is_err());
    }

    #[test]
    fn at_the_tc_hook_tags_are_off_already() {
        let hook = Hook { attached: &[7], sees_tags: false };
        let came = hook.by_vlan(vlan("100"), &DEVICES).unwrap();
        assert_eq!((came.ingress, came.tags), (7, Tags(0)));
        assert!(Hook { attached: &[2], sees_tags: false }.by_vlan(vlan("100"), &DEVICES).is_err());
    }
}
