//! A service with servers in tables on the heap, changed and asked as an operator and packets would.
#![allow(dead_code, reason = "each test file uses a part")]

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use xlvs_core::sched::choices::{self, Listed};
use xlvs_core::sched::{self, Question, Scheduler};
use xlvs_core::server::Place;
use xlvs_core::service::{BLOCK, NO_BLOCK, Service, block_of, lane_of};
use xlvs_datapath::host::HostEnv;
use xlvs_datapath::tables::{Sizes, Tables};

/// The service's id.
const SERVICE: u32 = 0;

/// A server as the operator knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: u32,
    pub addr: [u8; 4],
    pub port: u16,
    pub weight: u32,
    pub last_weight: u32,
    /// 0 while it is in the trash.
    pub order: u32,
}

pub struct Pool {
    pub tables: Arc<Tables>,
    pub members: Vec<Member>,
    scheduler: Scheduler,
    last_order: u32,
    serial: u32,
    now: Cell<u32>,
    random: Cell<u64>,
    spare_table: bool,
}

impl Pool {
    /// A service without servers.
    pub fn new(scheduler: Scheduler) -> Self {
        Self::over(Arc::new(Tables::on_heap(Self::sizes(), 7)), scheduler)
    }

    /// Sizes that suffice for 1,024 servers.
    pub fn sizes() -> Sizes {
        Sizes { choices: 2048, ..Sizes::for_site(16, 1, 1024, 1) }
    }

    /// A service without servers in these tables, whatever was in them.
    pub fn over(tables: Arc<Tables>, scheduler: Scheduler) -> Self {
        for block in tables.blocks.iter() {
            let lanes = [&block.active, &block.total, &block.weight, &block.overload, &block.order];
            lanes.into_iter().flatten().for_each(|cell| cell.store(0));
        }
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let mut pool = Self {
            tables,
            members: Vec::new(),
            scheduler,
            last_order: 0,
            serial: SERIAL.fetch_add(1000, Ordering::Relaxed),
            now: Cell::new(0),
            random: Cell::new(1),
            spare_table: false,
        };
        pool.service().first_block.store(NO_BLOCK);
        pool.service().blocks.store(0);
        pool.set_scheduler(scheduler);
        pool
    }

    /// Servers A, B, C … with these weights, added in this order.
    pub fn with_weights(scheduler: Scheduler, weights: &[u32]) -> Self {
        let mut pool = Self::new(scheduler);
        for (i, weight) in weights.iter().enumerate() {
            pool.add([10, 0, (i >> 8) as u8, i as u8], 80, *weight);
        }
        pool
    }

    pub fn service(&self) -> &Service {
        &self.tables.services[SERVICE as usize]
    }

    // ------------------------------------------------------------------------------------------------ the operator

    pub fn set_scheduler(&mut self, scheduler: Scheduler) {
        self.scheduler = scheduler;
        self.serial += 1;
        self.fill_table();
        sched::start(self.service(), scheduler, &self.listed(), self.serial);
        self.set_flags(0);
    }

    pub fn set_flags(&self, flags: u32) {
        self.service().kind.store(self.scheduler as u32 | flags);
    }

