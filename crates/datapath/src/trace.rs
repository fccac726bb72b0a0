//! The edition of the programs that tells what becomes of packets ([`xlvs_core::trace`]): loaded beside the other over the same
//! tables, and put in its place on all interfaces while somebody watches.

use aya::Ebpf;
use aya::maps::RingBuf;
use ipnet::IpNet;
use xlvs_core::trace::Filter;
use xlvs_core::wire::AddrV6;
use xlvs_model::config::Hook;

use crate::objects;
use crate::programs::{self, DIRECTOR};
use crate::tables::{Region, Sizes};
use crate::xdp::{self, Pins, Ring, Xdp, XdpError};

/// The array of the stages. Pinned, as the other's is: packets must not stop when a daemon ends that had them told of.
const STAGES: &str = "TRACED_STAGES";
/// The same at the tc hook.
const STAGES_AT_TC: &str = "TRACED_AT_TC";

/// The telling edition, loaded.
pub struct Tracer {
    ebpf: Ebpf,
    filter: Region<Filter>,
}

impl Tracer {
    /// Loads it for a hook, over the tables that are pinned there. Of each processor's packets from and to these clients every so many is to
    /// be told of. Takes seconds: the verifier looks at all programs.
    pub fn load(
        pins: &Pins,
        sizes: &Sizes,
        hook: Hook,
        clients: IpNet,
        every: u32,
    ) -> Result<Self, XdpError> {
        let (object, stages) = match hook {
            Hook::Xdp => (objects::TRACED, STAGES),
            Hook::Tc => (objects::TC_TRACED, STAGES_AT_TC),
        };
        let mut ebpf = programs::read(object, pins, sizes)?;
        programs::load_all(&mut ebpf, &[DIRECTOR])?;
        programs::link_stages(&mut ebpf, stages)?;
        let filter = xdp::region(&ebpf, "TRACE_FILTER", 1)?;
        let tracer = Self { ebpf, filter };
        tracer.set(clients, every);
        Ok(tracer)
    }

    fn set(&self, clients: IpNet, every: u32) {
        let (client, mask) = match clients {
            // All bits before an IPv4 address count that is mapped to IPv6 (RFC 4291, 2.5.5.2).
            IpNet::V4(net) => (net.network().to_ipv6_mapped(), u128::MAX << (32 - net.prefix_len())),
            IpNet::V6(net) => (net.network(), u128::from(net.netmask())),
        };
        let (client, mask) = (AddrV6::from(client.octets()), AddrV6::from(mask.to_be_bytes()));
        let filter = &self.filter[0];
        for i in 0..2 {
            filter.client[i].store(client.0[i]);
            filter.mask[i].store(mask.0[i]);
        }
        filter.every.store(every);
    }

    /// The ring with what is told ([`xlvs_core::trace::Record`]). Once.
    pub fn take_ring(&mut self) -> Option<Ring> {
        self.ebpf.take_map("TRACE").and_then(|map| RingBuf::try_from(map).ok())
    }

    /// Steps that found no room in the ring so far.
    pub fn lost(&self) -> u64 {
        self.filter[0].lost.load()
    }
}

impl Xdp {
    /// Puts the telling edition in the place of the other, interface by interface, each in one step. What is attached later is not
    /// told of.
    pub fn begin_trace(&self, tracer: &mut Tracer) -> Result<(), XdpError> {
        for interface in self.pins().attached()? {
            let _gone_with_its_interface =
                programs::put_into(&mut tracer.ebpf, DIRECTOR, &self.pins().link(&interface))?;
        }
        Ok(())
    }

    /// Puts the edition back that tells nothing.
    pub fn end_trace(&mut self) -> Result<(), XdpError> {
        self.take_over_all()?;
        self.pins().forget_trace()
    }
}

impl Pins {
    /// Removes what a trace has pinned. No interface may have its programs any more.
    pub fn forget_trace(&self) -> Result<(), XdpError> {
        [STAGES, STAGES_AT_TC].into_iter().try_for_each(|stages| self.forget_map(stages))
    }
}
