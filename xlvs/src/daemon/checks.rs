//! Drives the keeper: runs its probes, carries out what it settles, and runs the commands that operators want run.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::time::{ClockId, clock_gettime};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::sleep_until;
use xlvs_health::keeper::{CheckId, ServerId};
use xlvs_health::{Keeper, Memory, Moment, News, Notice, OperatorWord, Outcome, Place, Task};
use xlvs_model::watch::{CheckSpec, Via};
use xlvs_model::{Change, Config};

use super::path::Through;
use super::probe::Whom;
use super::{Daemon, control, events, probe, reset, revisions};
use crate::paths::Paths;
use crate::{plan, program};

/// The keeper, and the bell that is rung when it has heard something.
pub struct Checks {
    /// See [`Keeper`].
    pub keeper: RefCell<Keeper>,
    bell: Notify,
}

impl Checks {
    /// As an earlier daemon left it, if one did.
    pub fn resume(paths: &Paths, policy: &Config, earlier: bool) -> Self {
        let path = paths.health();
        let read = || serde_json::from_str::<Memory>(&std::fs::read_to_string(&path).ok()?).ok();
        let memory = if earlier { read().unwrap_or_default() } else { Memory::default() };
        if !earlier {
            let _none = std::fs::remove_file(&path);
        }
        let keeper = Keeper::remembering(fastrand::u64(..), memory, &policy.pools, moment());
        Self { keeper: keeper.into(), bell: Notify::new() }
    }

    /// The keeper heard something that may have to be settled.
    pub fn ring(&self) {
        self.bell.notify_one();
    }

    /// Writes down what the next daemon must know; before that is in force of which it speaks.
    pub fn remember(keeper: &Keeper, paths: &Paths) -> anyhow::Result<()> {
        let text = serde_json::to_string(&keeper.memory(moment()))?;
        let path = paths.health();
        revisions::replace(&path, &text).with_context(|| format!("write {}", path.display()))
    }

    /// Commands changed what is in force.
    pub fn heard(&self, changes: &[Change], paths: &Paths) {
        let is_news = self.keeper.borrow_mut().heard(changes);
        if is_news {
            self.remember_or_tell(paths);
        }
        self.ring();
    }

    /// An operator said this of a server.
    pub fn operator_said(&self, server: ServerId, word: OperatorWord, paths: &Paths) {
        self.keeper.borrow_mut().operator_said(server, word);
        self.remember_or_tell(paths);
        self.ring();
    }

    fn remember_or_tell(&self, paths: &Paths) {
        if let Err(why) = Self::remember(&self.keeper.borrow(), paths) {
            tracing::error!(%why, "a daemon that takes over will not know how servers fare");
        }
    }
}

/// Now, also by the clock that the next daemon will know.
fn moment() -> Moment {
    let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    Moment { now: Instant::now(), since_boot }
}

/// A probe that ended.
type Ended = (CheckId, u64, Outcome);

/// Probes under way.
struct Probes {
    daemon: Rc<Daemon>,
    running: HashMap<(CheckId, u64), AbortHandle>,
    ended: mpsc::UnboundedSender<Ended>,
}

impl Probes {
    fn carry_out(&mut self, task: Task) {
        match task {
            Task::Probe { check, number, spec, target } => {
                let ended = self.ended.clone();
                let through = through(&self.daemon, &check.0, &spec);
                let whom = Whom { server: target, through };
                let probe = tokio::task::spawn_local(async move {
                    // The keeper gives it up in time, unless it forgets the check meanwhile.
                    let patience = spec.timing.timeout * 2;
                    let probing = tokio::time::timeout(patience, probe::probe(&spec, &whom));
                    let late = |_| Outcome::Failure("no answer in time".to_owned());
                    let outcome = probing.await.unwrap_or_else(late);
                    // It only fails when the daemon ends.
                    let _ended = ended.send((check, number, outcome));
                });
                self.running.insert((check, number), probe.abort_handle());
            }
            Task::Abandon { check, number } => {
                if let Some(probe) = self.running.remove(&(check, number)) {
                    probe.abort();
                }
            }
        }
    }
}

/// Never ends.
pub async fn run(daemon: Rc<Daemon>) {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let mut probes = Probes { daemon: Rc::clone(&daemon), running: HashMap::new(), ended };
    let mut calm = Instant::now();
    loop {
        if Instant::now() >= calm {
            let began = Instant::now();
            settle(&daemon);
            // When half of a large site fails, settling takes a while; checks need their time too.
            calm = Instant::now() + began.elapsed() * SHARE;
        }
        let first = tokio::select! {
            () = sleep_until(wakes_at(&daemon, calm).into()) => None,
            () = daemon.checks.bell.notified() => None,
            end = ends.recv() => end,
        };
        let mut keeper = daemon.checks.keeper.borrow_mut();
        let now = Instant::now();
        for (check, number, outcome) in first.into_iter().chain(std::iter::from_fn(|| ends.try_recv().ok())) {
            probes.running.remove(&(check, number));
            daemon.work.checked(matches!(outcome, Outcome::Success | Outcome::Warning(_)));
            keeper.ended(check, number, outcome, now);
        }
        let tasks = keeper.tick(now);
        drop(keeper);
        tasks.into_iter().for_each(|task| probes.carry_out(task));
    }
}

