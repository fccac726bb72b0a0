//! The surroundings of a packet in the kernel: maps and helpers.

use core::ffi::c_void;

use aya_ebpf::bindings::bpf_fib_lookup as FibQuery;
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_jiffies64, bpf_loop,
};
use aya_ebpf::maps::Array;
use xlvs_core::cell::Cell64;
use xlvs_core::config::Config;
use xlvs_core::conn::table::{New, Probe, Refused, packed};
use xlvs_core::conn::word::Tick;
use xlvs_core::conn::{Bucket, Memory, SlotId};
use xlvs_core::env::{Env, Route, RouteQuery, Step};
use xlvs_core::marks::Rule;
use xlvs_core::options::Progress;
use xlvs_core::persist;
use xlvs_core::sched::affinity::{self, Set};
use xlvs_core::sched::choices::Choices;
use xlvs_core::sched::{self, Choice, Question};
use xlvs_core::server::Server;
use xlvs_core::service::{Block, Service};
use xlvs_core::stats::{Counters, Stats};
use xlvs_core::tidings::Tidings;
use xlvs_core::trace::Note;
use xlvs_core::vlan::{Arrival, Device};
use xlvs_core::ways::{self, Way};
use xlvs_core::wire::AddrV6;

use crate::hook::{self, Context};
use crate::{maps, scheduling, trace};

/// See the module.
pub struct KernelEnv {
    ctx: *mut Context,
}

impl KernelEnv {
    /// The surroundings of this context's packet.
    #[inline(always)]
    pub fn new(ctx: *mut Context) -> Self {
        Self { ctx }
    }

    /// The same where there is no packet to be asked about: the interface and routes must not be.
    #[inline(always)]
    pub fn without_packet() -> Self {
        Self { ctx: core::ptr::null_mut() }
    }

    #[inline(always)]
    fn route(&self, fib: &mut FibQuery) -> Route {
        // SAFETY: context and query are valid, and the size is the query's.
        let answer = unsafe {
            bpf_fib_lookup(self.ctx.cast::<c_void>(), &raw mut *fib, size_of::<FibQuery>() as i32, 0)
        };
        match answer {
            FIB_SUCCESS => Route::Via { ifindex: fib.ifindex, from: fib.smac, to: fib.dmac },
            FIB_NO_NEIGHBOUR => Route::NoNeighbour,
            // SAFETY: an integer in a union of integers; the kernel puts the MTU there with this answer (since 5.12).
            FIB_FRAG_NEEDED => Route::TooBig { mtu: unsafe { fib.__bindgen_anon_1.mtu_result } },
            _ => Route::None,
        }
    }

    /// What the kernel's routes say of a packet with this mark; `fill_in` says of which. Kernels before 6.10 do not take a mark, and
    /// say that the question is wrong: they are asked without. So what is local there whatever the mark is known to be, and what only
    /// a rule of marks makes local is not.
    #[inline(always)]
    fn leads_elsewhere(&self, ifindex: u32, mark: u32, fill_in: impl FnOnce(&mut FibQuery)) -> bool {
        let Some(fib) = blank_query() else { return false };
        fib.ifindex = ifindex;
        fill_in(fib);
        // The kernel's header has had the mark there since, in a union with both MACs.
        let [a, b, c, d] = mark.to_ne_bytes();
        (fib.smac[0], fib.smac[1], fib.smac[2], fib.smac[3]) = (a, b, c, d);
        let mut ask = |flags| {
            // SAFETY: context and query are valid, and the size is the query's.
            unsafe {
                bpf_fib_lookup(self.ctx.cast::<c_void>(), &raw mut *fib, size_of::<FibQuery>() as i32, flags)
            }
        };
        let answer = ask(FIB_LOOKUP_SKIP_NEIGH | FIB_LOOKUP_MARK);
        let answer = if answer < FIB_SUCCESS { ask(0) } else { answer };
        answer >= FIB_SUCCESS && answer != FIB_NOT_FORWARDED && answer != FIB_FORWARDING_OFF
    }

