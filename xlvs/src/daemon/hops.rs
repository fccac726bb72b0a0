//! Keeps the servers' next hops in their records.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot};
use xlvs_core::server::Hop;
use xlvs_core::vlan;
use xlvs_datapath::engine::Destination;
use xlvs_datapath::nexthop::{self, Change, Command, News, NextHop, Reason, State, Target, VlanDevice};
use xlvs_datapath::offload;
use xlvs_datapath::xdp::Mode;

use super::{Daemon, local};

/// How long a command waits for the next hops of servers that it added, so that the first connection finds them.
const PATIENCE: Duration = Duration::from_millis(600);

/// So many next hops can be known in that time; for more, nobody waits.
const PROMPT: usize = 1000;

/// Numbers from here on are clients', not servers'.
const CLIENTS: u32 = 0x8000_0000;

/// Numbers from here on are of ways that probes take: their servers may have no number.
const WAYS: u32 = 0xc000_0000;

/// A way that no probe took for so long is let go.
const UNUSED: Duration = Duration::from_secs(600);

/// What is asked for, and what is known.
#[derive(Default)]
pub struct Hops {
    commands: RefCell<Option<mpsc::Sender<Command>>>,
    asked: RefCell<HashMap<u32, Destination>>,
    settled: RefCell<HashSet<u32>>,
    news: Notify,
    clients: Cell<u32>,
    ways: RefCell<HashMap<IpAddr, Way>>,
    ways_made: Cell<u32>,
    devices: RefCell<Vec<VlanDevice>>,
    /// Interfaces that take VLAN tags out of frames, which was said.
    untagging: RefCell<HashSet<u32>>,
}

/// The way to an address that probes ask.
struct Way {
    id: u32,
    /// Known once the kernel has told.
    state: Option<State>,
    used: Instant,
}

impl Hops {
    /// Asks for the next hops of exactly these servers.
    pub async fn want(&self, destinations: Vec<Destination>) {
        let wanted: HashSet<u32> = destinations.iter().map(|d| d.id).collect();
        let gone: Vec<u32> = self.asked.borrow().keys().filter(|id| !wanted.contains(id)).copied().collect();
        if !gone.is_empty() {
            gone.iter().for_each(|id| self.forget(*id));
            self.send(Change::Remove(gone)).await;
        }
        self.want_also(destinations).await;
    }

    /// Asks for the next hops of these servers too, and waits a little for those that are new.
    pub async fn want_also(&self, destinations: Vec<Destination>) {
        let new: Vec<Destination> =
            destinations.into_iter().filter(|d| self.asked.borrow().get(&d.id) != Some(d)).collect();
        if new.is_empty() {
            return;
        }
        for destination in &new {
            self.forget(destination.id);
            self.asked.borrow_mut().insert(destination.id, *destination);
        }
        let target = |d: &Destination| Target { id: d.id, addr: d.addr };
        self.send(Change::Add(new.iter().map(target).collect())).await;
        if new.len() <= PROMPT {
            let ids: Vec<u32> = new.iter().map(|d| d.id).collect();
            let _late = tokio::time::timeout(PATIENCE, self.until_settled(&ids)).await;
        }
    }

    fn forget(&self, id: u32) {
        self.asked.borrow_mut().remove(&id);
        self.settled.borrow_mut().remove(&id);
    }

    async fn until_settled(&self, ids: &[u32]) {
        loop {
            let news = self.news.notified();
            if ids.iter().all(|id| self.settled.borrow().contains(id)) {
                return;
            }
            news.await;
        }
    }

    /// Has the neighbour towards a client looked for.
    pub async fn want_client(&self, addr: IpAddr) {
        // A ring of 1024: the oldest is let go when a new one takes its number.
        let id = CLIENTS | (self.clients.get() & 1023);
        self.clients.set(self.clients.get().wrapping_add(1));
        self.send(Change::Remove(vec![id])).await;
        self.send(Change::Add(vec![Target { id, addr }])).await;
    }

    /// How this address is reached, for a probe; waited for a little where nobody asked before.
    pub async fn way_to(&self, addr: IpAddr) -> Option<State> {
        let is_new = self.ways.borrow_mut().get_mut(&addr).map(|way| way.used = Instant::now()).is_none();
        if is_new {
            let (unused, id) = self.begin_way(addr);
            self.send(Change::Remove(unused)).await;
            self.send(Change::Add(vec![Target { id, addr }])).await;
        }
        let _late = tokio::time::timeout(PATIENCE, self.until_known(addr)).await;
        self.ways.borrow().get(&addr).and_then(|way| way.state)
    }

    /// Ways that are let go for it, and its number.
    fn begin_way(&self, addr: IpAddr) -> (Vec<u32>, u32) {
        let mut ways = self.ways.borrow_mut();
        let unused = ways.extract_if(|_, way| way.used.elapsed() > UNUSED).map(|(_, way)| way.id).collect();
        let id = WAYS | (self.ways_made.get() & (u32::MAX >> 2));
        self.ways_made.set(self.ways_made.get().wrapping_add(1));
        ways.insert(addr, Way { id, state: None, used: Instant::now() });
        (unused, id)
    }

    async fn until_known(&self, addr: IpAddr) {
        let is_known = || {
            let pending = State::Unresolved { reason: Reason::NeighbourPending };
            self.ways.borrow().get(&addr).is_none_or(|way| way.state.is_some_and(|state| state != pending))
        };
        while !is_known() {
            self.news.notified().await;
        }
    }

