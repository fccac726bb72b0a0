//! Looks after all services' servers: runs their checks, hears agents and operators, and says what is to change.
//!
//! A machine without sockets and clocks. What a driver does for it: tell it that time has passed ([`Keeper::tick`]) when it
//! wants to be told ([`Keeper::wakes_at`]), carry out [`Task`]s and report how probes ended, and carry out what
//! [`Keeper::settle`] says. Every way in marks the services that it concerns; `settle` looks at those only.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use xlvs_model::state::Service;
use xlvs_model::watch::{AgentSpec, CheckSpec, Command, OnFailure, Pool, Watch};
use xlvs_model::{Change, Model, ServerKey, ServerSpec, ServiceKey};

use crate::check::{Check, Effects, Event, Judgement, Outcome};
use crate::effective::{AgentWord, Effective, Health, Inputs, OperatorWord, Policy, Reason};
use crate::flaps::Flaps;
use crate::moment::Moment;
use crate::overlay::Overlay;
use crate::pool::{Member, Settled, settle};

/// Pools by service, as a configuration has them.
pub type Pools = BTreeMap<ServiceKey, Pool>;

/// A server of a service.
pub type ServerId = (ServiceKey, ServerKey);

/// One of a server's checks, by its place in the configuration.
pub type CheckId = (ServerId, usize);

/// What a driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Start a probe, and report its end with [`Keeper::ended`].
    Probe {
        /// Whose.
        check: CheckId,
        /// Its number.
        number: u64,
        /// What is asked.
        spec: Box<CheckSpec>,
        /// Whom.
        target: SocketAddr,
    },
    /// Stop a probe.
    Abandon {
        /// Whose.
        check: CheckId,
        /// Its number.
        number: u64,
    },
}

/// Something that happened to a server or service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A server stands elsewhere or for another reason.
    Server {
        /// Which.
        server: ServerId,
        /// Where it stands now.
        effective: Effective,
        /// Where it stood before, if that is known.
        before: Option<Effective>,
        /// What its checks say, if one failed; for how long it is held out, if it is.
        detail: Option<String>,
    },
    /// A check of a server warns of something, or does not any more.
    Warning {
        /// Which.
        server: ServerId,
        /// Of what.
        of: Option<String>,
    },
    /// The servers of a service serve again, or do not serve any more.
    Quorum {
        /// Which service.
        service: ServiceKey,
        /// Do they?
        is_up: bool,
    },
}

/// A command that an operator wants to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The program with its arguments.
    pub command: Command,
    /// About which service.
    pub service: ServiceKey,
    /// About which of its servers; `None`: about all.
    pub server: Option<ServerKey>,
    /// Did it come up?
    pub is_up: bool,
}

/// What came of what was heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settlement {
    /// What is to be changed of what is in force, in order.
    pub changes: Vec<Change>,
    /// Commands to be run.
    pub notices: Vec<Notice>,
    /// What to tell.
    pub news: Vec<News>,
    /// Servers that failed and whose connections are to end.
    pub resets: Vec<ServerId>,
    /// The overlay before, for the case that the changes are refused.
    before: Overlay,
}

impl Settlement {
    /// Is anything to be done?
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.notices.is_empty() && self.news.is_empty()
    }
}

/// How a server fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its service.
    pub service: ServiceKey,
    /// As it is stated.
    pub stated: ServerSpec,
    /// Where it stands, and why.
    pub effective: Effective,
    /// What its checks say.
    pub health: Health,
    /// What an operator said.
    pub operator: OperatorWord,
    /// What its agent said last.
    pub agent: Option<AgentWord>,
    /// Why its checks fail, or for how long it is held out.
    pub detail: Option<String>,
    /// What its checks warn of, though they succeed.
    pub warning: Option<String>,
}