    /// A full ring means that the daemon is busy with others; who missed something will miss it again.
    #[inline(always)]
    fn tell(&self, tidings: Tidings) {
        let _full = maps::WANTED.output::<Tidings>(&tidings, 0);
    }

    /// The context.
    #[inline(always)]
    pub fn ctx(&self) -> *mut Context {
        self.ctx
    }
}

/// A table whose operations are functions with global names: the verifier looks at such a function once, by itself,
/// whatever it is called from. They take five numbers at the most, so an IPv6 key that is to be inserted goes by way of
/// memory. The last name, of insertion, is left out where only the daemon inserts.
macro_rules! table {
    ($(#[$doc:meta])* $name:ident, $words:literal, $map:ident, $buckets:ident, $look_up:ident($($word:ident),+) $(, $put:ident: $handed:ident)?) => {
        $(#[$doc])*
        pub struct $name;

        impl Memory<$words> for $name {
            #[inline(always)]
            fn buckets(&self) -> u32 {
                maps::$buckets()
            }

            #[inline(always)]
            fn bucket(&self, index: u32) -> Option<&Bucket<$words>> {
                record(&maps::$map, index)
            }

            #[inline(always)]
            fn look_up(&self, probe: &Probe<$words>) -> Option<SlotId> {
                let [$($word),+] = probe.key;
                packed::unpack_look_up($look_up($($word),+))
            }

            $(
                #[inline(always)]
                fn put(&self, probe: &Probe<$words>, new: &New) -> Result<SlotId, Refused> {
                    packed::unpack_put($handed::put($put, probe, new))
                }
            )?
        }

        /// `look_up`, verified by itself.
        #[inline(never)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $look_up($($word: u64),+) -> u64 {
            packed::look_up(&$name, &probe(&$name, [$($word),+]))
        }

        $($handed!($name, $put);)?
    };
}

/// Insertion by a function that is handed the key.
mod by_numbers {
    use xlvs_core::conn::table::{New, Probe};

    #[inline(always)]
    pub fn put(put: extern "C" fn(u64, u64, u64, u64, u64) -> u64, probe: &Probe<2>, new: &New) -> u64 {
        put(probe.key[0], probe.key[1], new.word.0, new.entry, new.link)
    }
}

macro_rules! by_numbers {
    ($name:ident, $put:ident) => {
        /// `put`, verified by itself.
        #[inline(never)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $put(key_0: u64, key_1: u64, word: u64, entry: u64, link: u64) -> u64 {
            packed::put(&$name, &probe(&$name, [key_0, key_1]), word, entry, link)
        }
    };
}

/// Insertion by a function that finds the key in this processor's memory.
mod by_memory {
    use xlvs_core::conn::table::{New, Probe, packed};

    #[inline(always)]
    pub fn put(put: extern "C" fn(u64, u64, u64) -> u64, probe: &Probe<5>, new: &New) -> u64 {
        let Some(handed) = super::handed() else { return packed::NO_ROOM };
        for i in 0..5 {
            handed.key[i].store(probe.key[i]);
        }
        put(new.word.0, new.entry, new.link)
    }
}

macro_rules! by_memory {
    ($name:ident, $put:ident) => {
        /// `put`, verified by itself.
        #[inline(never)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $put(word: u64, entry: u64, link: u64) -> u64 {
            let Some(handed) = handed() else { return packed::NO_ROOM };
            let key = core::array::from_fn(|i| handed.key[i].load());
            packed::put(&$name, &probe(&$name, key), word, entry, link)
        }
    };
}

/// A question to the kernel's routes, in this processor's memory: who asks has no stack left for it.
#[inline(always)]
fn blank_query() -> Option<&'static mut FibQuery> {
    const { assert!(size_of::<FibQuery>() == size_of::<[Cell64; 8]>()) };
    let handed = handed()?;
    handed.fib.iter().for_each(|cell| cell.store(0));
    // SAFETY: of the query's size and better aligned, plain data of integers and unions of them, and only this processor's, which asks one
    // question at a time.
    Some(unsafe { &mut *handed.fib.as_ptr().cast_mut().cast::<FibQuery>() })
}