    /// What was learned of a way that probes take.
    fn know_way(&self, hop: &NextHop) {
        if let Some(way) = self.ways.borrow_mut().get_mut(&hop.addr).filter(|way| hop.ids.contains(&way.id)) {
            way.state = Some(hop.state);
            self.news.notify_waiters();
        }
    }

    /// A router has said what the way to a server takes.
    pub async fn learn_path_mtu(&self, addr: IpAddr, mtu: u32) {
        self.command(Command::PathMtu { addr, mtu }).await;
    }

    /// The host's VLAN devices.
    pub fn vlan_devices(&self) -> Vec<VlanDevice> {
        self.devices.borrow().clone()
    }

    /// How an address is reached, in a sentence.
    pub async fn describe(&self, addr: IpAddr) -> Option<String> {
        let (reply, answer) = oneshot::channel();
        let sender = self.commands.borrow().clone()?;
        sender.send(Command::Describe { addr, reply }).await.ok()?;
        answer.await.ok()
    }

    async fn send(&self, change: Change) {
        self.command(Command::Targets(change)).await;
    }

    async fn command(&self, command: Command) {
        let sender = self.commands.borrow().clone();
        if let Some(sender) = sender {
            // It only fails when the follower has ended, which ends the daemon.
            let _ended = sender.send(command).await;
        }
    }

    fn settle(&self, ids: &[u32]) {
        self.settled.borrow_mut().extend(ids);
        self.news.notify_waiters();
    }
}

/// Starts following; the future ends when that breaks.
pub fn follow(daemon: Rc<Daemon>) -> anyhow::Result<impl Future<Output = anyhow::Result<()>>> {
    let (commands, commands_rx) = mpsc::channel(64);
    let (events_tx, mut events) = mpsc::unbounded_channel();
    let driver = nexthop::run(commands_rx, events_tx)?;
    *daemon.hops.commands.borrow_mut() = Some(commands);
    Ok(async move {
        let driver = tokio::task::spawn_local(driver);
        let servers = Rc::clone(&daemon);
        tokio::task::spawn_local(async move {
            let destinations = servers.engine.borrow().destinations();
            servers.hops.want(destinations).await;
        });
        while let Some(event) = events.recv().await {
            match event {
                News::Devices(devices) => know_devices(&daemon, &devices),
                News::NextHop(hop) => learn(&daemon, &hop),
            }
        }
        driver.await??;
        anyhow::bail!("the kernel's routes and neighbours can no longer be followed; start the daemon again")
    })
}

/// Says of interfaces below VLAN devices that the director does not see tags there, once of each.
fn warn_of_tags_taken_out(daemon: &Daemon, devices: &[VlanDevice]) {
    let below: HashSet<u32> = devices.iter().map(|device| device.lower).collect();
    for ifindex in below.into_iter().filter(|ifindex| daemon.xdp.borrow().is_attached(*ifindex)) {
        let Some(interface) =
            nix::net::if_::if_indextoname(ifindex).ok().and_then(|name| name.into_string().ok())
        else {
            continue;
        };
        let takes_tags_out = offload::takes_tags_out(&interface).unwrap_or(false);
        if takes_tags_out && daemon.hops.untagging.borrow_mut().insert(ifindex) {
            tracing::warn!(
                %interface,
                "it takes VLAN tags out of frames before the director sees them, which then takes them for untagged ones: \
                 ethtool -K {interface} rxvlan off"
            );
        }
    }
}

fn know_devices(daemon: &Daemon, devices: &[VlanDevice]) {
    *daemon.hops.devices.borrow_mut() = devices.to_vec();
    if daemon.options.mode() == Mode::Tc {
        // The kernel takes tags off before, and puts them on where a packet leaves by a device.
        return;
    }

    warn_of_tags_taken_out(daemon, devices);
    let left_out = daemon.engine.borrow().set_vlan_devices(devices);
    if left_out > 0 {
        tracing::error!(
            left_out,
            most = vlan::MOST,
            "there are more VLAN devices than the director has room for: frames of the last ones go to the stack, and packets to servers behind them are lost"
        );
    }
}

fn learn(daemon: &Daemon, event: &NextHop) {
    daemon.hops.know_way(event);
    let servers: Vec<u32> = event.ids.iter().copied().filter(|id| *id < CLIENTS).collect();
    if servers.is_empty() {
        return;
    }
    if matches!(event.state, State::Unresolved { reason: Reason::Local }) {
        local::serve(daemon);
    }
    let engine = daemon.engine.borrow();
    match &event.state {
        State::Resolved { ifindex, source_mac, dest_mac, mtu, source } => {
            let mtu = u16::try_from(*mtu).unwrap_or(u16::MAX);
            let hop = Hop { to: *dest_mac, from: *source_mac, ifindex: *ifindex, mtu };
            servers.iter().for_each(|id| engine.resolve(*id, &hop, *source));
            tracing::debug!(server = %event.addr, "next hop known");
            daemon.hops.settle(&servers);
        }
        State::Unresolved { reason } => {
            let local = matches!(reason, Reason::Local);
            servers.iter().for_each(|id| engine.unresolve(*id, local));
            if matches!(reason, Reason::NeighbourPending) {
                tracing::debug!(server = %event.addr, %reason, "no next hop yet");
            } else {
                if local {
                    servers.iter().for_each(|id| local::warn_of(&engine, *id));
                } else {
                    tracing::warn!(server = %event.addr, %reason, "no next hop: packets to this server are dropped");
                }
                daemon.hops.settle(&servers);
            }
        }
    }
}
