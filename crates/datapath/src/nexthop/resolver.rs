//! The state machine: what the kernel says in, questions and next hops out.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    Change, Mac, NextHop, Reason, State,
    mirror::Mirror,
    neighbours::{Neighbour, NeighbourKey, Neighbours},
    path_mtus::PathMtus,
    resync::{Dump, Next, Resync},
    routes::{Prefix, Route, Routes},
    targets::Targets,
    unspecified_like,
    vlans::{self, Above, VlanDevice},
};

/// How long changes are left to settle before the kernel is asked what they amount to.
pub(super) const SETTLE: Duration = Duration::from_millis(20);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Other servers are wanted.
    Targets(Change),
    /// An interface is like this now.
    Link(Link),
    /// An interface has gone.
    LinkGone(u32),
    /// A neighbour is like this now.
    Neighbour(Neighbour),
    /// A neighbour's entry has gone.
    NeighbourGone(NeighbourKey),
    /// The kernel refused a neighbour request.
    NeighbourRefused {
        /// Which neighbour.
        key: NeighbourKey,
        /// With which error number.
        errno: i32,
    },
    /// The kernel's answer to [`Request::Route`].
    RouteAnswer {
        /// The address asked about.
        addr: IpAddr,
        /// The route, or why there is none.
        answer: Result<Route, Reason>,
    },
    /// A route to these addresses was added, changed or removed.
    RoutesChanged(Prefix),
    /// Something changed that any route may depend on: a rule, a next hop object.
    RoutingChanged,
    /// The director gained or lost an address, or an address changed.
    AddressChanged {
        /// Interface it is on.
        ifindex: u32,
        /// The address.
        addr: IpAddr,
    },
    /// All rows of [`Request::Dump`] have been delivered as events.
    DumpDone {
        /// Of which table.
        dump: Dump,
        /// False if the kernel says that rows may be missing.
        complete: bool,
    },
    /// Notifications and answers were lost.
    Overflow,
    /// A router on the way to a server has said how large packets may be.
    PathMtu {
        /// The server's address.
        addr: IpAddr,
        /// Bytes of an IP packet.
        mtu: u32,
    },
    /// Time has passed.
    Tick,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address; `None` if it is not an Ethernet interface.
    pub mac: Option<Mac>,
    /// Its MTU.
    pub mtu: u32,
    /// Set up by the operator.
    pub up: bool,
    /// Has a peer.
    pub carrier: bool,
    /// What it is above, if it is a VLAN device.
    pub vlan: Option<Above>,
}

impl Link {
    fn works(&self) -> bool {
        self.up && self.carrier
    }
}

/// Something to ask of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// All rows of a table, then [`Event::DumpDone`].
    Dump(Dump),
    /// The route to an address; always answered by [`Event::RouteAnswer`], if need be after asking again.
    Route(IpAddr),
    /// A neighbour; answered by [`Event::NeighbourRefused`] or not at all.
    Neighbour {
        /// Which one.
        key: NeighbourKey,
        /// What to do.
        upkeep: Upkeep,
    },
}

/// What the kernel is to do with a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upkeep {
    /// Make an entry and keep it resolved; fails if there is one, which may be an operator's.
    CreateManaged,
    /// Keep the entry there is resolved.
    Manage,
    /// Resolve it once.
    Probe,
    /// Treat it as any other from now on.
    Release,
}

/// What a step leads to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// To be sent to the kernel, in this order.
    pub requests: Vec<Request>,
    /// All VLAN devices that there are now, if they changed. To be told to the data plane before what follows.
    pub devices: Option<Vec<VlanDevice>>,
    /// To be told to the data plane.
    pub changes: Vec<NextHop>,
}

/// Knows how each server is reached.
///
/// Feed it every event and call [`Resolver::step`] with [`Event::Tick`] at [`Resolver::next_deadline`];
/// the first tick is due at once.
#[derive(Debug)]
pub struct Resolver {
    pub(super) targets: Targets,
    pub(super) routes: Routes,
    pub(super) links: Mirror<u32, Link>,
    pub(super) neighbours: Neighbours,
    path_mtus: PathMtus,
    resync: Resync,
    devices: Option<Vec<VlanDevice>>,
    are_devices_doubted: bool,
    touched: BTreeSet<IpAddr>,
    requests: Vec<Request>,
}

impl Resolver {
    /// One that knows nothing yet.
    pub fn new(now: Instant) -> Self {
        Self {
            targets: Targets::default(),
            routes: Routes::default(),
            links: Mirror::new(),
            neighbours: Neighbours::new(now),
            path_mtus: PathMtus::default(),
            resync: Resync::new(now),
            devices: None,
            are_devices_doubted: true,
            touched: BTreeSet::new(),
            requests: Vec::new(),
        }
    }

