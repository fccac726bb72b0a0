//! Makes the director what a configuration says, as one change, and remembers what it was.

use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use tokio::signal::unix::Signal;
use xlvs_datapath::engine::ApplyError;
use xlvs_model::watch::AgentSpec;
use xlvs_model::{Change, Config, Model, ServerKey, ServiceKey, diff, wanted};

use super::checks::Checks;
use super::{Daemon, alter, control, events, site, start, supervisor, upkeep};
use crate::event::{By, Happening};
use crate::protocol::Alteration;
use crate::{difference, plan};

/// What there is to be.
pub struct Wish {
    /// All of it.
    pub config: Config,
    /// Also put servers that are there already into its order.
    pub in_order: bool,
    /// Change nothing, only say what would change.
    pub only_plan: bool,
    /// Whose wish it is.
    pub by: String,
}

/// Becomes what is wished, or changes nothing. Returns what was or would be changed, a sentence each.
pub async fn fulfil(daemon: &Daemon, wish: Wish) -> anyhow::Result<Vec<String>> {
    let (sentences, way) = change(daemon, wish).context("nothing was changed")?;
    control::follow(daemon, &way).await;
    Ok(sentences)
}

/// The part that is done at once, also before any task runs: packets see it, the rest of the daemon not yet.
pub fn change(daemon: &Daemon, wish: Wish) -> anyhow::Result<(Vec<String>, Vec<Change>)> {
    let stated = site::stated(daemon);
    let mut wanted = wish.config;
    if wanted.interfaces.is_empty() || daemon.site.borrow().fixed_interfaces {
        wanted.interfaces = stated.interfaces.clone();
    }
    if !wish.in_order {
        wanted.model = wanted::in_place(&wanted.model, &stated.model)?;
    }
    let sentences = difference::sentences(&stated, &wanted);
    if wish.only_plan || sentences.is_empty() {
        return Ok((sentences, Vec::new()));
    }
    let number = keep_revision(daemon, &stated, &wanted, &wish.by, sentences.len())?;
    let mut keeper = daemon.checks.keeper.borrow().clone();
    let engine = daemon.engine.borrow();
    keeper.reconfigure(&wanted.pools, engine.model(), Instant::now());
    let in_force = keeper.project(&wanted.model, Some(engine.model()).filter(|_| !wish.in_order));
    let way = diff(engine.model(), &in_force);
    let events = events::of_changes(&way, engine.model(), |_| By::Configuration).concat();
    drop(engine);
    let paths = &daemon.options.paths;
    let done = Checks::remember(&keeper, paths).and_then(|()| carry_out(daemon, &stated, &wanted, &way));
    if let Err(why) = done {
        daemon.site.borrow().revisions.forget(number)?;
        Checks::remember(&daemon.checks.keeper.borrow(), paths)?;
        return Err(why);
    }
    *daemon.checks.keeper.borrow_mut() = keeper;
    daemon.checks.ring();
    daemon.site.borrow_mut().rule(&wanted);
    tracing::info!(revision = number, changes = sentences.len(), by = %wish.by, "the configuration changed");
    daemon.events.tell(Happening::RevisionApplied {
        revision: number,
        changes: sentences.len(),
        wish: wish.by,
    });
    daemon.events.tell_all(events);
    Ok((sentences, way))
}

/// Keeps what is to be, and before it what there is, if commands have changed it since the last revision.
fn keep_revision(
    daemon: &Daemon,
    stated: &Config,
    wanted: &Config,
    by: &str,
    changes: usize,
) -> anyhow::Result<u64> {
    let site = daemon.site.borrow();
    let latest = site.revisions.latest()?;
    let running = stated.to_toml();
    let is_known = match &latest {
        Some((_, text)) => *text == running,
        None => stated.model == Default::default() && stated.pools.is_empty(),
    };
    if !is_known {
        let before = latest.and_then(|(_, text)| Config::read(&text).ok()).unwrap_or_default();
        let changes = difference::sentences(&before, stated).len();
        site.revisions.keep(&running, "commands", changes)?;
    }
    site.revisions.keep(&wanted.to_toml(), by, changes)
}

/// New interfaces first, as they may not be there; then what cannot fail once it was accepted.
fn carry_out(daemon: &Daemon, stated: &Config, wanted: &Config, way: &[Change]) -> anyhow::Result<()> {
    let attached = attach_new(daemon, stated, wanted);
    let applied = attached.and_then(|()| apply(daemon, &stated.model, way));
    let named = if applied.is_ok() { &wanted.interfaces } else { &stated.interfaces };
    let mut xdp = daemon.xdp.borrow_mut();
    match xdp.detach_others(named) {
        Ok(gone) => gone.iter().for_each(|interface| {
            xdp.forget(interface);
            tracing::info!(%interface, "detached: it is not named any more");
            let reason = "it is not named any more".to_owned();
            daemon.events.tell(Happening::InterfaceDetached { interface: interface.clone(), reason });
        }),
        Err(why) => tracing::error!(%why, "an interface that is not named any more keeps the director"),
    }
    applied
}

/// What is refused is named by what it would have done.
fn apply(daemon: &Daemon, stated: &Model, way: &[Change]) -> anyhow::Result<()> {
    let applied = daemon.engine.borrow_mut().apply_all(way);
    match applied {
        Err(ApplyError::Refused(at, why)) => {
            bail!("{}: {why}", plan::sentences(&way[at..=at], stated).concat())
        }
        other => Ok(other?),
    }
}