/// What the next daemon must know to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    overlay: Overlay,
    operators: Vec<(ServerId, OperatorWord)>,
    agents: Vec<(ServerId, AgentWord)>,
    /// Judged so by their checks; the others are up.
    down: Vec<ServerId>,
    /// Out until their first check has succeeded.
    awaited: Vec<ServerId>,
    quorums_lost: Vec<ServiceKey>,
    /// Held out since they broke too often, with what [`Flaps::of_held`] says: points, and when, as [`Moment::written`].
    #[serde(default)]
    flapped: Vec<(ServerId, u32, u64)>,
}

/// A server that is looked after.
#[derive(Clone, Debug)]
struct Kept {
    watch: Watch,
    checks: Vec<Check>,
    agent: Option<AgentWord>,
    flaps: Flaps,
    /// Where it stood when it was last told of.
    last: Option<Effective>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Keeper {
    seed: u64,
    /// How often the pools were others.
    generation: u64,
    pools: Pools,
    servers: BTreeMap<ServerId, Kept>,
    operators: BTreeMap<ServerId, OperatorWord>,
    quorums_lost: BTreeSet<ServiceKey>,
    overlay: Overlay,
    agenda: BTreeSet<(Instant, CheckId)>,
    /// Servers that are held out, by when they are let go.
    held: BTreeSet<(Instant, ServerId)>,
    dirty: BTreeSet<ServiceKey>,
    /// Services whose changes were refused, to be settled with the next that has news.
    put_off: BTreeSet<ServiceKey>,
    /// Servers of which checks warn of something else than before.
    rewarned: BTreeSet<ServerId>,
    /// Services that are settled and not yet in force so.
    on_the_way: Vec<ServiceKey>,
}

impl Keeper {
    /// A keeper of nothing. Equal seeds make checks at equal times.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// The keeper that another daemon's memory is of. What it knew of servers, it knows again.
    pub fn remembering(seed: u64, memory: Memory, pools: &Pools, moment: Moment) -> Self {
        let Memory { overlay, operators, agents, down, awaited, quorums_lost, flapped } = memory;
        let mut keeper = Self::new(seed);
        keeper.overlay = overlay;
        keeper.operators = operators.into_iter().collect();
        keeper.quorums_lost = quorums_lost.into_iter().collect();
        let (down, awaited): (BTreeSet<_>, BTreeSet<_>) =
            (down.into_iter().collect(), awaited.into_iter().collect());
        let judged = |id: &ServerId| {
            let known = if down.contains(id) { Judgement::Down } else { Judgement::Up };
            if awaited.contains(id) { Judgement::Unknown } else { known }
        };
        keeper.look_after(pools, judged, moment.now);
        for (id, word) in agents {
            keeper.servers.get_mut(&id).into_iter().for_each(|kept| kept.agent = Some(word));
        }
        for (id, points, since) in flapped {
            let damped = keeper.servers.get_mut(&id).filter(|kept| kept.watch.damping.is_some());
            damped.into_iter().for_each(|kept| kept.flaps = Flaps::held_with(points, moment.read(since)));
            keeper.expect_release(id);
        }
        keeper.dirty.extend(keeper.overlay.services());
        keeper
    }

    /// What the next daemon must know.
    pub fn memory(&self, moment: Moment) -> Memory {
        let of = |which: &dyn Fn(&Kept) -> bool| {
            let kept = self.servers.iter().filter(|(_, kept)| which(kept));
            kept.map(|(id, _)| *id).collect()
        };
        let flapped = |(id, kept): (&ServerId, &Kept)| {
            let (points, since) = kept.flaps.of_held()?;
            Some((*id, points, moment.written(since)))
        };
        Memory {
            overlay: self.overlay.clone(),
            operators: self.operators.iter().map(|(id, word)| (*id, *word)).collect(),
            agents: self.servers.iter().filter_map(|(id, kept)| Some((*id, kept.agent?))).collect(),
            down: of(&|kept| kept.health() == Health::Down),
            awaited: of(&|kept| kept.health() == Health::Unknown && kept.watch.alpha),
            quorums_lost: self.quorums_lost.iter().copied().collect(),
            flapped: self.servers.iter().filter_map(flapped).collect(),
        }
    }

