//! The programs of an object, of either hook: loaded over the pinned maps, linked to each other, and put in the place of others.

use std::fs;
use std::path::Path;

use aya::maps::ProgramArray;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::SchedClassifierLink;
use aya::programs::xdp::XdpLink;
use aya::programs::{Program, ProgramError, ProgramFd};
use aya::{Ebpf, EbpfLoader};
use xlvs_core::conn::LANES;
use xlvs_core::conn::word::Tick;
use xlvs_core::director::Stage;
use xlvs_core::service::BLOCK;
use xlvs_core::ways;

use crate::tables::Sizes;
use crate::xdp::{Pins, XdpError, explain, file_error};

/// The program that is attached.
pub const DIRECTOR: &str = "xlvs_director";

/// The programs of the stages after the first.
pub const STAGES: [(Stage, &str); Stage::COUNT as usize] = [
    (Stage::ReplyV4, "xlvs_reply_v4"),
    (Stage::RequestV4, "xlvs_request_v4"),
    (Stage::KnownV6, "xlvs_known_v6"),
    (Stage::ReplyV6, "xlvs_reply_v6"),
    (Stage::RequestV6, "xlvs_request_v6"),
    (Stage::RelatedV4, "xlvs_related_v4"),
    (Stage::RelatedV6, "xlvs_related_v6"),
    (Stage::HearsayV4, "xlvs_hearsay_v4"),
    (Stage::HearsayV6, "xlvs_hearsay_v6"),
    (Stage::Fragments, "xlvs_fragments"),
    (Stage::Unusual, "xlvs_unusual"),
];

/// Reads an object, over the maps that are pinned there or will be.
pub fn read(object: &[u8], pins: &Pins, sizes: &Sizes) -> Result<Ebpf, XdpError> {
    if object.is_empty() {
        return Err(XdpError::NoObject);
    }
    let service_buckets = sizes.service_buckets();
    let ticks = ticks_in_2_24_jiffies();
    let mut loader = EbpfLoader::new();
    loader
        .default_map_pin_directory(pins.maps())
        .map_max_entries("CONNS_V4", sizes.conns)
        .map_max_entries("REPLIES_V4", sizes.replies)
        .map_max_entries("SERVICES_V4", service_buckets)
        .map_max_entries("CONNS_V6", sizes.conns_v6)
        .map_max_entries("REPLIES_V6", sizes.conns_v6)
        .map_max_entries("SERVICES_V6", service_buckets)
        .map_max_entries("HANDED", sizes.cpus)
        .map_max_entries("WAYS", sizes.cpus * ways::MOST)
        .map_max_entries("AFFINITY", sizes.affinity)
        .map_max_entries("SETS", sizes.affinity * LANES as u32)
        .map_max_entries("CHOICES", sizes.choices)
        .map_max_entries("SERVICES", sizes.services)
        .map_max_entries("BLOCKS", sizes.blocks)
        .map_max_entries("SERVERS", sizes.blocks * BLOCK as u32)
        .map_max_entries("STATS", sizes.stats * sizes.cpus)
        .map_max_entries("COUNTERS", sizes.cpus)
        .override_global("CONNS_V4_BUCKETS", &sizes.conns, true)
        .override_global("REPLIES_V4_BUCKETS", &sizes.replies, true)
        .override_global("SERVICES_V4_BUCKETS", &service_buckets, true)
        .override_global("CONNS_V6_BUCKETS", &sizes.conns_v6, true)
        .override_global("REPLIES_V6_BUCKETS", &sizes.conns_v6, true)
        .override_global("SERVICES_V6_BUCKETS", &service_buckets, true)
        .override_global("AFFINITY_BUCKETS", &sizes.affinity, true)
        .override_global("STATS_PER_CPU", &sizes.stats, true)
        .override_global("TICKS_IN_2_24_JIFFIES", &ticks, true);
    loader.load(object).map_err(|e| XdpError::Load(explain(&e)))
}

/// Quarter seconds in 2^24 jiffies. The resolution of the coarse clocks is one jiffy (`ktime_get_coarse`).
fn ticks_in_2_24_jiffies() -> u64 {
    let jiffy = nix::time::clock_getres(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)
        .map_or(4_000_000, |t| t.tv_nsec() as u64)
        .max(1);
    let hz = (1_000_000_000 + jiffy / 2) / jiffy;
    ((u64::from(Tick::PER_SECOND) << 24) + hz / 2) / hz
}