/// A client's way to a server, for a check that takes it.
fn through(daemon: &Rc<Daemon>, server: &ServerId, spec: &CheckSpec) -> Option<Through> {
    if spec.via == Via::Server {
        return None;
    }
    let stated = daemon.checks.keeper.borrow().stated_server(server, daemon.engine.borrow().model())?;
    Through::new(daemon, &server.0, stated, spec.port)
}

/// After settling, so many times as long is left for others.
const SHARE: u32 = 4;

fn wakes_at(daemon: &Daemon, calm: Instant) -> Instant {
    let keeper = daemon.checks.keeper.borrow();
    let settle = Some(calm).filter(|_| keeper.is_unsettled());
    let wakes = [settle, keeper.wakes_at()].into_iter().flatten().min();
    wakes.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
}

/// Carries out what follows from all that was heard.
pub fn settle(daemon: &Rc<Daemon>) {
    if !daemon.checks.keeper.borrow().is_unsettled() {
        return;
    }
    let settlement = daemon.checks.keeper.borrow_mut().settle(daemon.engine.borrow().model(), Instant::now());
    daemon.checks.remember_or_tell(&daemon.options.paths);
    let by = events::who_settled(&settlement.news);
    let changed = events::of_changes(&settlement.changes, daemon.engine.borrow().model(), by).concat();
    // Those that leave have their numbers only until then.
    let to_be_reset = reset::numbers(&daemon.engine.borrow(), &settlement.resets);
    let applied = daemon.engine.borrow_mut().apply_all(&settlement.changes);
    if let Err(why) = applied {
        tracing::error!(%why, "what checks ask for cannot be done; it is tried again when they ask for more");
        daemon.checks.keeper.borrow_mut().refused(settlement);
        return;
    }
    daemon.checks.keeper.borrow_mut().carried_out(daemon.engine.borrow().model());
    settlement.news.iter().for_each(tell);
    daemon.events.tell_all(settlement.news.iter().filter_map(events::of_news).chain(changed));
    settlement.notices.into_iter().for_each(notify);
    // New next hops are waited for, and checks do not wait.
    let (daemon, changes) = (Rc::clone(daemon), settlement.changes);
    tokio::task::spawn_local(async move {
        reset::connections_of(&daemon, &to_be_reset).await;
        control::follow(&daemon, &changes).await;
    });
}

fn tell(news: &News) {
    match news {
        News::Server { server: (service, server), effective, detail, .. } => {
            let (service, server) = (plan::service(service), plan::server(server));
            let reason = match detail.as_ref().filter(|_| effective.reason.is_failure()) {
                Some(detail) => format!("{}: {detail}", effective.reason),
                None => effective.reason.to_string(),
            };
            match effective.place {
                Place::In(weight) if !effective.reason.is_failure() => {
                    tracing::info!(%service, %server, weight, %reason, "server is up");
                }
                Place::In(weight) => tracing::warn!(%service, %server, weight, %reason, "server is down"),
                Place::Out => tracing::warn!(%service, %server, %reason, "server is out"),
            }
        }
        News::Warning { server: (service, server), of } => {
            let (service, server) = (plan::service(service), plan::server(server));
            match of {
                Some(warning) => tracing::warn!(%service, %server, %warning, "a check warns"),
                None => tracing::info!(%service, %server, "a check warns no more"),
            }
        }
        News::Quorum { service, is_up } => {
            let service = plan::service(service);
            if *is_up {
                tracing::info!(%service, "the quorum is gained");
            } else {
                tracing::warn!(%service, "the quorum is lost");
            }
        }
    }
}

/// A command that takes longer is ended.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs an operator's command beside everything else.
fn notify(notice: Notice) {
    tokio::task::spawn_local(async move {
        let Some((program, arguments)) = notice.command.split_first() else { return };
        let mut command = tokio::process::Command::new(program);
        command.args(arguments);
        command.env("XLVS_STATE", if notice.is_up { "up" } else { "down" });
        command.env("XLVS_SERVICE", plan::service(&notice.service));
        command.env("XLVS_SERVER", notice.server.as_ref().map(plan::server).unwrap_or_default());
        let ended = tokio::time::timeout(PATIENCE, program::run(&mut command)).await;
        match ended.map(|run| run.map(|output| output.status)) {
            Ok(Ok(status)) if status.success() => {}
            Ok(Ok(status)) => tracing::warn!(%program, %status, "a notify command failed"),
            Ok(Err(why)) => tracing::error!(%program, %why, "a notify command cannot be run"),
            Err(_) => {
                tracing::error!(%program, "a notify command took longer than {} s and was ended", PATIENCE.as_secs())
            }
        }
    });
}