    /// From now on these pools hold. A check that stays goes on as if nothing had happened; one that is new of a server that
    /// is known begins with what is known of it, and a server that serves without checks until now is taken to be up.
    pub fn reconfigure(&mut self, pools: &Pools, in_force: &Model, now: Instant) {
        let serves = |(service, server): &ServerId| {
            in_force.service(service).is_some_and(|s| s.server(server).is_some())
        };
        self.look_after(pools, |id| if serves(id) { Judgement::Up } else { Judgement::Unknown }, now);
    }

    /// `judged`: what is known of servers that were not looked after until now.
    fn look_after(&mut self, pools: &Pools, judged: impl Fn(&ServerId) -> Judgement, now: Instant) {
        self.generation += 1;
        let mut before = std::mem::take(&mut self.servers);
        let same = |key: &ServiceKey| self.pools.get(key) == pools.get(key);
        let changed = self.pools.keys().chain(pools.keys()).filter(|key| !same(key)).copied();
        self.dirty.extend(changed.collect::<Vec<_>>());
        self.pools.clone_from(pools);
        self.agenda.clear();
        self.held.clear();
        for (key, pool) in pools {
            for (server, watch) in &pool.servers {
                let id = (*key, *server);
                let kept = self.keep(id, watch, before.remove(&id), judged(&id), now);
                self.held.extend(kept.free_at().map(|at| (at, id)));
                self.servers.insert(id, kept);
            }
        }
    }

    fn keep(
        &mut self,
        id: ServerId,
        watch: &Watch,
        before: Option<Kept>,
        unknown: Judgement,
        now: Instant,
    ) -> Kept {
        let judgement = match before.as_ref().map(Kept::health) {
            Some(Health::Up) => Judgement::Up,
            Some(Health::Down) => Judgement::Down,
            Some(Health::Unknown) => Judgement::Unknown,
            Some(Health::Unchecked) | None => unknown,
        };
        let fresh =
            |at: usize, spec: &CheckSpec| Check::new(spec.timing, judgement, self.seed_of((id, at)), now);
        let checks = watch.checks.iter().enumerate().map(|(at, spec)| {
            let same = before.as_ref().filter(|kept| kept.watch.checks.get(at) == Some(spec));
            same.map_or_else(|| fresh(at, spec), |kept| kept.checks[at].clone())
        });
        let checks: Vec<Check> = checks.collect();
        let wakes = checks.iter().enumerate().map(|(at, check)| (check.wakes_at(), (id, at)));
        self.agenda.extend(wakes);
        let agent = before.as_ref().and_then(|kept| kept.agent).filter(|_| watch.agent.is_some());
        let same_damping = before.as_ref().filter(|kept| kept.watch.damping == watch.damping);
        let flaps = same_damping.map(|kept| kept.flaps).unwrap_or_default();
        Kept { watch: watch.clone(), checks, agent, flaps, last: before.and_then(|kept| kept.last) }
    }