/// Has the kernel load the programs of the stages, and these.
pub fn load_all(ebpf: &mut Ebpf, names: &[&str]) -> Result<(), XdpError> {
    load(ebpf, &STAGES.map(|(_, name)| name))?;
    load(ebpf, names)
}

/// Has the kernel load these programs.
pub fn load(ebpf: &mut Ebpf, names: &[&str]) -> Result<(), XdpError> {
    for name in names {
        let loaded = match ebpf.program_mut(name) {
            Some(Program::Xdp(program)) => program.load(),
            Some(Program::SchedClassifier(program)) => program.load(),
            _ => return Err(missing(name)),
        };
        loaded.map_err(|e| XdpError::Load(format!("{name}: {}", explain(&e))))?;
    }
    Ok(())
}

/// Puts the programs of the later stages into the array where the director calls them. The array is pinned, since the kernel empties one
/// that nobody holds but programs; an older director calls the new programs until it is replaced too, over the same tables.
pub fn link_stages(ebpf: &mut Ebpf, array: &str) -> Result<(), XdpError> {
    let no_array = || XdpError::Load(format!("the object has no program array {array}"));
    let mut array =
        ProgramArray::try_from(ebpf.take_map(array).ok_or_else(no_array)?).map_err(|_| no_array())?;
    for (stage, name) in STAGES {
        array.set(stage as u32, fd(ebpf, name)?, 0).map_err(|e| XdpError::Load(explain(&e)))?;
    }
    Ok(())
}

/// A program that is loaded.
pub fn fd<'e>(ebpf: &'e Ebpf, name: &str) -> Result<&'e ProgramFd, XdpError> {
    let program = ebpf.program(name).ok_or_else(|| missing(name))?;
    program.fd().map_err(|e| XdpError::Load(explain(&e)))
}

/// Puts an object's program into a pinned link, in one step. `false`: the link is one of the other hook, or dead (its interface was deleted)
/// and was removed.
pub fn put_into(ebpf: &mut Ebpf, name: &str, path: &Path) -> Result<bool, XdpError> {
    let link = match PinnedLink::from_pin(path) {
        Ok(link) => FdLink::from(link),
        Err(LinkError::SyscallError(e)) => return Err(file_error(path)(e.io_error)),
        Err(e) => return Err(XdpError::HalfMade { path: path.to_owned(), what: e.to_string() }),
    };
    let put = match ebpf.program_mut(name) {
        Some(Program::Xdp(program)) => {
            let Ok(link) = XdpLink::try_from(link) else { return Ok(false) };
            program.attach_to_link(link).map(drop)
        }
        Some(Program::SchedClassifier(program)) => {
            let Ok(link) = SchedClassifierLink::try_from(link) else { return Ok(false) };
            program.attach_to_link(link).map(drop)
        }
        _ => return Err(missing(name)),
    };
    match put {
        Ok(()) => Ok(true),
        Err(ProgramError::SyscallError(e)) if e.io_error.raw_os_error() == Some(nix::libc::ENOLINK) => {
            fs::remove_file(path).map_err(file_error(path))?;
            Ok(false)
        }
        Err(e) => Err(XdpError::Attach { interface: interface_of(path), why: explain(&e) }),
    }
}

/// The interface that a pinned link is of.
fn interface_of(link: &Path) -> String {
    link.file_name().map_or_else(String::new, |name| name.to_string_lossy().replace('%', "."))
}

/// Pins a link that is attached. One that could not be put into falls only now, so that no packet finds the interface without the director:
/// it is of the other hook.
pub fn pin(link: FdLink, interface: &str, path: &Path) -> Result<(), XdpError> {
    if path.exists() {
        fs::remove_file(path).map_err(file_error(path))?;
    }
    let pinned = link.pin(path);
    pinned.map(drop).map_err(|e| XdpError::Attach { interface: interface.to_owned(), why: e.to_string() })
}

/// The object lacks what it should have.
pub fn missing(name: &str) -> XdpError {
    XdpError::Load(format!("the object has no program {name}"))
}
