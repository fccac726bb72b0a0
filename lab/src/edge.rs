//! The lab's own XDP program, at the far ends of its links: a veth takes what its peer sends by `XDP_TX` or a redirect only when it
//! has an XDP program itself.

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::programs::{Xdp, XdpMode};

use crate::netns::Netns;

/// The program's name.
const NAME: &str = "xlvs_pass";

/// The loaded program. It stays attached as long as this lives.
pub(crate) struct Edge {
    object: Ebpf,
}

impl Edge {
    /// Loads it. Needs root, and an object that has been built.
    pub(crate) fn load() -> Result<Edge> {
        let object = object()
            .context("the lab has been built without its edge object: `cargo xtask ebpf` makes it")?;
        let object = Ebpf::load(object).context("load the lab's edge object")?;
        let mut edge = Edge { object };
        edge.program()?.load().with_context(|| format!("load {NAME}"))?;
        Ok(edge)
    }

    /// Lets `device` take frames that its peer sends from XDP.
    pub(crate) fn let_frames_in(&mut self, netns: &Netns, device: &str) -> Result<()> {
        let program = self.program()?;
        let attached = netns.run(|| program.attach(device, XdpMode::Driver));
        attached.map(drop).with_context(|| format!("attach {NAME} to {device} in {}", netns.name()))
    }

    fn program(&mut self) -> Result<&mut Xdp> {
        let program = self.object.program_mut(NAME);
        Ok(program.with_context(|| format!("the edge object has no program {NAME}"))?.try_into()?)
    }
}

#[cfg(edge_object)]
fn object() -> Option<&'static [u8]> {
    Some(aya::include_bytes_aligned!(env!("XLVS_EDGE_OBJECT")))
}

#[cfg(not(edge_object))]
fn object() -> Option<&'static [u8]> {
    None
}