    fn seed_of(&self, check: CheckId) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, self.generation, check).hash(&mut hasher);
        hasher.finish()
    }

    // ------------------------------------------------------------------------------------------------------- checks

    /// When it wants a [`Keeper::tick`].
    pub fn wakes_at(&self) -> Option<Instant> {
        let check = self.agenda.first().map(|(at, _)| *at);
        let release = self.held.first().map(|(at, _)| *at);
        check.into_iter().chain(release).min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) -> Vec<Task> {
        self.let_go(now);
        let mut tasks = Vec::new();
        while let Some((_, check)) = self.agenda.first().filter(|(at, _)| *at <= now).copied() {
            let effects = self.step(check, Event::Tick, now);
            self.note(check, &effects);
            if let Some(number) = effects.abandon {
                tasks.push(Task::Abandon { check, number });
            }
            if let Some(number) = effects.probe {
                tasks.extend(self.probe(check, number));
            }
        }
        tasks
    }

    /// A probe ended so.
    pub fn ended(&mut self, check: CheckId, number: u64, outcome: Outcome, now: Instant) {
        let effects = self.step(check, Event::Ended(number, outcome), now);
        self.note(check, &effects);
    }

    /// Steps a check and keeps the agenda true.
    fn step(&mut self, id: CheckId, event: Event, now: Instant) -> Effects {
        let Some(check) = self.servers.get_mut(&id.0).and_then(|kept| kept.checks.get_mut(id.1)) else {
            return Effects::default();
        };
        self.agenda.remove(&(check.wakes_at(), id));
        let was_up = check.judgement() == Judgement::Up;
        let effects = check.step(event, now);
        self.agenda.insert((check.wakes_at(), id));
        if was_up && effects.judged == Some(Judgement::Down) {
            self.count_failure(id.0, now);
        }
        effects
    }

    /// One of a server's checks failed; if the others do not, the server broke just now.
    fn count_failure(&mut self, id: ServerId, now: Instant) {
        let Some(kept) = self.servers.get_mut(&id) else { return };
        let down = kept.checks.iter().filter(|check| check.judgement() == Judgement::Down).count();
        if let Some(half_life) = kept.watch.damping.filter(|_| down == 1) {
            kept.flaps.broke(half_life, now);
            self.expect_release(id);
        }
    }

    /// Has a server that is held out let go in time.
    fn expect_release(&mut self, id: ServerId) {
        self.held.retain(|(_, held)| *held != id);
        self.held.extend(self.servers.get(&id).and_then(Kept::free_at).map(|at| (at, id)));
    }

    fn let_go(&mut self, now: Instant) {
        while let Some((_, id)) = self.held.first().filter(|(at, _)| *at <= now).copied() {
            self.held.pop_first();
            let Some(kept) = self.servers.get_mut(&id) else { continue };
            if kept.watch.damping.is_some_and(|half_life| kept.flaps.let_go(half_life, now)) {
                self.dirty.insert(id.0);
            }
        }
    }

    fn note(&mut self, (id, _): CheckId, effects: &Effects) {
        if effects.judged.is_some() {
            self.dirty.insert(id.0);
        }
        if effects.rewarned {
            self.rewarned.insert(id);
        }
    }

    fn probe(&self, check: CheckId, number: u64) -> Option<Task> {
        let ((_, server), at) = check;
        let spec = self.servers.get(&check.0)?.watch.checks.get(at)?.clone();
        let target = SocketAddr::new(spec.address.unwrap_or(server.addr), spec.port);
        Some(Task::Probe { check, number, spec: Box::new(spec), target })
    }

    // --------------------------------------------------------------------------------------- agents and operators

    /// The agents that are to be asked.
    pub fn agents(&self) -> impl Iterator<Item = (ServerId, &AgentSpec)> {
        self.servers.iter().filter_map(|(id, kept)| Some((*id, kept.watch.agent.as_ref()?)))
    }

    /// What a server's checks say.
    pub fn health(&self, server: ServerId) -> Health {
        self.servers.get(&server).map(Kept::health).unwrap_or_default()
    }

    /// What a server's agent has said until now.
    pub fn agent_word(&self, server: ServerId) -> AgentWord {
        self.servers.get(&server).and_then(|kept| kept.agent).unwrap_or_default()
    }

    /// A server's agent said this.
    pub fn agent_said(&mut self, server: ServerId, word: AgentWord) {
        let Some(kept) = self.servers.get_mut(&server).filter(|kept| kept.watch.agent.is_some()) else {
            return;
        };
        if kept.agent != Some(word) {
            kept.agent = Some(word);
            self.dirty.insert(server.0);
        }
    }

    /// An operator said this of a server.
    pub fn operator_said(&mut self, server: ServerId, word: OperatorWord) {
        if word == OperatorWord::Enabled {
            self.operators.remove(&server);
            // Who says so knows why it broke.
            self.servers.get_mut(&server).into_iter().for_each(|kept| kept.flaps = Flaps::default());
            self.expect_release(server);
        } else {
            self.operators.insert(server, word);
        }
        self.dirty.insert(server.0);
    }

    /// Commands changed what is in force. Returns whether that is to be remembered.
    pub fn heard(&mut self, changes: &[Change]) -> bool {
        let is_news = self.overlay.heard(changes);
        for change in changes {
            let (Change::AddServer(key, _) | Change::EditServer(key, _) | Change::DeleteServer(key, _)) =
                change
            else {
                continue;
            };
            if self.is_kept(key) {
                self.dirty.insert(*key);
            }
        }
        is_news
    }

    /// Is anything to be settled?
    pub fn is_unsettled(&self) -> bool {
        !self.dirty.is_empty() || !self.rewarned.is_empty()
    }

    fn is_kept(&self, key: &ServiceKey) -> bool {
        self.pools.contains_key(key) || self.operators.keys().any(|(service, _)| service == key)
    }

    // ------------------------------------------------------------------------------------------------- what holds

    /// What is stated, of what is in force.
    pub fn stated(&self, in_force: &Model) -> Model {
        self.overlay.stated(in_force)
    }

    /// A server as it is stated, also while it is out of its service.
    pub fn stated_server(&self, (service, server): &ServerId, in_force: &Model) -> Option<ServerSpec> {
        let servers = self.overlay.stated_servers(in_force.service(service)?);
        servers.iter().find(|spec| spec.key == *server).copied()
    }

    /// What is to be in force of what is stated; and it is held to be from now on. Servers that are in force `now` keep their
    /// order, unless the stated one is wanted.
    pub fn project(&mut self, stated: &Model, now: Option<&Model>) -> Model {
        self.operators
            .retain(|(key, server), _| stated.service(key).is_some_and(|s| s.server(server).is_some()));
        self.overlay = Overlay::default();
        self.dirty.clear();
        self.on_the_way.clear();
        let mut in_force = stated.clone();
        let kept = self.operators.keys().map(|(key, _)| *key).chain(self.pools.keys().copied());
        for key in kept.collect::<BTreeSet<_>>() {
            let Some(service) = stated.service(&key) else { continue };
            let settled = self.settled(service, &service.servers);
            let before = now.and_then(|now| now.service(&key)).map(|before| &before.servers[..]);
            let placed = placed(before.unwrap_or_default(), &settled.servers);
            self.remember(key, &settled, &service.servers);
            if placed != service.servers {
                self.overlay.hold(key, &service.servers);
            }
            let away = service.servers.iter().map(|spec| Change::DeleteServer(key, spec.key));
            let back = placed.iter().map(|spec| Change::AddServer(key, *spec));
            // Servers that a model had can be in one.
            away.chain(back).for_each(|change| _ = in_force.apply(&change));
        }
        in_force
    }

    fn remember(&mut self, key: ServiceKey, settled: &Settled, stated: &[ServerSpec]) {
        if settled.has_quorum {
            self.quorums_lost.remove(&key);
        } else {
            self.quorums_lost.insert(key);
        }
        for (server, effective) in stated.iter().zip(&settled.effective) {
            self.servers
                .get_mut(&(key, server.key))
                .into_iter()
                .for_each(|kept| kept.last = Some(*effective));
        }
    }

    /// What is to change in what is in force, after all that was heard. What was stated is held until
    /// [`Keeper::carried_out`] is told, so that a memory taken in between is right whether it was done or not.
    pub fn settle(&mut self, in_force: &Model, now: Instant) -> Settlement {
        if !self.is_unsettled() {
            return Settlement::default();
        }
        let news = self.warnings();
        let mut settlement = Settlement { before: self.overlay.clone(), news, ..Settlement::default() };
        if !self.dirty.is_empty() {
            self.dirty.append(&mut self.put_off);
        }
        for key in std::mem::take(&mut self.dirty) {
            let Some(service) = in_force.service(&key) else { continue };
            let stated = self.overlay.stated_servers(service).to_vec();
            let settled = self.settled(service, &stated);
            self.tell(key, &settled, &stated, now, &mut settlement);
            let placed = placed(&service.servers, &settled.servers);
            settlement.changes.extend(difference(service, &placed));
            self.remember(key, &settled, &stated);
            self.overlay.hold(key, &stated);
            self.on_the_way.push(key);
        }
        settlement
    }

    /// What checks warn of since it was told last.
    fn warnings(&mut self) -> Vec<News> {
        let servers = std::mem::take(&mut self.rewarned).into_iter();
        servers
            .filter_map(|server| {
                let of = self.servers.get(&server)?.warning();
                Some(News::Warning { server, of })
            })
            .collect()
    }

    /// What was settled is in force.
    pub fn carried_out(&mut self, in_force: &Model) {
        let services =
            std::mem::take(&mut self.on_the_way).into_iter().filter_map(|key| in_force.service(&key));
        services.for_each(|service| self.overlay.release(service));
    }

    /// The director refused the changes: what is in force is as it was, and is settled anew when there is other news.
    pub fn refused(&mut self, settlement: Settlement) {
        let services = settlement.changes.iter().filter_map(|change| match change {
            Change::AddServer(key, _) | Change::EditServer(key, _) | Change::DeleteServer(key, _) => {
                Some(*key)
            }
            _ => None,
        });
        self.put_off.extend(services);
        self.overlay = settlement.before;
        self.on_the_way.clear();
    }

    fn settled(&self, service: &Service, stated: &[ServerSpec]) -> Settled {
        let key = service.spec.key;
        let nothing = Pool::default();
        let pool = self.pools.get(&key).unwrap_or(&nothing);
        let members: Vec<Member> = stated.iter().map(|spec| self.member(key, *spec)).collect();
        settle(pool, &members, !self.quorums_lost.contains(&key))
    }

    fn member(&self, service: ServiceKey, spec: ServerSpec) -> Member {
        let id = (service, spec.key);
        let kept = self.servers.get(&id);
        let inputs = Inputs {
            configured: spec.weight,
            operator: self.operators.get(&id).copied().unwrap_or_default(),
            health: kept.map(Kept::health).unwrap_or_default(),
            is_held: kept.is_some_and(|kept| kept.flaps.is_held()),
            agent: kept.and_then(|kept| kept.agent),
            policy: kept.map(Kept::policy).unwrap_or_default(),
        };
        Member { spec, inputs }
    }

    /// What is new about a service, and whom that is to be told.
    fn tell(
        &self,
        service: ServiceKey,
        settled: &Settled,
        stated: &[ServerSpec],
        now: Instant,
        settlement: &mut Settlement,
    ) {
        for (spec, effective) in stated.iter().zip(&settled.effective) {
            let server = (service, spec.key);
            let Some(kept) = self.servers.get(&server) else { continue };
            if kept.last == Some(*effective) {
                continue;
            }
            settlement.news.push(News::Server {
                server,
                effective: *effective,
                before: kept.last,
                detail: kept.detail(*effective, now),
            });
            let is_up = !effective.reason.is_failure();
            let was_up = kept.last.is_none_or(|last| !last.reason.is_failure());
            if was_up && effective.reason.has_broken() && kept.watch.on_failure == OnFailure::Reset {
                settlement.resets.push(server);
            }
            let command = if is_up { &kept.watch.notify_up } else { &kept.watch.notify_down };
            let command = command.clone().filter(|_| is_up != was_up);
            let notice = |command| Notice { command, service, server: Some(spec.key), is_up };
            settlement.notices.extend(command.map(notice));
        }
        let is_up = settled.has_quorum;
        if is_up == self.quorums_lost.contains(&service) {
            settlement.news.push(News::Quorum { service, is_up });
            let pool = self.pools.get(&service);
            let command =
                pool.and_then(|pool| if is_up { pool.quorum_up.clone() } else { pool.quorum_down.clone() });
            settlement.notices.extend(command.map(|command| Notice {
                command,
                service,
                server: None,
                is_up,
            }));
        }
    }

    /// How the servers fare that are looked after, or of which an operator said something.
    pub fn standings(&self, in_force: &Model, now: Instant) -> Vec<Standing> {
        let kept = self.operators.keys().chain(self.servers.keys()).map(|(key, _)| *key);
        let services = kept.collect::<BTreeSet<_>>().into_iter().filter_map(|key| in_force.service(&key));
        services.flat_map(|service| self.standings_of(service, now)).collect()
    }

    fn standings_of(&self, service: &Service, now: Instant) -> Vec<Standing> {
        let key = service.spec.key;
        let stated = self.overlay.stated_servers(service);
        let settled = self.settled(service, stated);
        let standing = |(stated, effective): (&ServerSpec, &Effective)| {
            let id = (key, stated.key);
            let inputs = self.member(key, *stated).inputs;
            Standing {
                service: key,
                stated: *stated,
                effective: *effective,
                health: inputs.health,
                operator: inputs.operator,
                agent: inputs.agent,
                detail: self.servers.get(&id).and_then(|kept| kept.detail(*effective, now)),
                warning: self.servers.get(&id).and_then(Kept::warning),
            }
        };
        stated.iter().zip(&settled.effective).map(standing).collect()
    }
}