fn attach_new(daemon: &Daemon, stated: &Config, wanted: &Config) -> anyhow::Result<()> {
    for interface in wanted.interfaces.iter().filter(|name| !stated.interfaces.contains(name)) {
        let place = start::attach(&mut daemon.xdp.borrow_mut(), interface, &daemon.options)?;
        daemon.places.borrow_mut().insert(interface.clone(), place);
        daemon.events.tell(Happening::attached(interface, place));
    }
    Ok(())
}

/// Reads a file, or tells all its mistakes.
pub fn read(path: &Path) -> anyhow::Result<Config> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Config::read(&text).map_err(|mistakes| anyhow!("\n{}", mistakes.in_file(&path.display().to_string())))
}

fn ruling_file(daemon: &Daemon) -> anyhow::Result<std::path::PathBuf> {
    let file = daemon.site.borrow().file.clone();
    file.context("no file rules this director; start the daemon with --config, or name a file")
}

/// Becomes what the file says that the daemon was started with.
pub async fn reload(daemon: &Daemon, why: &str) -> anyhow::Result<Vec<String>> {
    supervisor::told_reloading();
    let done = read_again(daemon, why).await;
    supervisor::told_ready(daemon.site.borrow().interfaces());
    done
}

async fn read_again(daemon: &Daemon, why: &str) -> anyhow::Result<Vec<String>> {
    let file = ruling_file(daemon)?;
    let config = read(&file).context("nothing was changed")?;
    let by = format!("{why} {}", file.display());
    fulfil(daemon, Wish { config, in_order: false, only_plan: false, by }).await
}

/// Has an agent asked of one server, or of all that the service has now; `None`: no longer.
pub async fn set_agent(
    daemon: &Daemon,
    service: ServiceKey,
    server: Option<ServerKey>,
    agent: Option<AgentSpec>,
) -> anyhow::Result<Vec<String>> {
    let mut config = site::stated(daemon);
    let stated = config.model.service(&service).context("there is no such service any more")?;
    let servers: Vec<ServerKey> = stated.servers.iter().map(|spec| spec.key).collect();
    let pool = config.pools.entry(service).or_default();
    for key in servers.into_iter().filter(|key| server.is_none_or(|only| only == *key)) {
        let watch = pool.servers.entry(key).or_default();
        watch.agent.clone_from(&agent);
        // What is to be done with a server that fails says nothing about one that nobody looks after.
        if watch.agent.is_none() && watch.checks.is_empty() {
            pool.servers.remove(&key);
        }
    }
    // Bounds of times and shares are the file's.
    Config::read(&config.to_toml())
        .map_err(|mistakes| anyhow!("nothing was changed:\n{}", mistakes.in_file("xlvs.toml")))?;
    let by = if agent.is_some() { "agent set" } else { "agent remove" }.to_owned();
    fulfil(daemon, Wish { config, in_order: true, only_plan: false, by }).await
}

/// Alters one service or server.
pub async fn alter(
    daemon: &Daemon,
    what: &Alteration,
    only_plan: bool,
    by: String,
) -> anyhow::Result<Vec<String>> {
    let config = alter::altered(site::stated(daemon), what).context("nothing was changed")?;
    fulfil(daemon, Wish { config, in_order: true, only_plan, by }).await
}

/// What was done to the director since it was what the file says.
pub fn since_file(daemon: &Daemon, text: Option<String>) -> anyhow::Result<Vec<String>> {
    let mut said = match text {
        Some(text) => {
            Config::read(&text).map_err(|mistakes| anyhow!("\n{}", mistakes.in_file("the file")))?
        }
        None => read(&ruling_file(daemon)?)?,
    };
    let running = site::stated(daemon);
    if said.interfaces.is_empty() || daemon.site.borrow().fixed_interfaces {
        said.interfaces = running.interfaces.clone();
    }
    // The order of servers is the file's, but for those that are there only now.
    let model = wanted::in_place(&running.model, &said.model)?;
    Ok(difference::sentences(&said, &Config { model, ..running }))
}

/// Goes back to a revision.
pub async fn rollback(daemon: &Daemon, number: u64, only_plan: bool) -> anyhow::Result<Vec<String>> {
    let text = daemon.site.borrow().revisions.text(number)?;
    let read = Config::read(&text);
    let Ok(config) = read else {
        bail!("revision {number} cannot be read; another version of xlvs wrote it")
    };
    let by = format!("rollback to revision {number}");
    fulfil(daemon, Wish { config, in_order: true, only_plan, by }).await
}

/// Sentences that the log has of a change.
const LOGGED: usize = 20;

/// Reloads at every SIGHUP. Never ends.
pub async fn heed_sighup(daemon: Rc<Daemon>, mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        match reload(&daemon, "SIGHUP, reload").await {
            Ok(sentences) if sentences.is_empty() => tracing::info!("SIGHUP: there is nothing to change"),
            Ok(sentences) => {
                sentences.iter().take(LOGGED).for_each(|sentence| tracing::info!("{sentence}"));
                if let more @ 1.. = sentences.len().saturating_sub(LOGGED) {
                    tracing::info!("and {more} more");
                }
            }
            Err(why) => tracing::error!("SIGHUP: {why:#}"),
        }
    }
    std::future::pending().await
}

/// Becomes what the file says before anything else is done, and before packets of a new director come.
pub fn begin(daemon: &Daemon, config: Config) -> anyhow::Result<()> {
    let by = format!("start with {}", ruling_file(daemon)?.display());
    let wish = Wish { config, in_order: false, only_plan: false, by };
    let (sentences, _) = change(daemon, wish).context("the director cannot be what its file says")?;
    upkeep::raise_defences(daemon);
    tracing::info!(changes = sentences.len(), "the director is what its file says");
    Ok(())
}
