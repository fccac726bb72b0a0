//! The data plane in the kernel: loaded, attached, pinned, and found again.
//!
//! Everything that matters is pinned under one directory of a BPF file system: `maps/` (the memory) and `links/` (one an
//! interface, which holds the program). A daemon that starts and finds it takes it over: the new program is loaded
//! over the same maps and put in the old one's place link by link, each in one step.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::{Map, MapData, RingBuf};
use aya::programs::links::FdLink;
use aya::programs::xdp::XdpMode;
use aya::programs::{ProgramError, ProgramFd, TestRun, TestRunAttrs, TestRunOptions, Xdp as XdpProgram};
use thiserror::Error;
use xlvs_core::checksum;
use xlvs_core::conn::LANES;
use xlvs_core::conn::word::Tick;
use xlvs_core::director::Stage;
use xlvs_core::errand::{self, Question};
use xlvs_core::marks;
use xlvs_core::packet::Frame;
use xlvs_core::service::BLOCK;
use xlvs_core::vlan;
use xlvs_model::config::Hook;

use crate::attachment::is_native;
use crate::egress::Egress;
use crate::evict::{Doomed, Evictor};
use crate::fragments::{Director, Fate, Outgoing};
use crate::kernel;
use crate::mapping::Mapping;
use crate::objects;
use crate::programs::{self, DIRECTOR, STAGES};
use crate::sweep::Remover;
use crate::tables::{Region, Sizes, Tables};
use crate::tc::Tc;

/// How a program is to be attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Native where the driver can, else generic with a warning.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// After the driver, on socket buffers.
    Generic,
    /// At the tc hook, also on socket buffers ([`crate::tc`]); the programs must have been loaded for it ([`Xdp::load_for_tc`]).
    Tc,
}

/// Where the director runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the driver.
    Native,
    /// After the driver, at the XDP hook.
    Generic,
    /// At the tc hook.
    Tc,
}

/// Why the data plane cannot be had.
#[derive(Debug, Error)]
pub enum XdpError {
    /// The binary was built without the eBPF object.
    #[error("this xlvs was built without its eBPF object; build it with `cargo xtask build`")]
    NoObject,
    /// The kernel is older than what is needed.
    #[error("this kernel is {found}; xlvs needs Linux 6.1 or later")]
    OldKernel {
        /// Its release.
        found: String,
    },
    /// The kernel is older than what the tc hook needs.
    #[error(
        "this kernel is {found}; the tc hook needs Linux 6.12 or later, the XDP hook 6.1: use `--hook xdp`"
    )]
    OldForTc {
        /// Its release.
        found: String,
    },
    /// The kernel is older than what the program at egress needs.
    #[error("this kernel is {found}; what the director's own stack sends can be seen from Linux 6.12 on")]
    OldForEgress {
        /// Its release.
        found: String,
    },
    /// No BPF file system.
    #[error("{path} is no BPF file system and mounting one failed ({source}); try `mount -t bpf bpf {path}`")]
    NoBpfFs {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be made, read or removed.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Some pins are there and some are not.
    #[error("the pinned state in {path} is incomplete ({what}); `xlvs unload` removes it, then start again")]
    HalfMade {
        /// Where.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// The kernel refused the object.
    #[error(
        "the kernel refused the eBPF program: {0}; is it 6.1 or later, with BTF and BPF JIT, and are you root?"
    )]
    Load(String),
    /// No such interface.
    #[error("there is no interface {0}; `ip link` lists them")]
    NoInterface(String),
    /// Somebody else's program is there.
    #[error(
        "interface {0} already runs another XDP program; remove it (`ip link set dev {0} xdp off`) or name another interface"
    )]
    Taken(String),
    /// The driver was to run the program, and cannot.
    #[error(
        "the driver of {interface} cannot run XDP programs ({why}); `--xdp-mode auto` or `generic` runs them after the driver, more slowly"
    )]
    NotNative {
        /// Where.
        interface: String,
        /// Why.
        why: String,
    },
    /// Attaching failed.
    #[error("attaching to {interface} failed: {why}")]
    Attach {
        /// Where.
        interface: String,
        /// Why.
        why: String,
    },
}

pub(crate) fn file_error(path: &Path) -> impl FnOnce(io::Error) -> XdpError {
    let path = path.to_owned();
    move |source| XdpError::File { path, source }
}

/// The pinned state's place.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