/// This processor's memory for what a function is handed.
#[inline(always)]
pub fn handed() -> Option<&'static maps::Handed> {
    // SAFETY: the helper takes no argument.
    record(&maps::HANDED, unsafe { bpf_get_smp_processor_id() })
}

#[inline(always)]
fn probe<M: Memory<K>, const K: usize>(memory: &M, key: [u64; K]) -> Probe<K> {
    let seed = record(&maps::CONFIG, 0).map_or(0, |config| config.seed.load());
    Probe::new(key, seed, memory.buckets()).worked_out()
}

table!(
    /// IPv4 connections.
    ConnsV4, 2, CONNS_V4, conns_v4_buckets, conns_v4_look_up(a, b), conns_v4_put: by_numbers
);
table!(
    /// IPv4 backlinks.
    RepliesV4, 2, REPLIES_V4, replies_v4_buckets, replies_v4_look_up(a, b), replies_v4_put: by_numbers
);
table!(
    /// Ids of IPv4 services.
    ServicesV4, 2, SERVICES_V4, services_v4_buckets, services_v4_look_up(a, b)
);
table!(
    /// IPv6 connections.
    ConnsV6, 5, CONNS_V6, conns_v6_buckets, conns_v6_look_up(a, b, c, d, e), conns_v6_put: by_memory
);
table!(
    /// IPv6 backlinks.
    RepliesV6, 5, REPLIES_V6, replies_v6_buckets, replies_v6_look_up(a, b, c, d, e), replies_v6_put: by_memory
);
table!(
    /// Ids of IPv6 services.
    ServicesV6, 5, SERVICES_V6, services_v6_buckets, services_v6_look_up(a, b, c, d, e)
);

/// Destination caches.
pub struct Affinity;

impl Memory<{ affinity::KEY }> for Affinity {
    #[inline(always)]
    fn buckets(&self) -> u32 {
        maps::affinity_buckets()
    }

    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<&Bucket<{ affinity::KEY }>> {
        record(&maps::AFFINITY, index)
    }

    #[inline(always)]
    fn look_up(&self, probe: &Probe<{ affinity::KEY }>) -> Option<SlotId> {
        let [low, high, whose] = probe.key;
        packed::unpack_look_up(affinity_look_up(low, high, whose))
    }
}

/// `look_up`, verified by itself.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn affinity_look_up(low: u64, high: u64, whose: u64) -> u64 {
    let env = KernelEnv::without_packet();
    packed::look_up(&Affinity, &affinity::probe(&env, [low, high, whose]))
}