    /// Adds a server, or takes it out of the trash.
    pub fn add(&mut self, addr: [u8; 4], port: u16, weight: u32) -> u32 {
        self.last_order += 1;
        let order = self.last_order;
        let old = self.members.iter_mut().find(|m| m.addr == addr && m.port == port);
        let id = match old {
            Some(member) => {
                member.order = order;
                member.id
            }
            None => {
                let id = self.members.len() as u32;
                self.members.push(Member { id, addr, port, weight, last_weight: 0, order });
                id
            }
        };
        let record = &self.tables.servers[id as usize];
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&addr);
        record.set_addr(bytes);
        record.set_place(Place { service: SERVICE, stats: 0 });
        self.block(id).order[lane_of(id)].store(order);
        self.chain_blocks();
        self.edit(id, weight);
        id
    }

    pub fn edit(&mut self, id: u32, weight: u32) {
        let member = &mut self.members[id as usize];
        member.weight = weight;
        if weight != 0 {
            member.last_weight = weight;
        }
        self.block(id).weight[lane_of(id)].store(weight);
        self.refresh();
    }

    pub fn remove(&mut self, id: u32) {
        self.members[id as usize].order = 0;
        self.block(id).weight[lane_of(id)].store(0);
        self.block(id).order[lane_of(id)].store(0);
        self.refresh();
    }

    pub fn set_overload(&self, id: u32, overload: bool) {
        self.block(id).overload[lane_of(id)].store(u32::from(overload));
    }

    fn refresh(&mut self) {
        self.fill_table();
        sched::refresh(self.service(), self.scheduler, &self.listed());
    }

    /// The kernel's list: the newest first.
    pub fn listed(&self) -> Vec<Listed> {
        let mut present: Vec<_> = self.members.iter().filter(|m| m.order != 0).collect();
        present.sort_by_key(|m| std::cmp::Reverse(m.order));
        let listed = |m: &&Member| Listed {
            id: m.id,
            order: m.order,
            weight: m.weight,
            last_weight: m.last_weight,
            address: u32::from_be_bytes(m.addr),
            port: m.port,
        };
        present.iter().map(listed).collect()
    }

    /// Fills the table that is not in use and puts it in place.
    fn fill_table(&mut self) {
        self.spare_table = !self.spare_table;
        let first = if self.spare_table { 1024 } else { 0 };
        let listed = self.listed();
        let lines = choices::lines(self.scheduler, listed.len());
        sched::fill(self.scheduler, &listed, &self.tables.choices[first..first + lines]);
        self.service().table.store(first as u32);
    }

    fn chain_blocks(&self) {
        let blocks = self.members.len().div_ceil(BLOCK);
        for (i, block) in self.tables.blocks[..blocks].iter().enumerate() {
            block.next.store(if i + 1 < blocks { i as u32 + 1 } else { NO_BLOCK });
        }
        self.service().first_block.store(0);
        self.service().blocks.store(blocks as u32);
    }

    // ------------------------------------------------------------------------------------------------- the packets

    pub fn env(&self) -> HostEnv<'_> {
        let env = HostEnv::new(&self.tables, 0);
        env.set_now(self.now.get());
        env.set_random_seed(
            self.random.replace(self.random.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1)),
        );
        env
    }

    pub fn pass_seconds(&self, seconds: u32) {
        self.now.set(self.now.get() + 4 * seconds);
    }

    /// The server for a new connection of this client to this destination.
    pub fn pick_for(&self, client: [u8; 4], port: u16, dest: [u8; 4]) -> Option<u32> {
        sched::pick(&self.env(), &Question::v4(SERVICE, client, port.to_be_bytes(), dest))
    }

    /// The server for a new connection of whomever.
    pub fn pick(&self) -> Option<u32> {
        self.pick_for([192, 0, 2, 1], 40000, [10, 0, 0, 100])
    }

    /// Picks a server and gives it a connection that stays.
    pub fn open(&self) -> Option<u32> {
        let id = self.pick()?;
        self.bind(id, true);
        Some(id)
    }

    pub fn bind(&self, id: u32, active: bool) {
        self.block(id).bind(lane_of(id));
        if active {
            self.block(id).count_active(lane_of(id), true);
        }
    }

    /// An active connection becomes inactive.
    pub fn finish(&self, id: u32) {
        self.block(id).count_active(lane_of(id), false);
    }

    pub fn set_load(&self, id: u32, active: u32, total: u32) {
        self.block(id).active[lane_of(id)].store(active);
        self.block(id).total[lane_of(id)].store(total);
    }

    pub fn active(&self, id: u32) -> u32 {
        self.block(id).active[lane_of(id)].load()
    }

    /// Active and inactive connections.
    pub fn total(&self, id: u32) -> u32 {
        self.block(id).total[lane_of(id)].load()
    }

    fn block(&self, id: u32) -> &xlvs_core::service::Block {
        &self.tables.blocks[block_of(id) as usize]
    }
}

/// A server's letter; `-` is nobody.
pub fn letter(id: Option<u32>) -> char {
    id.map_or('-', |id| char::from(b'A' + id as u8))
}