const MAPS: [&str; 21] = [
    "CONNS_V4",
    "REPLIES_V4",
    "SERVICES_V4",
    "CONNS_V6",
    "REPLIES_V6",
    "SERVICES_V6",
    "HANDED",
    "MARKS",
    "VLAN_DEVICES",
    "CONFIG",
    "SERVICES",
    "BLOCKS",
    "SERVERS",
    "STATS",
    "COUNTERS",
    "WANTED",
    "ERRANDS",
    "STAGES",
    "AFFINITY",
    "SETS",
    "CHOICES",
];

/// The programs that run as long as there is a daemon, and those that run on without it.
const PROGRAMS: [&str; 6] =
    [DIRECTOR, "xlvs_clock", "xlvs_sweep", "xlvs_evict", "xlvs_collect", "xlvs_give_back"];

impl Pins {
    /// Pins under this BPF file system. Mounts it when it is not there.
    pub fn on(bpffs: &Path) -> Result<Self, XdpError> {
        ensure_bpffs(bpffs)?;
        Ok(Self { root: bpffs.join("xlvs") })
    }

    pub(crate) fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    pub(crate) fn in_root(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn links(&self) -> PathBuf {
        self.in_root("links")
    }

    pub(crate) fn link(&self, interface: &str) -> PathBuf {
        Self::link_in(&self.links(), interface)
    }

    /// Names on a BPF file system have no dots; interfaces' may (`eth0.100`).
    pub(crate) fn link_in(directory: &Path, interface: &str) -> PathBuf {
        directory.join(interface.replace('.', "%"))
    }

    pub(crate) fn interfaces_in(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).into_iter().flatten();
        entries.filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().replace('%', "."))).collect()
    }

    /// Is there a complete state? Half of one is an error.
    pub fn exist(&self) -> Result<bool, XdpError> {
        if !self.root.exists() {
            return Ok(false);
        }
        let missing: Vec<_> = MAPS.iter().filter(|m| !self.maps().join(m).exists()).copied().collect();
        if missing.len() == MAPS.len() && self.attached()?.is_empty() {
            return Ok(false);
        }
        if missing.is_empty() {
            return Ok(true);
        }
        Err(XdpError::HalfMade { path: self.root.clone(), what: format!("no map {}", missing.join(", ")) })
    }

    /// Removes the pin of a map, if there is one.
    pub(crate) fn forget_map(&self, name: &str) -> Result<(), XdpError> {
        let map = self.map(name);
        match fs::remove_file(&map) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(file_error(&map)(why)),
            _ => Ok(()),
        }
    }

    /// Interfaces with a pinned link.
    pub fn attached(&self) -> Result<Vec<String>, XdpError> {
        Ok(Self::interfaces_in(&self.links()))
    }

    /// Removes everything: the programs leave the interfaces, connections are forgotten.
    pub fn remove(&self) -> Result<bool, XdpError> {
        if !self.root.exists() {
            return Ok(false);
        }
        fs::remove_dir_all(&self.root).map_err(file_error(&self.root))?;
        Ok(true)
    }
}

fn ensure_bpffs(path: &Path) -> Result<(), XdpError> {
    use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
    fs::create_dir_all(path).map_err(file_error(path))?;
    if statfs(path).is_ok_and(|s| s.filesystem_type() == BPF_FS_MAGIC) {
        return Ok(());
    }
    nix::mount::mount(Some("bpf"), path, Some("bpf"), nix::mount::MsFlags::empty(), None::<&str>)
        .map_err(|e| XdpError::NoBpfFs { path: path.to_owned(), source: e.into() })
}

/// A ring that programs write and the daemon reads.
pub type Ring = RingBuf<MapData>;

/// The data plane.
pub struct Xdp {
    ebpf: Ebpf,
    tables: Arc<Tables>,
    pins: Pins,
    pub(crate) attached: HashMap<String, u32>,
    tc: Option<Tc>,
    pub(crate) egress: Option<Egress>,
}

/// What became of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The director runs there.
    Attached,
    /// There is no such interface now.
    Gone,
    /// It is there, but the director is not attached to it.
    Returned,
}

