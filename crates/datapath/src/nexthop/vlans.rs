//! VLAN devices: which tags frames have that leave by one, and on which interface.

use xlvs_core::vlan::Tags;

use super::{Link, mirror::Mirror};

/// What a VLAN device says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Above {
    /// Number of the interface that it was made on, which may be a VLAN device too.
    pub lower: u32,
    /// EtherType of its tag, host order.
    pub kind: u16,
    /// Identifier in its tag.
    pub id: u16,
}

/// A VLAN device as the data plane needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlanDevice {
    /// Its number.
    pub ifindex: u32,
    /// Number of the interface below it that is no VLAN device.
    pub lower: u32,
    /// The tags of its frames there.
    pub tags: Tags,
}

/// All devices whose frames have one or two tags. Others are not the data plane's.
pub(super) fn devices(links: &Mirror<u32, Link>) -> Vec<VlanDevice> {
    links.iter().filter_map(|(_, link)| device(links, link)).collect()
}

fn device(links: &Mirror<u32, Link>, link: &Link) -> Option<VlanDevice> {
    let above = link.vlan?;
    let below = links.get(&above.lower)?;
    let Some(outer) = below.vlan else {
        let tags = Tags::one(above.kind, above.id);
        return Some(VlanDevice { ifindex: link.ifindex, lower: above.lower, tags });
    };
    if links.get(&outer.lower)?.vlan.is_some() {
        return None;
    }
    let tags = Tags::one(outer.kind, outer.id).with_inside(above.kind, above.id)?;
    Some(VlanDevice { ifindex: link.ifindex, lower: outer.lower, tags })
}