    /// Takes in one event, and does whatever is due at `now`.
    pub fn step(&mut self, event: Event, now: Instant) -> Effects {
        self.absorb(event, now);
        self.begin_resync_due(now);
        let is_live = self.resync.is_live();
        let devices = if is_live { self.changed_devices() } else { None };
        let changes = if is_live { self.settle(now) } else { Vec::new() };
        Effects { requests: std::mem::take(&mut self.requests), devices, changes }
    }

    /// When a tick is due.
    pub fn next_deadline(&self) -> Instant {
        let resync = self.resync.deadline();
        if !self.resync.is_live() {
            return resync;
        }
        let others = [self.routes.deadline(), self.path_mtus.deadline()];
        others.into_iter().flatten().fold(self.neighbours.deadline().min(resync), Instant::min)
    }

    fn absorb(&mut self, event: Event, now: Instant) {
        match event {
            Event::Targets(change) => self.change_targets(change, now),
            Event::Link(link) => self.put_link(link, now),
            Event::LinkGone(ifindex) => {
                if self.links.remove(&ifindex).is_some() {
                    self.lose_link(ifindex, now);
                }
            }
            Event::Neighbour(entry) => {
                let targets = self.neighbours.put(entry, now);
                self.touched.extend(targets);
            }
            Event::NeighbourGone(key) => self.neighbours.gone(key, now),
            Event::NeighbourRefused { key, errno } => {
                self.requests.extend(self.neighbours.refused(key, errno));
            }
            Event::RouteAnswer { addr, answer } => self.take_answer(addr, answer, now),
            Event::RoutesChanged(prefix) => {
                let addrs = self.targets.addresses_in(prefix.range()).collect();
                self.doubt(addrs, now + SETTLE);
            }
            Event::RoutingChanged => self.doubt(self.targets.addresses().collect(), now + SETTLE),
            Event::AddressChanged { ifindex, addr } => self.doubt_after_address(ifindex, addr, now),
            Event::DumpDone { dump, complete } => self.finish_dump(dump, complete, now),
            Event::Overflow => self.resync.distrust(now),
            Event::PathMtu { addr, mtu } => {
                if self.targets.wants(addr) && self.path_mtus.learn(addr, mtu, now) {
                    self.touched.extend(self.targets.wanted(addr));
                }
            }
            Event::Tick => {}
        }
    }

    // Targets and routes.

    fn change_targets(&mut self, change: Change, now: Instant) {
        let concerned = self.targets.change(change);
        for addr in concerned.left {
            self.neighbours.follow(addr, None, now);
            self.routes.forget(addr);
            self.path_mtus.forget(addr);
        }
        for addr in concerned.joined {
            match self.routes.get(addr) {
                Some(_) => drop(self.touched.insert(addr)),
                None => self.routes.doubt(addr, now),
            }
        }
    }

    fn take_answer(&mut self, addr: IpAddr, answer: Result<Route, Reason>, now: Instant) {
        if self.targets.wants(addr) && self.routes.answer(addr, answer, now) {
            self.touched.extend(self.targets.wanted(addr));
        }
    }

    fn doubt(&mut self, addrs: Vec<IpAddr>, at: Instant) {
        addrs.into_iter().for_each(|addr| self.routes.doubt(addr, at));
    }

    /// Routes by that interface may change; so may the choice of a source address; the address itself may
    /// be a server's, which is then local or no longer. The kernel flushes IPv4 routes that prefer a source
    /// address which goes away without a word.
    fn doubt_after_address(&mut self, ifindex: u32, addr: IpAddr, now: Instant) {
        let addrs = self.routes.addresses_where(|answer| match answer {
            Ok(route) => route.ifindex == ifindex || route.source == Some(addr),
            Err(_) => true,
        });
        self.doubt(addrs, now + SETTLE);
        if self.targets.wants(addr) {
            self.routes.doubt(addr, now + SETTLE);
        }
    }

    // Links.

    fn put_link(&mut self, link: Link, now: Instant) {
        let (ifindex, works) = (link.ifindex, link.works());
        let old = self.links.put(ifindex, link);
        if old.as_ref() == self.links.get(&ifindex) {
            return;
        }
        self.touch_link(ifindex, now);
        if works && !old.is_some_and(|old| old.works()) {
            self.neighbours.attend_to_link(ifindex, now);
            // With `ignore_routes_with_linkdown` a route works again without being announced.
            self.doubt(self.routes.addresses_where(Result::is_err), now + SETTLE);
        }
    }

    fn lose_link(&mut self, ifindex: u32, now: Instant) {
        self.neighbours.forget_link(ifindex);
        self.touch_link(ifindex, now);
    }

