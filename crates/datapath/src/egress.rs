//! Where the director's own stack sends: a program on the egress of the interfaces that the director is attached to, at tc's hook whatever
//! its own, which sees the answers of servers that are the director itself ([`xlvs_core::director::outgoing`]).
//!
//! It is there only while there are such servers.

use std::fs;
use std::io;
use std::path::PathBuf;

use aya::Ebpf;
use aya::programs::TcAttachType;

use crate::kernel;
use crate::objects;
use crate::programs;
use crate::tables::Sizes;
use crate::tc;
use crate::xdp::{Pins, Xdp, XdpError, file_error};

const PROGRAM: &str = "xlvs_outgoing";

impl Pins {
    fn egress(&self) -> PathBuf {
        self.in_root("egress")
    }

    /// Interfaces of which what leaves is seen.
    pub fn seen(&self) -> Vec<String> {
        Self::interfaces_in(&self.egress())
    }

    /// What leaves by this interface is not seen any more.
    pub(crate) fn forget_egress(&self, interface: &str) -> Result<(), XdpError> {
        let link = Self::link_in(&self.egress(), interface);
        match fs::remove_file(&link) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(file_error(&link)(why)),
            _ => Ok(()),
        }
    }
}

/// The program, loaded.
pub struct Egress {
    ebpf: Ebpf,
}

impl Egress {
    /// Loads it over the maps that are pinned there.
    fn load(pins: &Pins, sizes: &Sizes) -> Result<Self, XdpError> {
        kernel::runs_at_egress()?;
        let mut ebpf = programs::read(objects::TC, pins, sizes)?;
        programs::load(&mut ebpf, &[PROGRAM])?;
        fs::create_dir_all(pins.egress()).map_err(file_error(&pins.egress()))?;
        Ok(Self { ebpf })
    }

    /// Attaches it to an interface, in the place of an older one where there is one: behind the programs that are there already.
    fn attach(&mut self, pins: &Pins, interface: &str) -> Result<(), XdpError> {
        let path = Pins::link_in(&pins.egress(), interface);
        if path.exists() && programs::put_into(&mut self.ebpf, PROGRAM, &path)? {
            return Ok(());
        }
        let program = tc::program_mut(&mut self.ebpf, PROGRAM)?;
        programs::pin(tc::link(program, interface, TcAttachType::Egress)?, interface, &path)
    }
}

impl Xdp {
    /// Sees from now on what the director's own stack sends by the interfaces that the director is attached to, also by those to which it
    /// will be. Takes over what an earlier daemon has left of that.
    pub fn see_own(&mut self) -> Result<(), XdpError> {
        if self.egress.is_none() {
            self.egress = Some(self.load_egress()?);
        }
        let interfaces: Vec<String> = self.attached.keys().cloned().collect();
        interfaces.iter().try_for_each(|interface| self.see_own_of(interface))
    }

    fn load_egress(&self) -> Result<Egress, XdpError> {
        let egress = Egress::load(self.pins(), &self.tables().sizes);
        if self.tc().is_none() {
            // The object has pinned its stages' array, which this program does not use.
            self.pins().forget_tc()?;
        }
        egress
    }

    /// Sees it by this interface too, if by others.
    pub(crate) fn see_own_of(&mut self, interface: &str) -> Result<(), XdpError> {
        let pins = self.pins().clone();
        self.egress.as_mut().map_or(Ok(()), |egress| egress.attach(&pins, interface))
    }

    /// Does not see it any more.
    pub fn overlook_own(&mut self) -> Result<(), XdpError> {
        self.egress = None;
        self.pins().seen().iter().try_for_each(|interface| self.pins().forget_egress(interface))
    }

    /// Does it see what the director's own stack sends?
    pub fn sees_own(&self) -> bool {
        self.egress.is_some()
    }

    /// Runs the program on a packet that leaves by the first interface, without sending it. Returns the action and the packet afterwards.
    pub fn try_outgoing(&self, frame: &[u8], segment: u32) -> Result<(i32, Vec<u8>), XdpError> {
        let egress = self.egress.as_ref().ok_or_else(|| programs::missing(PROGRAM))?;
        tc::run(tc::program(&egress.ebpf, PROGRAM)?, frame, &tc::context(tc::LOOPBACK, segment))
    }
}
