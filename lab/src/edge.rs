//! The lab's own two XDP programs, at the far ends of its links.
//!
//! `xlvs_pass`: a veth takes what its peer sends by `XDP_TX` or a redirect only when it has an XDP
//! program itself. `xlvs_decap`: the receiving end of a tunnel, for kernels without the tunnels' modules.

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::programs::{Xdp, XdpMode};

use crate::netns::Netns;

/// The loaded programs. They stay attached as long as this lives.
pub(crate) struct Edge {
    programs: Ebpf,
}

impl Edge {
    /// Loads them. Needs root, and an object that has been built.
    pub(crate) fn load() -> Result<Edge> {
        let object = object()
            .context("the lab has been built without its edge object: `cargo xtask ebpf` makes it")?;
        let mut programs = Ebpf::load(object).context("load the lab's edge programs")?;
        for name in ["xlvs_pass", "xlvs_decap"] {
            program(&mut programs, name)?.load().with_context(|| format!("load {name}"))?;
        }
        Ok(Edge { programs })
    }

    /// Lets `device` take frames that its peer sends from XDP.
    pub(crate) fn let_frames_in(&mut self, netns: &Netns, device: &str) -> Result<()> {
        self.attach("xlvs_pass", netns, device)
    }

    /// Makes `device` unpack tunnelled packets.
    pub(crate) fn unpack_tunnels(&mut self, netns: &Netns, device: &str) -> Result<()> {
        self.attach("xlvs_decap", netns, device)
    }

    fn attach(&mut self, name: &str, netns: &Netns, device: &str) -> Result<()> {
        let xdp = program(&mut self.programs, name)?;
        let attached = netns.run(|| xdp.attach(device, XdpMode::Driver));
        attached.map(drop).with_context(|| format!("attach {name} to {device} in {}", netns.name()))
    }
}

fn program<'a>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program =
        programs.program_mut(name).with_context(|| format!("the edge object has no program {name}"))?;
    Ok(program.try_into()?)
}

#[cfg(edge_object)]
fn object() -> Option<&'static [u8]> {
    Some(aya::include_bytes_aligned!(env!("XLVS_EDGE_OBJECT")))
}

#[cfg(not(edge_object))]
fn object() -> Option<&'static [u8]> {
    None
}