impl Xdp {
    /// Loads the programs over new maps or, where there are pinned ones of these sizes, over those.
    pub fn load(pins: Pins, sizes: Sizes, seed: u64) -> Result<Self, XdpError> {
        kernel::runs_at_xdp()?;
        let found = pins.exist()?;
        fs::create_dir_all(pins.maps()).map_err(file_error(&pins.maps()))?;
        fs::create_dir_all(pins.links()).map_err(file_error(&pins.links()))?;
        let mut ebpf = programs::read(objects::DIRECTOR, &pins, &sizes)?;
        programs::load_all(&mut ebpf, &PROGRAMS)?;
        programs::link_stages(&mut ebpf, "STAGES")?;
        let tables = Arc::new(map_tables(&mut ebpf, sizes)?);
        if !found {
            tables.config().set_defaults(seed);
        }
        Ok(Self { ebpf, tables, pins, attached: HashMap::new(), tc: None, egress: None })
    }

    /// Loads the programs of the tc hook too, over the same maps.
    pub fn load_for_tc(&mut self) -> Result<(), XdpError> {
        self.tc = Some(Tc::load(&self.pins, &self.tables.sizes)?);
        Ok(())
    }

    /// Where the director is attached.
    pub fn hook(&self) -> Hook {
        if self.tc.is_some() { Hook::Tc } else { Hook::Xdp }
    }

    /// The programs of the tc hook, where they are loaded.
    pub fn tc(&self) -> Option<&Tc> {
        self.tc.as_ref()
    }

    /// Every program, and how many instructions the verifier has looked at for it (since Linux 5.16).
    pub fn verified(&self) -> Result<Vec<(&'static str, u32)>, XdpError> {
        let names = STAGES.map(|(_, name)| name).into_iter().chain(PROGRAMS);
        let count = |name| {
            let info = program(&self.ebpf, name)?.info().map_err(|e| XdpError::Load(explain(&e)))?;
            Ok((name, info.verified_instruction_count().unwrap_or(0)))
        };
        names.map(count).collect()
    }

    /// Where it is pinned.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The memory.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// What packets have the daemon know ([`xlvs_core::tidings`]).
    pub fn take_wanted(&mut self) -> Option<Ring> {
        self.ebpf.take_map("WANTED").and_then(|m| RingBuf::try_from(m).ok())
    }

    /// What programs have the daemon do with packets ([`xlvs_core::errand`]).
    pub fn take_errands(&mut self) -> Option<Ring> {
        self.ebpf.take_map("ERRANDS").and_then(|m| RingBuf::try_from(m).ok())
    }