    /// An interface changed: so does what leaves by it, and other routes may take its place. When an
    /// interface goes down the kernel drops its IPv4 routes without announcing it.
    fn touch_link(&mut self, ifindex: u32, now: Instant) {
        self.are_devices_doubted = true;
        let addrs = self.routes.addresses_where(|answer| answer.is_ok_and(|route| route.ifindex == ifindex));
        for addr in addrs {
            self.touched.extend(self.targets.wanted(addr));
            self.routes.doubt(addr, now + SETTLE);
        }
    }

    /// The VLAN devices, if they are others than were told.
    fn changed_devices(&mut self) -> Option<Vec<VlanDevice>> {
        if !std::mem::take(&mut self.are_devices_doubted) {
            return None;
        }
        let devices = Some(vlans::devices(&self.links));
        if devices == self.devices {
            return None;
        }
        self.devices.clone_from(&devices);
        devices
    }

    // Full looks.

    fn begin_resync_due(&mut self, now: Instant) {
        if let Some(dump) = self.resync.begin_due(now) {
            self.begin_dump(dump);
        }
    }

    fn begin_dump(&mut self, dump: Dump) {
        match dump {
            Dump::Links => self.links.begin(),
            Dump::Neighbours => self.neighbours.begin_dump(),
        }
        self.requests.push(Request::Dump(dump));
    }

    fn finish_dump(&mut self, dump: Dump, complete: bool, now: Instant) {
        let Some(next) = self.resync.advance(dump, complete, now) else { return };
        match dump {
            Dump::Links => {
                self.links.finish(complete).into_iter().for_each(|ifindex| self.lose_link(ifindex, now))
            }
            Dump::Neighbours => self.neighbours.finish_dump(complete, now),
        }
        match next {
            Next::Dump(dump) => self.begin_dump(dump),
            Next::AskRoutes => self.doubt(self.targets.addresses().collect(), now),
        }
    }

    // Conclusions.

    /// Does what is due, and tells what has changed.
    fn settle(&mut self, now: Instant) -> Vec<NextHop> {
        if let Some(targets) = self.neighbours.round_due(now) {
            self.touched.extend(targets);
            self.release_orphans();
        }
        for addr in self.path_mtus.forget_due(now) {
            self.touched.extend(self.targets.wanted(addr));
        }
        let changes = std::mem::take(&mut self.touched)
            .into_iter()
            .filter_map(|addr| self.conclude(addr, now))
            .collect();
        self.requests.extend(self.routes.questions_due(now).into_iter().map(Request::Route));
        let works = |ifindex| self.links.get(&ifindex).is_some_and(Link::works);
        self.requests.extend(self.neighbours.requests_due(now, works));
        changes
    }

    /// Not before all routes are known: at a restart, the entries of the life before are still needed.
    fn release_orphans(&mut self) {
        if self.targets.are_given() && self.routes.are_settled() {
            self.requests.extend(self.neighbours.orphans());
        }
    }

    fn conclude(&mut self, addr: IpAddr, now: Instant) -> Option<NextHop> {
        let answer = self.routes.get(addr)?;
        let neighbour = answer.ok().and_then(|route| self.neighbour_of(addr, &route));
        self.neighbours.follow(addr, neighbour, now);
        let state = answer
            .and_then(|route| self.send_by(addr, &route))
            .unwrap_or_else(|reason| State::Unresolved { reason });
        self.targets.tell(addr, state)
    }

    /// The neighbour that the way to an address leads through. An interface that is down keeps its neighbours wanted: it may
    /// come back.
    fn neighbour_of(&self, addr: IpAddr, route: &Route) -> Option<NeighbourKey> {
        self.links.get(&route.ifindex)?.mac?;
        Some(route.neighbour_towards(addr))
    }

    /// The next hop by that route.
    pub(super) fn send_by(&self, addr: IpAddr, route: &Route) -> Result<State, Reason> {
        let ifindex = route.ifindex;
        let link =
            self.links.get(&ifindex).filter(|link| link.up).ok_or(Reason::InterfaceDown { ifindex })?;
        if !link.carrier {
            return Err(Reason::NoCarrier { ifindex });
        }
        let source_mac = link.mac.ok_or(Reason::NotEthernet { ifindex })?;
        let dest_mac = self.neighbours.mac(&route.neighbour_towards(addr))?;
        let limits = [route.mtu, self.path_mtus.get(addr)];
        let mtu = limits.into_iter().flatten().fold(link.mtu, u32::min);
        let source = route.source.unwrap_or_else(|| unspecified_like(addr));
        Ok(State::Resolved { ifindex, source_mac, dest_mac, mtu, source })
    }
}
