//! The memory that the data plane works on: the kernel's maps, mapped, or plain memory on the host.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::Deref;
use std::ptr::NonNull;

use xlvs_core::config::Config;
use xlvs_core::conn::word::Word;
use xlvs_core::conn::{Bucket, LANES, Memory, SlotId};
use xlvs_core::family::slot_in;
use xlvs_core::marks::{self, Rule};
use xlvs_core::sched::affinity::{self, Set};
use xlvs_core::sched::choices::Choices;
use xlvs_core::server::Server;
use xlvs_core::service::{BLOCK, Block, Service, server_in};
use xlvs_core::stats::{Counters, Stats};
use xlvs_core::verdict::DropReason;
use xlvs_core::vlan::{self, Device};

/// An array of records that live as long as it does and are only changed through cells.
pub struct Region<T: 'static> {
    start: NonNull<T>,
    len: usize,
    origin: Origin,
}

enum Origin {
    Heap(Layout),
    Mapped(#[expect(dead_code, reason = "unmaps when it is dropped")] crate::mapping::Mapping),
}

// SAFETY: the records consist of cells (atomics) only, which may be used from any thread.
unsafe impl<T: Sync> Send for Region<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Region<T> {}

impl<T> Region<T> {
    /// Records of zeros on the heap.
    ///
    /// # Panics
    /// When the size overflows.
    pub fn zeroed(len: usize) -> Self {
        let layout = Layout::array::<T>(len.max(1)).expect("a table fits into the address space");
        // SAFETY: the layout is not empty: every record has bytes and there is at least one.
        let start = unsafe { alloc_zeroed(layout) }.cast::<T>();
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, len, origin: Origin::Heap(layout) }
    }

    /// The records of a mapped map.
    pub(crate) fn mapped(mapping: crate::mapping::Mapping, len: usize) -> Self {
        assert!(mapping.size() >= len * size_of::<T>(), "a mapping holds its {len} records");
        Self { start: mapping.start().cast::<T>(), len, origin: Origin::Mapped(mapping) }
    }
}