    /// Gives a fragment to the stack, as if it had just come in by this interface, but for the MAC of whoever sent it
    /// ([`errand::given_back`]).
    pub fn give_back(&self, ifindex: u32, frame: &[u8]) -> Result<(), XdpError> {
        let mut frame = frame.to_vec();
        if let Some(source) = frame.get_mut(6..12) {
            source.copy_from_slice(&errand::given_back(self.tables.config().seed.load()));
        }
        if let Some(tc) = &self.tc {
            return tc.give_back(ifindex, &frame);
        }
        let context = context(ifindex, 0, frame.len());
        let options = TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            attrs: TestRunAttrs::new().xdp_live_frames(1),
            ..TestRunOptions::new()
        };
        let run = program(&self.ebpf, "xlvs_give_back")?.test_run(options);
        run.map(drop).map_err(|e| XdpError::Load(explain(&e)))
    }

    /// Asks a program about a packet that came in by this interface in fragments of which the largest was so long. A test run
    /// takes no more than a page, so a long packet's end is only described.
    fn ask(&self, name: &str, ifindex: u32, frame: &[u8], largest: u16) -> Result<Fate, XdpError> {
        let (head, rest) = frame.split_at(frame.len().min(ASKED_AT_ONCE));
        let beyond =
            u16::try_from(rest.len()).map_err(|_| XdpError::Load("the packet is too long".into()))?;
        let question = Question::new(largest, beyond, checksum::sum_of_bytes(rest));
        let data = [&question.bytes()[..], head].concat();
        let context = context(ifindex, Question::LEN, data.len());
        let mut out = vec![0; data.len() + Frame::HEADROOM];
        let options = TestRunOptions {
            data_in: Some(&data),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        let run = program(&self.ebpf, name)?.test_run(options).map_err(|e| XdpError::Load(explain(&e)))?;
        out.truncate(run.data_size_out as usize);
        let frame = out.split_off(Question::LEN.min(out.len()));
        Ok(match (run.return_value, Question::answer(&out)) {
            (XDP_PASS, _) if frame != head => Fate::PassesRewritten([&frame[..], rest].concat(), largest),
            (XDP_PASS, _) => Fate::Passes,
            (XDP_TX, _) => Fate::Leaves(Outgoing { ifindex, frame }),
            (XDP_REDIRECT, Some((ifindex, cut_to))) if cut_to != 0 => {
                Fate::LeavesInPieces(Outgoing { ifindex, frame: [&frame[..], rest].concat() }, cut_to)
            }
            _ => Fate::Dropped,
        })
    }

    fn ask_or_say(&self, name: &str, ifindex: u32, frame: &[u8], largest: u16) -> Fate {
        self.ask(name, ifindex, frame, largest).unwrap_or_else(|why| {
            tracing::error!(%why, ifindex, "a packet that came in fragments is dropped: the program cannot be asked");
            Fate::Dropped
        })
    }

    /// Attaches the director to an interface, in the place of an older one where there is one. Returns where it runs.
    pub fn attach(&mut self, interface: &str, mode: Mode) -> Result<Place, XdpError> {
        let Ok(ifindex) = nix::net::if_::if_nametoindex(interface) else {
            return Err(XdpError::NoInterface(interface.to_owned()));
        };
        let place = self.attach_somehow(interface, ifindex, mode)?;
        self.see_own_of(interface)?;
        self.attached.insert(interface.to_owned(), ifindex);
        Ok(place)
    }

    fn attach_somehow(&mut self, interface: &str, ifindex: u32, mode: Mode) -> Result<Place, XdpError> {
        let path = self.pins.link(interface);
        if mode == Mode::Tc {
            return self.attach_at_tc(interface, &path);
        }
        if path.exists() && programs::put_into(&mut self.ebpf, DIRECTOR, &path)? {
            let is_native = is_native(ifindex).map_err(|why| XdpError::Attach {
                interface: interface.to_owned(),
                why: format!("how its program runs cannot be seen: {why}"),
            })?;
            return Ok(if is_native { Place::Native } else { Place::Generic });
        }
        let attempts: &[XdpMode] = match mode {
            Mode::Auto => &[XdpMode::Driver, XdpMode::Skb],
            Mode::Native => &[XdpMode::Driver],
            Mode::Generic | Mode::Tc => &[XdpMode::Skb],
        };
        let mut last = None;
        for attempt in attempts {
            match self.attach_new(interface, *attempt, &path) {
                Ok(()) if matches!(attempt, XdpMode::Driver) => return Ok(Place::Native),
                Ok(()) => return Ok(Place::Generic),
                Err(XdpError::Taken(name)) => return Err(XdpError::Taken(name)),
                Err(e) => last = Some(e),
            }
        }
        match last {
            Some(XdpError::Attach { interface, why }) if matches!(mode, Mode::Native) => {
                Err(XdpError::NotNative { interface, why })
            }
            last => Err(last.unwrap_or_else(|| XdpError::NoInterface(interface.to_owned()))),
        }
    }

    fn attach_at_tc(&mut self, interface: &str, path: &Path) -> Result<Place, XdpError> {
        let Some(tc) = &mut self.tc else {
            return Err(XdpError::Load("the programs of the tc hook are not loaded".to_owned()));
        };
        if !path.exists() || !tc.put_into(path)? {
            programs::pin(tc.attach(interface)?, interface, path)?;
        }
        Ok(Place::Tc)
    }

    /// Puts our program into all pinned links.
    pub(crate) fn take_over_all(&mut self) -> Result<(), XdpError> {
        for interface in self.pins.attached()? {
            let link = self.pins.link(&interface);
            let _gone_with_its_interface = match &mut self.tc {
                Some(tc) => tc.put_into(&link)?,
                None => programs::put_into(&mut self.ebpf, DIRECTOR, &link)?,
            };
        }
        Ok(())
    }

    fn attach_new(&mut self, interface: &str, mode: XdpMode, path: &Path) -> Result<(), XdpError> {
        let attach = |why: String| XdpError::Attach { interface: interface.to_owned(), why };
        let program = program_mut(&mut self.ebpf, DIRECTOR)?;
        let id = program.attach(interface, mode).map_err(|e| match &e {
            ProgramError::SyscallError(s) if is_taken(&s.io_error) => XdpError::Taken(interface.to_owned()),
            _ => attach(explain(&e)),
        })?;
        let link = program.take_link(id).map_err(|e| attach(explain(&e)))?;
        let link = FdLink::try_from(link).map_err(|e| attach(e.to_string()))?;
        programs::pin(link, interface, path)
    }

    /// Looks whether an interface is still the one that the director was attached to. A link dies with its interface; one
    /// of the same name that came later has another index.
    pub fn presence(&self, interface: &str) -> Presence {
        let attached = self.attached.get(interface).copied();
        match (attached, nix::net::if_::if_nametoindex(interface).ok()) {
            (_, None) => Presence::Gone,
            (Some(was), Some(is)) if was == is => Presence::Attached,
            _ => Presence::Returned,
        }
    }

    /// Is the director attached to the interface of this index?
    pub fn is_attached(&self, ifindex: u32) -> bool {
        self.attached.values().any(|attached| *attached == ifindex)
    }

    /// An interface is gone, and its link with it. `false`: that was known.
    pub fn forget(&mut self, interface: &str) -> bool {
        self.attached.remove(interface).is_some()
    }

    /// Lets go of interfaces that are not named any more.
    pub fn detach_others(&self, named: &[String]) -> Result<Vec<String>, XdpError> {
        let mut gone = Vec::new();
        for interface in self.pins.attached()?.into_iter().filter(|i| !named.contains(i)) {
            let path = self.pins.link(&interface);
            fs::remove_file(&path).map_err(file_error(&path))?;
            self.pins.forget_egress(&interface)?;
            gone.push(interface);
        }
        Ok(gone)
    }

    /// The clock of connections, as the programs read it.
    pub fn now(&self) -> Result<Tick, XdpError> {
        let result = self.run("xlvs_clock", &[0; 64])?;
        Ok(Tick::new(result))
    }

    fn run(&self, name: &str, data: &[u8]) -> Result<u32, XdpError> {
        let program = program(&self.ebpf, name)?;
        let options = TestRunOptions { data_in: Some(data), ..TestRunOptions::new() };
        program.test_run(options).map(|r| r.return_value).map_err(|e| XdpError::Load(explain(&e)))
    }

    /// A minute's housekeeping in the destination caches; every 30th round is a full one.
    pub fn collect_caches(&self, full: bool) -> Result<(), XdpError> {
        /// Slots in one run, so that other work has its turn.
        const AT_ONCE: u32 = 4096;
        let slots = self.tables.sizes.affinity * LANES as u32;
        for first in (0..slots).step_by(AT_ONCE as usize) {
            let numbers = [first, AT_ONCE.min(slots - first), u32::from(full)];
            let mut list: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
            list.resize(64, 0);
            self.run("xlvs_collect", &list)?;
        }
        Ok(())
    }

    /// The director's first program, for whoever runs it behind another.
    pub fn director(&self) -> Result<&ProgramFd, XdpError> {
        programs::fd(&self.ebpf, DIRECTOR)
    }

    /// Runs the director on a packet without sending it. Returns the XDP action and the packet afterwards.
    pub fn try_packet(&self, frame: &[u8]) -> Result<(u32, Vec<u8>), XdpError> {
        let program = program(&self.ebpf, DIRECTOR)?;
        let mut out = vec![0; frame.len() + 256];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = program.test_run(options).map_err(|e| XdpError::Load(explain(&e)))?;
        let len = result.data_size_out as usize;
        out.truncate(len);
        Ok((result.return_value, out))
    }
}

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// How much of a packet a program is shown that is asked about it: what a test run's page has room for, and even. What an ICMP error
/// quotes is less.
const ASKED_AT_ONCE: usize = 3328;

