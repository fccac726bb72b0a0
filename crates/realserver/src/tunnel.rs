//! The tunnel end in the kernel: put on a device, found again, read.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapInfo, PerCpuArray};
use aya::programs::{ProgramError, Xdp, loaded_programs};
use ipnet::IpNet;
use xlvs_core::tunnel_end::Outcome;
use xlvs_core::wire::AddrV6;

use crate::netlink::Netlink;
use crate::plan::Device;
use crate::setting::TunnelSetup;

/// The tunnel end's program and maps. Empty when the crate was built without the object.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("XLVS_TUNNEL_END_OBJECT"));
/// The program's name, of which the kernel keeps no more than these fifteen letters.
pub const NAME: &str = "xlvs_tunnel_end";

/// A device with a tunnel end of ours on it.
pub fn is_ours(device: &Device) -> bool {
    device.program.is_some_and(|id| program_is_ours(id).unwrap_or(false))
}

fn program_is_ours(id: u32) -> Result<bool, ProgramError> {
    for info in loaded_programs() {
        let info = info?;
        if info.id() == id {
            return Ok(info.name_as_str() == Some(NAME));
        }
    }
    Ok(false)
}

/// Loads a tunnel end that is set up so, and puts it on the device, in the place of an older one.
pub fn attach(netlink: &mut Netlink, device: &Device, setup: &TunnelSetup) -> io::Result<()> {
    let mut ebpf = load(setup)?;
    let program = program(&mut ebpf)?;
    let fd = program.fd().map_err(io::Error::other)?.as_fd();
    // Native where the driver can (it may have no XDP, or not at this MTU), unless an older one of ours is there in the other mode.
    netlink.attach_xdp(device.index, fd, true).or_else(|_| netlink.attach_xdp(device.index, fd, false))
}

fn refused(why: ProgramError) -> io::Error {
    io::Error::other(format!(
        "the kernel refused the tunnel end: {why}; are you root, and does it have BPF (CONFIG_BPF_SYSCALL)?"
    ))
}

fn program(ebpf: &mut Ebpf) -> io::Result<&mut Xdp> {
    let program =
        ebpf.program_mut(NAME).ok_or_else(|| io::Error::other("the tunnel end's object has no program"))?;
    program.try_into().map_err(io::Error::other)
}

/// Loads a tunnel end that is set up so; it is on no device yet.
pub fn load(setup: &TunnelSetup) -> io::Result<Ebpf> {
    if OBJECT.is_empty() {
        return Err(io::Error::other(
            "this xlvs was built without the tunnel end's object; build it with `cargo xtask build`",
        ));
    }
    let mut ebpf =
        Ebpf::load(OBJECT).map_err(|why| io::Error::other(format!("load the tunnel end: {why}")))?;
    fill(&mut ebpf, setup).map_err(|why| io::Error::other(format!("set the tunnel end up: {why}")))?;
    program(&mut ebpf)?.load().map_err(refused)?;
    Ok(ebpf)
}

fn fill(ebpf: &mut Ebpf, setup: &TunnelSetup) -> Result<(), aya::maps::MapError> {
    let mut vips: HashMap<_, [u8; 16], u8> = map(ebpf, "VIPS")?.try_into()?;
    for vip in &setup.vips {
        vips.insert(mapped(*vip), 1, 0)?;
    }
    let mut directors: LpmTrie<_, [u8; 16], u8> = map(ebpf, "DIRECTORS")?.try_into()?;
    for director in &setup.directors {
        directors.insert(&key(*director), 1, 0)?;
    }
    let mut words: Array<_, [u16; 2]> = map(ebpf, "SETUP")?.try_into()?;
    words.set(0, [setup.gue_port.to_be(), u16::from(!setup.directors.is_empty())], 0)
}

fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Map, aya::maps::MapError> {
    ebpf.map_mut(name).ok_or_else(|| aya::maps::MapError::InvalidName { name: name.to_owned() })
}

/// Sixteen bytes of either family.
fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => AddrV6::mapped(v4.octets()).bytes(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn key(prefix: IpNet) -> Key<[u8; 16]> {
    let before = if prefix.addr().is_ipv4() { 96 } else { 0 };
    Key::new(before + u32::from(prefix.prefix_len()), mapped(prefix.network()))
}

/// How many packets fared how, by [`Outcome`]; `None` when there is no tunnel end of ours on the device.
pub fn counters(device: &Device) -> io::Result<Option<[u64; Outcome::COUNT]>> {
    let Some(id) = device.program else { return Ok(None) };
    let program = loaded_programs().flatten().find(|info| info.id() == id);
    let Some(program) = program.filter(|info| info.name_as_str() == Some(NAME)) else { return Ok(None) };
    for id in program.map_ids().map_err(io::Error::other)?.unwrap_or_default() {
        if MapInfo::from_id(id).map_err(io::Error::other)?.name_as_str() == Some("OUTCOMES") {
            return sums(MapData::from_id(id).map_err(io::Error::other)?).map(Some).map_err(io::Error::other);
        }
    }
    Ok(None)
}

fn sums(data: MapData) -> Result<[u64; Outcome::COUNT], aya::maps::MapError> {
    let counters = PerCpuArray::<_, u64>::try_from(Map::PerCpuArray(data))?;
    let mut sums = [0; Outcome::COUNT];
    for (outcome, sum) in (0u32..).zip(&mut sums) {
        *sum = counters.get(&outcome, 0)?.iter().sum();
    }
    Ok(sums)
}