impl<T> Deref for Region<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` records lie at `start` (checked by both constructors), zeros are valid values of cells, and the
        // memory lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> Drop for Region<T> {
    fn drop(&mut self) {
        if let Origin::Heap(layout) = self.origin {
            // SAFETY: allocated in `zeroed` with this layout; cells need no drop.
            unsafe { dealloc(self.start.as_ptr().cast::<u8>(), layout) };
        }
    }
}

/// How much of everything there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Sizes {
    /// Buckets of the connection table, eight entries each.
    pub conns: u32,
    /// Buckets of the reply table.
    pub replies: u32,
    /// Buckets of the IPv6 connection table, and of its reply table.
    pub conns_v6: u32,
    /// Services.
    pub services: u32,
    /// Blocks of sixteen servers.
    pub blocks: u32,
    /// Statistics records.
    pub stats: u32,
    /// Lines of the schedulers' tables, sixteen choices each.
    pub choices: u32,
    /// Buckets of the destination caches of lblc and lblcr, eight destinations each.
    pub affinity: u32,
    /// Processors.
    pub cpus: u32,
}

impl Sizes {
    /// Sizes for this many connections (a quarter as many of IPv6), services, and servers. With them the table is 60 % full: up
    /// to there, each connection finds a place.
    pub fn for_site(conns: u32, services: u32, servers: u32, cpus: u32) -> Self {
        let buckets = Self::buckets_for(conns);
        Self {
            conns: buckets,
            replies: buckets,
            conns_v6: Self::buckets_for(conns / 4),
            services,
            // The last one of either is no service's: see `bypass`.
            blocks: services + servers.div_ceil(BLOCK as u32) + 1,
            stats: servers + 1,
            // Each service may be sh or dh, some hundred may be mh, and every one may be filled anew beside its old one.
            choices: services * 18 + servers / 4 + 256 * 256,
            // A third more than the kernel gives one service, which is 24,576 destinations.
            affinity: 4096,
            cpus,
        }
    }

    /// The same with room for so many IPv6 connections.
    pub fn with_v6(self, conns: u32) -> Self {
        Self { conns_v6: Self::buckets_for(conns), ..self }
    }

    /// The id of what stands in for a server in entries of connections that have none (`cache_bypass`), IPv4's. IPv6's is the next. It
    /// lies in the last block and counts in the last statistics record.
    pub fn bypass(&self) -> u32 {
        server_in(self.blocks - 1, 0)
    }

    fn buckets_for(conns: u32) -> u32 {
        (u64::from(conns) * 10 / 6).div_ceil(LANES as u64).max(16) as u32
    }

    /// Buckets of the service table: half full when all services and, for `nat_icmp_send`, all servers are listed.
    pub fn service_buckets(&self) -> u32 {
        (self.services + self.stats).div_ceil(4).max(self.services.div_ceil(2)).max(16)
    }
}

impl Default for Sizes {
    fn default() -> Self {
        Self::for_site(1 << 20, 1 << 14, 1 << 16, 1)
    }
}

/// All tables of a director.
pub struct Tables {
    /// How large they are.
    pub sizes: Sizes,
    /// IPv4 connections.
    pub conns_v4: Region<Bucket<2>>,
    /// Backlinks of NAT connections.
    pub replies_v4: Region<Bucket<2>>,
    /// Service ids by address.
    pub services_v4: Region<Bucket<2>>,
    /// IPv6 connections.
    pub conns_v6: Region<Bucket<5>>,
    /// Backlinks of IPv6 NAT connections.
    pub replies_v6: Region<Bucket<5>>,
    /// IPv6 service ids by address.
    pub services_v6: Region<Bucket<5>>,
    /// Destination caches of lblc and lblcr.
    pub affinity: Region<Bucket<{ affinity::KEY }>>,
    /// Sets of lblcr, by slot of `affinity`.
    pub sets: Region<Set>,
    /// Lines of the schedulers' tables.
    pub choices: Region<Choices>,
    /// One record.
    pub config: Region<Config>,
    /// Rules of marks.
    pub marks: Region<Rule>,
    /// VLAN devices.
    pub vlan_devices: Region<Device>,
    /// Services by id.
    pub services: Region<Service>,
    /// Blocks by id.
    pub blocks: Region<Block>,
    /// Servers by id.
    pub servers: Region<Server>,
    /// By processor, then by record.
    pub stats: Region<Stats>,
    /// By processor.
    pub counters: Region<Counters>,
}

impl Tables {
    /// Packets that were dropped for this reason, by all processors.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.counters.iter().map(|counters| counters.drops[reason as usize].load()).sum()
    }

    /// Tables on the heap, empty, with LVS's defaults.
    pub fn on_heap(sizes: Sizes, seed: u64) -> Self {
        let tables = Self {
            sizes,
            conns_v4: Region::zeroed(sizes.conns as usize),
            replies_v4: Region::zeroed(sizes.replies as usize),
            services_v4: Region::zeroed(sizes.service_buckets() as usize),
            conns_v6: Region::zeroed(sizes.conns_v6 as usize),
            replies_v6: Region::zeroed(sizes.conns_v6 as usize),
            services_v6: Region::zeroed(sizes.service_buckets() as usize),
            affinity: Region::zeroed(sizes.affinity as usize),
            sets: Region::zeroed(sizes.affinity as usize * LANES),
            choices: Region::zeroed(sizes.choices as usize),
            config: Region::zeroed(1),
            marks: Region::zeroed(marks::MOST as usize),
            vlan_devices: Region::zeroed(vlan::MOST as usize),
            services: Region::zeroed(sizes.services as usize),
            blocks: Region::zeroed(sizes.blocks as usize),
            servers: Region::zeroed(sizes.blocks as usize * BLOCK),
            stats: Region::zeroed(sizes.stats as usize * sizes.cpus as usize),
            counters: Region::zeroed(sizes.cpus as usize),
        };
        tables.config[0].set_defaults(seed);
        tables
    }

    /// Slots of both connection tables, numbered one after the other: IPv4's and then IPv6's.
    pub fn slots(&self) -> u32 {
        ((self.conns_v4.len() + self.conns_v6.len()) * LANES) as u32
    }

    /// The word in a slot of either table, and the number by which the data plane knows the slot.
    pub fn word(&self, slot: u32) -> Option<(Word, u32)> {
        let (is_v6, slot) = self.family_of(slot);
        let (bucket, lane) = (slot.bucket() as usize, slot.lane());
        let cell = if is_v6 {
            &self.conns_v6.get(bucket)?.words[lane]
        } else {
            &self.conns_v4.get(bucket)?.words[lane]
        };
        Some((Word(cell.load()), slot_in(is_v6, slot)))
    }

    /// Whether a slot's number is one of IPv6's, and which.
    pub fn family_of(&self, slot: u32) -> (bool, SlotId) {
        let v4 = (self.conns_v4.len() * LANES) as u32;
        if slot < v4 { (false, SlotId(slot)) } else { (true, SlotId(slot - v4)) }
    }

    /// The number of a slot of one family: what [`Self::family_of`] takes apart.
    pub fn slot_of(&self, is_v6: bool, slot: SlotId) -> u32 {
        if is_v6 { slot.0 + (self.conns_v4.len() * LANES) as u32 } else { slot.0 }
    }

    /// The configuration record.
    pub fn config(&self) -> &Config {
        &self.config[0]
    }

    /// A statistics record on every processor.
    pub fn stats_of(&self, record: u32) -> impl Iterator<Item = &Stats> {
        let stride = self.sizes.stats as usize;
        (0..self.sizes.cpus as usize).filter_map(move |cpu| self.stats.get(cpu * stride + record as usize))
    }
}

/// Buckets as the core's tables want them.
#[derive(Clone, Copy)]
pub struct Buckets<'t, const K: usize>(pub &'t [Bucket<K>]);

impl<const K: usize> Memory<K> for Buckets<'_, K> {
    fn buckets(&self) -> u32 {
        self.0.len() as u32
    }

    fn bucket(&self, index: u32) -> Option<&Bucket<K>> {
        self.0.get(index as usize)
    }
}