/// A test run's `xdp_md`: metadata of so many bytes in front, so many bytes in all, and the interface that it came in by.
fn context(ifindex: u32, metadata: usize, len: usize) -> [u8; 24] {
    let words = [metadata as u32, len as u32, 0, ifindex, 0, 0];
    let mut context = [0; 24];
    for (place, word) in context.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *place = word.to_ne_bytes();
    }
    context
}

impl Director for Xdp {
    fn decide(&self, ifindex: u32, frame: &[u8], largest: u16) -> Fate {
        let stage = Stage::of_whole(kind_of(frame));
        let name = STAGES.iter().find(|(of, _)| *of == stage).map_or("", |(_, name)| *name);
        self.ask_or_say(name, ifindex, frame, largest)
    }

    fn decide_incomplete(&self, ifindex: u32, first: &[u8]) -> Fate {
        self.ask_or_say("xlvs_fragments", ifindex, first, u16::MAX)
    }
}

/// A frame's ethertype; 0 of none.
fn kind_of(frame: &[u8]) -> u16 {
    frame.get(12..14).map_or(0, |kind| u16::from_be_bytes([kind[0], kind[1]]))
}

/// Slots in one run of `xlvs_sweep`. The kernel puts into a test run's first buffer, all that the program sees, what a page has
/// room for beside 256 bytes before and `skb_shared_info` behind (6.1: 320 bytes): 3520 bytes.
const SWEPT_AT_ONCE: usize = 850;