impl Kept {
    fn health(&self) -> Health {
        let any = |judgement| self.checks.iter().any(|check| check.judgement() == judgement);
        if self.checks.is_empty() {
            Health::Unchecked
        } else if any(Judgement::Down) {
            Health::Down
        } else if any(Judgement::Unknown) {
            Health::Unknown
        } else {
            Health::Up
        }
    }

    fn policy(&self) -> Policy {
        Policy { inhibit_on_failure: self.watch.inhibit_on_failure, alpha: self.watch.alpha }
    }

    /// When it is held out no more, if it is.
    fn free_at(&self) -> Option<Instant> {
        self.flaps.free_at(self.watch.damping?)
    }

    /// What its checks warn of.
    fn warning(&self) -> Option<String> {
        self.checks.iter().find_map(Check::warning).map(str::to_owned)
    }

    /// For how long it is held out, or why a check fails.
    fn detail(&self, stands: Effective, now: Instant) -> Option<String> {
        if stands.reason == Reason::Flapping {
            return self.free_at().map(|at| for_seconds(at.saturating_duration_since(now)));
        }
        let failing = self.checks.iter().find_map(Check::reason);
        failing.map(str::to_owned)
    }
}

fn for_seconds(time: Duration) -> String {
    format!("for {} s more", time.as_millis().div_ceil(1000))
}

/// These servers as they come to stand: those that were there before keep their order, and a server that comes back is the newest.
fn placed(before: &[ServerSpec], wanted: &[ServerSpec]) -> Vec<ServerSpec> {
    let is_among = |list: &[ServerSpec], server: &ServerKey| list.iter().position(|spec| spec.key == *server);
    let stay = before.iter().filter_map(|spec| Some(wanted[is_among(wanted, &spec.key)?]));
    let new = wanted.iter().filter(|spec| is_among(before, &spec.key).is_none()).copied();
    stay.chain(new).collect()
}

/// What makes these of a service's servers.
fn difference(service: &Service, placed: &[ServerSpec]) -> Vec<Change> {
    let key = service.spec.key;
    let is_placed = |server: &ServerKey| placed.iter().any(|spec| spec.key == *server);
    let gone = service.servers.iter().filter(|spec| !is_placed(&spec.key));
    let mut changes: Vec<Change> = gone.map(|spec| Change::DeleteServer(key, spec.key)).collect();
    for spec in placed {
        match service.server(&spec.key) {
            None => changes.push(Change::AddServer(key, *spec)),
            Some(now) if now != spec => changes.push(Change::EditServer(key, *spec)),
            Some(_) => {}
        }
    }
    changes
}
