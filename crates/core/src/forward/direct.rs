//! Direct routing: the packet keeps its addresses; only the frame's do not.

use super::lower_ttl;
use crate::checksum::Update;
use crate::packet::Packet;
use crate::parse::L3;
use crate::verdict::DropReason;
use crate::wire::Ipv4;

/// Lowers the time to live by one, as IPVS does in this method too, and changes nothing else of the packet.
#[inline(always)]
pub fn to_server<P: Packet>(packet: &mut P) -> Result<(), DropReason> {
    let Some(ip) = packet.header_mut::<Ipv4>(L3) else { return Err(DropReason::Malformed) };
    lower_ttl(ip, Update::NONE);
    Ok(())
}