impl Remover for Xdp {
    fn remove_expired(&self, slots: &[u32]) -> usize {
        let mut removed = 0;
        for slots in slots.chunks(SWEPT_AT_ONCE) {
            let mut list = Vec::with_capacity(4 + slots.len() * 4);
            list.extend((slots.len() as u32).to_le_bytes());
            slots.iter().for_each(|slot| list.extend(slot.to_le_bytes()));
            // A test run wants at least an Ethernet header's worth of bytes.
            list.resize(list.len().max(64), 0);
            match self.run("xlvs_sweep", &list) {
                Ok(count) => removed += count as usize,
                Err(why) => {
                    tracing::error!(%why, "the sweep could not be run; expired connections are removed by packets only");
                    break;
                }
            }
        }
        removed
    }
}

impl Evictor for Xdp {
    fn evict(&self, doomed: &[Doomed]) -> usize {
        let mut list = Vec::with_capacity(4 + doomed.len() * 12);
        list.extend((doomed.len() as u32).to_le_bytes());
        for (slot, seen) in doomed {
            list.extend(slot.to_le_bytes());
            list.extend(seen.0.to_le_bytes());
        }
        list.resize(list.len().max(64), 0);
        match self.run("xlvs_evict", &list) {
            Ok(removed) => removed as usize,
            Err(why) => {
                tracing::error!(%why, "connections that must go stay");
                0
            }
        }
    }
}

fn is_taken(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(code) if code == nix::libc::EBUSY || code == nix::libc::EEXIST)
}

/// An error with all its causes, on one line.
pub(crate) fn explain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(c) = cause {
        text = format!("{text}: {c}");
        cause = c.source();
    }
    text
}

fn program<'e>(ebpf: &'e Ebpf, name: &str) -> Result<&'e XdpProgram, XdpError> {
    let program = ebpf.program(name).and_then(|p| <&XdpProgram>::try_from(p).ok());
    program.ok_or_else(|| programs::missing(name))
}

fn program_mut<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut XdpProgram, XdpError> {
    let program = ebpf.program_mut(name).and_then(|p| <&mut XdpProgram>::try_from(p).ok());
    program.ok_or_else(|| programs::missing(name))
}

fn map_tables(ebpf: &mut Ebpf, sizes: Sizes) -> Result<Tables, XdpError> {
    Ok(Tables {
        sizes,
        conns_v4: region(ebpf, "CONNS_V4", sizes.conns)?,
        replies_v4: region(ebpf, "REPLIES_V4", sizes.replies)?,
        services_v4: region(ebpf, "SERVICES_V4", sizes.service_buckets())?,
        conns_v6: region(ebpf, "CONNS_V6", sizes.conns_v6)?,
        replies_v6: region(ebpf, "REPLIES_V6", sizes.conns_v6)?,
        services_v6: region(ebpf, "SERVICES_V6", sizes.service_buckets())?,
        affinity: region(ebpf, "AFFINITY", sizes.affinity)?,
        sets: region(ebpf, "SETS", sizes.affinity * LANES as u32)?,
        choices: region(ebpf, "CHOICES", sizes.choices)?,
        config: region(ebpf, "CONFIG", 1)?,
        marks: region(ebpf, "MARKS", marks::MOST)?,
        vlan_devices: region(ebpf, "VLAN_DEVICES", vlan::MOST)?,
        services: region(ebpf, "SERVICES", sizes.services)?,
        blocks: region(ebpf, "BLOCKS", sizes.blocks)?,
        servers: region(ebpf, "SERVERS", sizes.blocks * BLOCK as u32)?,
        stats: region(ebpf, "STATS", sizes.stats * sizes.cpus)?,
        counters: region(ebpf, "COUNTERS", sizes.cpus)?,
    })
}

pub(crate) fn region<T>(ebpf: &Ebpf, name: &str, len: u32) -> Result<Region<T>, XdpError> {
    let Some(Map::Array(data)) = ebpf.map(name) else {
        return Err(XdpError::Load(format!("the object has no array {name}")));
    };
    let bytes = len as usize * size_of::<T>();
    let mapping = Mapping::of(data.fd().as_fd(), bytes)
        .map_err(|e| XdpError::Load(format!("mapping {name} ({bytes} bytes): {e}")))?;
    Ok(Region::mapped(mapping, len as usize))
}