#[inline(always)]
fn record<T>(map: &'static Array<T>, index: u32) -> Option<&'static T> {
    // SAFETY: the element lives as long as the map; it consists of cells, which may be shared.
    map.get_ptr(index).map(|p| unsafe { &*p })
}

impl Env for KernelEnv {
    type ConnsV4 = ConnsV4;
    type RepliesV4 = RepliesV4;
    type ServicesV4 = ServicesV4;
    type ConnsV6 = ConnsV6;
    type RepliesV6 = RepliesV6;
    type ServicesV6 = ServicesV6;
    type Affinity = Affinity;

    #[inline(always)]
    fn conns_v4(&self) -> &ConnsV4 {
        &ConnsV4
    }

    #[inline(always)]
    fn replies_v4(&self) -> &RepliesV4 {
        &RepliesV4
    }

    #[inline(always)]
    fn services_v4(&self) -> &ServicesV4 {
        &ServicesV4
    }

    #[inline(always)]
    fn conns_v6(&self) -> &ConnsV6 {
        &ConnsV6
    }

    #[inline(always)]
    fn replies_v6(&self) -> &RepliesV6 {
        &RepliesV6
    }

    #[inline(always)]
    fn services_v6(&self) -> &ServicesV6 {
        &ServicesV6
    }

    #[inline(always)]
    fn affinity(&self) -> &Affinity {
        &Affinity
    }

    #[inline(always)]
    fn options_progress(&self) -> Option<&Progress> {
        handed().map(|handed| &handed.options_progress)
    }

    #[inline(always)]
    fn set(&self, slot: u32) -> Option<&Set> {
        record(&maps::SETS, slot)
    }

    #[inline(always)]
    fn choose(&self, question: &Question) -> Choice {
        // By itself it has a frame of its own, and needs two calls less.
        if sched::is_by_wlc(self, question.service) {
            return Choice(scheduling::xlvs_choose_by_wlc(question.service as u64));
        }
        let [a, b, c, d] = scheduling::question_in_numbers(question);
        Choice(scheduling::xlvs_choose(a, b, c, d))
    }

    #[inline(always)]
    fn remember(&self, question: &Question, server: u32) {
        let [service, _, low, high] = scheduling::question_in_numbers(question);
        scheduling::xlvs_remember(service, low, high, server as u64);
    }

    #[inline(always)]
    fn find_template_v4(&self, asked: &persist::Asked<[u8; 4]>) -> persist::Outcome {
        let [addresses, service_port] = scheduling::template_v4(asked);
        persist::Outcome(scheduling::xlvs_find_template_v4(addresses, service_port))
    }

    #[inline(always)]
    fn find_template_v6(&self, asked: &persist::Asked<AddrV6>) -> persist::Outcome {
        let [a, b, c, d, service_port] = scheduling::template_v6(asked);
        persist::Outcome(scheduling::xlvs_find_template_v6(a, b, c, d, service_port))
    }

    #[inline(always)]
    fn choices(&self, line: u32) -> Option<&Choices> {
        record(&maps::CHOICES, line)
    }

    #[inline(always)]
    fn mark_rule(&self, number: u32) -> Option<&Rule> {
        record(&maps::MARKS, number)
    }

    #[inline(always)]
    fn vlan_device(&self, number: u32) -> Option<&Device> {
        record(&maps::VLAN_DEVICES, number)
    }

    #[inline(always)]
    fn arrival(&self) -> Option<&Arrival> {
        handed().map(|handed| &handed.arrival)
    }

    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        record(&maps::CONFIG, 0)
    }

    #[inline(always)]
    fn service(&self, id: u32) -> Option<&Service> {
        record(&maps::SERVICES, id)
    }

    #[inline(always)]
    fn block(&self, id: u32) -> Option<&Block> {
        record(&maps::BLOCKS, id)
    }

    #[inline(always)]
    fn server(&self, id: u32) -> Option<&Server> {
        record(&maps::SERVERS, id)
    }

    #[inline(always)]
    fn stats(&self, id: u32) -> Option<&Stats> {
        // SAFETY: the helper takes no argument.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        record(&maps::STATS, cpu.wrapping_mul(maps::stats_per_cpu()).wrapping_add(id))
    }

    #[inline(always)]
    fn counters(&self) -> Option<&Counters> {
        // SAFETY: the helper takes no argument.
        record(&maps::COUNTERS, unsafe { bpf_get_smp_processor_id() })
    }

    #[inline(always)]
    fn now(&self) -> Tick {
        // The verifier makes this call a load of the jiffies (since 5.6), where the other clocks cost 14 to 31 ns.
        // SAFETY: the helper takes no argument.
        let jiffies = unsafe { bpf_jiffies64() };
        Tick::new((jiffies.wrapping_mul(maps::ticks_in_2_24_jiffies()) >> 24) as u32)
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        hook::ingress(self.ctx)
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: the helper takes no argument.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn route_v4(&self, query: &RouteQuery<[u8; 4]>) -> Route {
        let Some(fib) = blank_query() else { return Route::None };
        fib.ifindex = query.ifindex;
        fib.family = AF_INET;
        fib.l4_protocol = query.protocol;
        fib.__bindgen_anon_1.tot_len = hook::asked_length(query.len);
        fib.__bindgen_anon_2.tos = query.tos & 0x1c;
        fib.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(query.src);
        fib.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(query.dst);
        self.route(fib)
    }

    #[inline(always)]
    fn way(&self, place: u32) -> Option<&Way> {
        // SAFETY: the helper takes no argument.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        record(&maps::WAYS, cpu.wrapping_mul(ways::MOST).wrapping_add(place))
    }

    #[inline(always)]
    fn route_v6(&self, query: &RouteQuery<AddrV6>) -> Route {
        // SAFETY: plain data of integers and unions of them.
        let mut fib: FibQuery = unsafe { core::mem::zeroed() };
        fib.ifindex = query.ifindex;
        fib.family = AF_INET6;
        fib.l4_protocol = query.protocol;
        fib.__bindgen_anon_1.tot_len = hook::asked_length(query.len);
        fib.__bindgen_anon_2.flowinfo = u32::from_be(u32::from(query.tos) << 20);
        fib.__bindgen_anon_3.ipv6_src = query.src.words();
        fib.__bindgen_anon_4.ipv6_dst = query.dst.words();
        self.route(&mut fib)
    }

    #[inline(always)]
    fn leads_elsewhere_v4(&self, ifindex: u32, src: &[u8; 4], dst: &[u8; 4], mark: u32) -> bool {
        leads_elsewhere_v4(self, ifindex, src, dst, mark)
    }

    #[inline(always)]
    fn leads_elsewhere_v6(&self, ifindex: u32, src: &AddrV6, dst: &AddrV6, mark: u32) -> bool {
        leads_elsewhere_v6(self, ifindex, src, dst, mark)
    }

    #[inline(always)]
    fn want_neighbour_v4(&self, addr: [u8; 4]) {
        // As an IPv4-mapped address (RFC 4291): one ring for both families.
        let [a, b, c, d] = addr;
        self.want_neighbour_v6(AddrV6::from_bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]));
    }

    #[inline(always)]
    fn want_neighbour_v6(&self, addr: AddrV6) {
        self.tell(Tidings { addr, mtu: 0 });
    }

    #[inline(always)]
    fn learned_path_mtu(&self, server: AddrV6, mtu: u16) {
        self.tell(Tidings { addr: server, mtu: mtu as u64 });
    }

    #[inline(always)]
    fn note(&self, note: impl FnOnce() -> Note) {
        trace::note(note);
    }

    #[inline(always)]
    fn cut_to(&self, bytes: u16) {
        if let Some(handed) = handed() {
            handed.cut_to.store(bytes as u64);
        }
    }

    #[inline(always)]
    fn repeat<S: Step>(&self, n: u32, step: &mut S) {
        // SAFETY: `turn` takes what is handed to it here, and `step` outlives the call.
        unsafe { bpf_loop(n, turn::<S> as *const () as *mut c_void, (&raw mut *step).cast::<c_void>(), 0) };
    }
}

