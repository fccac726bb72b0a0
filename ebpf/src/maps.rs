//! The maps. Their sizes are set by the loader; names and value layouts are the pinned interface (`abi` in the daemon).

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, RingBuf};
use xlvs_core::cell::Cell64;
use xlvs_core::config::Config;
use xlvs_core::conn::Bucket;
use xlvs_core::marks::{self, Rule};
use xlvs_core::options::Progress;
use xlvs_core::sched::affinity::{self, Set};
use xlvs_core::sched::choices::Choices;
use xlvs_core::server::Server;
use xlvs_core::service::{Block, Service};
use xlvs_core::stats::{Counters, Stats};
use xlvs_core::vlan::{self, Arrival, Device};
use xlvs_core::ways::{self, Way};

/// `BPF_F_MMAPABLE`: the daemon works on the same memory.
pub const MMAPABLE: u32 = 1 << 10;

#[map]
pub static CONNS_V4: Array<Bucket<2>> = Array::pinned(1, MMAPABLE);
#[map]
pub static REPLIES_V4: Array<Bucket<2>> = Array::pinned(1, MMAPABLE);
#[map]
pub static SERVICES_V4: Array<Bucket<2>> = Array::pinned(1, MMAPABLE);
#[map]
pub static CONNS_V6: Array<Bucket<5>> = Array::pinned(1, MMAPABLE);
#[map]
pub static REPLIES_V6: Array<Bucket<5>> = Array::pinned(1, MMAPABLE);
#[map]
pub static SERVICES_V6: Array<Bucket<5>> = Array::pinned(1, MMAPABLE);
#[map]
pub static MARKS: Array<Rule> = Array::pinned(marks::MOST, MMAPABLE);
#[map]
pub static VLAN_DEVICES: Array<Device> = Array::pinned(vlan::MOST, MMAPABLE);
/// By processor.
#[map]
pub static HANDED: Array<Handed> = Array::pinned(1, 0);
/// Ways to clients, by processor, then by place: processor × `ways::MOST` + place. Of this object only: what is in it is old soon.
#[map]
pub static WAYS: Array<Way> = Array::with_max_entries(ways::MOST, 0);
/// Destination caches of lblc and lblcr.
#[map]
pub static AFFINITY: Array<Bucket<{ affinity::KEY }>> = Array::pinned(1, MMAPABLE);
/// Sets of lblcr, by slot of `AFFINITY`.
#[map]
pub static SETS: Array<Set> = Array::pinned(1, MMAPABLE);
/// Lines of the schedulers' tables.
#[map]
pub static CHOICES: Array<Choices> = Array::pinned(1, MMAPABLE);
#[map]
pub static CONFIG: Array<Config> = Array::pinned(1, MMAPABLE);
#[map]
pub static SERVICES: Array<Service> = Array::pinned(1, MMAPABLE);
#[map]
pub static BLOCKS: Array<Block> = Array::pinned(1, MMAPABLE);
#[map]
pub static SERVERS: Array<Server> = Array::pinned(1, MMAPABLE);
/// By processor, then by statistics record: processor × `STATS_PER_CPU` + record.
#[map]
pub static STATS: Array<Stats> = Array::pinned(1, MMAPABLE);
/// By processor.
#[map]
pub static COUNTERS: Array<Counters> = Array::pinned(1, MMAPABLE);
/// What packets have the daemon know.
#[map]
pub static WANTED: RingBuf = RingBuf::pinned(4096, 0);

/// Packets that the daemon puts together or cuts: some hundreds.
#[map]
pub static ERRANDS: RingBuf = RingBuf::pinned(1 << 20, 0);

/// What a function is handed besides its arguments.
#[repr(C)]
pub struct Handed {
    /// A key.
    pub key: [Cell64; 5],
    /// How far a loop has come.
    pub options_progress: Progress,
    /// In pieces of how many bytes the packet leaves that is to be cut.
    pub cut_to: Cell64,
    /// How the frame came.
    pub arrival: Arrival,
    /// A question to the kernel's routes, of a function that has no stack left for it.
    pub fib: [Cell64; 8],
}

macro_rules! constants {
    ($($(#[$doc:meta])* $name:ident, $get:ident: $type:ty;)*) => {
        $(
            #[unsafe(no_mangle)]
            static $name: $type = 0;

            $(#[$doc])*
            #[inline(always)]
            pub fn $get() -> $type {
                // SAFETY: a static; volatile because the loader writes another value into it before the program is verified.
                unsafe { core::ptr::read_volatile(&raw const $name) }
            }
        )*
    };
}

constants! {
    /// Buckets of the connection table.
    CONNS_V4_BUCKETS, conns_v4_buckets: u32;
    /// Buckets of the reply table.
    REPLIES_V4_BUCKETS, replies_v4_buckets: u32;
    /// Buckets of the service table.
    SERVICES_V4_BUCKETS, services_v4_buckets: u32;
    /// Buckets of the IPv6 connection table.
    CONNS_V6_BUCKETS, conns_v6_buckets: u32;
    /// Buckets of the IPv6 reply table.
    REPLIES_V6_BUCKETS, replies_v6_buckets: u32;
    /// Buckets of the IPv6 service table.
    SERVICES_V6_BUCKETS, services_v6_buckets: u32;
    /// Buckets of the destination caches.
    AFFINITY_BUCKETS, affinity_buckets: u32;
    /// Statistics records of a processor.
    STATS_PER_CPU, stats_per_cpu: u32;
    /// Quarter seconds in 2^24 jiffies.
    TICKS_IN_2_24_JIFFIES, ticks_in_2_24_jiffies: u64;
}
