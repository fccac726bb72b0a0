//! The director at the tc hook: the programs of the same stages as classifiers of an interface's ingress, over the same maps.
//!
//! They stand beside the XDP programs, not in their place: the clock, the sweep and what the daemon asks about packets that it put together
//! are XDP programs at either hook, since they are run and not attached.

use std::path::Path;

use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, TestRun, TestRunOptions};

use crate::kernel;
use crate::objects;
use crate::programs::{self, DIRECTOR};
use crate::tables::Sizes;
use crate::xdp::{Pins, XdpError, explain};

/// The array of the stages.
const STAGES: &str = "TC_STAGES";

impl Pins {
    /// Removes what the tc hook has pinned. No interface may have the director there any more.
    pub fn forget_tc(&self) -> Result<(), XdpError> {
        self.forget_map(STAGES)
    }
}

/// The programs, loaded.
pub struct Tc {
    ebpf: Ebpf,
}

/// What a classifier returns for a packet that the director does not want.
pub const TC_ACT_UNSPEC: i32 = -1;
/// What it returns for one that is dropped.
pub const TC_ACT_SHOT: i32 = 2;
/// What it returns for one that leaves.
pub const TC_ACT_REDIRECT: i32 = 7;

impl Tc {
    /// Loads them over the maps that are pinned there.
    pub(crate) fn load(pins: &Pins, sizes: &Sizes) -> Result<Self, XdpError> {
        kernel::runs_at_tc()?;
        let mut ebpf = programs::read(objects::TC, pins, sizes)?;
        programs::load_all(&mut ebpf, &[DIRECTOR, "xlvs_give_back"])?;
        programs::link_stages(&mut ebpf, STAGES)?;
        Ok(Self { ebpf })
    }

    /// Attaches the director to an interface: behind the programs that are there already.
    pub(crate) fn attach(&mut self, interface: &str) -> Result<FdLink, XdpError> {
        link(program_mut(&mut self.ebpf, DIRECTOR)?, interface, TcAttachType::Ingress)
    }

    /// [`programs::put_into`].
    pub(crate) fn put_into(&mut self, path: &Path) -> Result<bool, XdpError> {
        programs::put_into(&mut self.ebpf, DIRECTOR, path)
    }

    /// Gives a frame to the stack, as if it had just come in by this interface.
    pub(crate) fn give_back(&self, ifindex: u32, frame: &[u8]) -> Result<(), XdpError> {
        self.run("xlvs_give_back", frame, &context(ifindex, 0)).map(drop)
    }

    /// Runs the director, without sending it, on a packet that came in by the first interface, the loopback, and is cut into segments with
    /// so many bytes of payload where it leaves (0: it is not). Returns the action and the packet afterwards.
    pub fn try_packet(&self, frame: &[u8], segment: u32) -> Result<(i32, Vec<u8>), XdpError> {
        self.run(DIRECTOR, frame, &context(LOOPBACK, segment))
    }

    fn run(&self, name: &str, frame: &[u8], context: &[u8]) -> Result<(i32, Vec<u8>), XdpError> {
        run(program(&self.ebpf, name)?, frame, context)
    }
}

/// Can the director be run on this frame? A test run refuses one that ends before its IP header does.
pub fn is_runnable(frame: &[u8]) -> bool {
    let least = match frame.get(12..14) {
        Some([0x08, 0x00]) => 34,
        Some([0x86, 0xdd]) => 54,
        _ => 15,
    };
    frame.len() >= least
}

/// The first interface.
pub(crate) const LOOPBACK: u32 = 1;

/// A test run's `__sk_buff`: the interface that the frame came in by, or leaves by, and the payload of its segments.
pub(crate) fn context(ifindex: u32, segment: u32) -> [u8; 192] {
    let mut context = [0; 192];
    for (at, word) in [(40, ifindex), (176, segment)] {
        context[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    context
}

/// Attaches a program to an interface, behind the programs that are there already.
pub(crate) fn link(
    program: &mut SchedClassifier,
    interface: &str,
    way: TcAttachType,
) -> Result<FdLink, XdpError> {
    let attach = |why: String| XdpError::Attach { interface: interface.to_owned(), why };
    let last = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = program.attach_with_options(interface, way, last).map_err(|e| attach(explain(&e)))?;
    let link = program.take_link(id).map_err(|e| attach(explain(&e)))?;
    FdLink::try_from(link).map_err(|e| attach(e.to_string()))
}

/// Runs a classifier on a packet, in this context. Returns the action and the packet afterwards.
pub(crate) fn run(
    program: &SchedClassifier,
    frame: &[u8],
    context: &[u8],
) -> Result<(i32, Vec<u8>), XdpError> {
    let mut out = vec![0; frame.len() + 256];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: Some(context),
        ..TestRunOptions::new()
    };
    let run = program.test_run(options).map_err(|e| XdpError::Load(explain(&e)))?;
    out.truncate(run.data_size_out as usize);
    Ok((run.return_value as i32, out))
}

pub(crate) fn program<'e>(ebpf: &'e Ebpf, name: &str) -> Result<&'e SchedClassifier, XdpError> {
    let program = ebpf.program(name).and_then(|p| <&SchedClassifier>::try_from(p).ok());
    program.ok_or_else(|| programs::missing(name))
}

pub(crate) fn program_mut<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut SchedClassifier, XdpError> {
    let program = ebpf.program_mut(name).and_then(|p| <&mut SchedClassifier>::try_from(p).ok());
    program.ok_or_else(|| programs::missing(name))
}