/// Functions of their own, so that what they need is not also needed by the deepest calls beside them.
#[inline(never)]
fn leads_elsewhere_v4(env: &KernelEnv, ifindex: u32, src: &[u8; 4], dst: &[u8; 4], mark: u32) -> bool {
    env.leads_elsewhere(ifindex, mark, |fib| {
        fib.family = AF_INET;
        fib.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(*src);
        fib.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(*dst);
    })
}

#[inline(never)]
fn leads_elsewhere_v6(env: &KernelEnv, ifindex: u32, src: &AddrV6, dst: &AddrV6, mark: u32) -> bool {
    env.leads_elsewhere(ifindex, mark, |fib| {
        fib.family = AF_INET6;
        fib.__bindgen_anon_3.ipv6_src = src.words();
        fib.__bindgen_anon_4.ipv6_dst = dst.words();
    })
}

/// What `bpf_loop` calls: 0 goes on, 1 ends.
unsafe extern "C" fn turn<S: Step>(i: u32, step: *mut c_void) -> i64 {
    // SAFETY: `repeat` hands its own exclusive reference through the kernel to this function.
    let step = unsafe { &mut *step.cast::<S>() };
    if step.turn(i) { 0 } else { 1 }
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const FIB_SUCCESS: i64 = 0;
const FIB_NOT_FORWARDED: i64 = 4;
const FIB_FORWARDING_OFF: i64 = 5;
const FIB_NO_NEIGHBOUR: i64 = 7;
const FIB_FRAG_NEEDED: i64 = 8;
const FIB_LOOKUP_SKIP_NEIGH: u32 = 1 << 2;
const FIB_LOOKUP_MARK: u32 = 1 << 5;
