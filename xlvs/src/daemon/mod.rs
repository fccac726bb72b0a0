//! `xlvs run`: the daemon. Packets do not need it, but for fragments; changes, next hops and the end of connections do.

mod agents;
mod alter;
mod checks;
mod configure;
mod control;
mod errands;
mod events;
mod explain;
mod full_table;
mod hops;
mod http;
mod local;
pub mod lock;
mod path;
mod probe;
mod reset;
mod revisions;
mod site;
mod start;
mod status;
mod supervisor;
mod trace;
mod upkeep;
mod way;
mod work;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use xlvs_datapath::engine::Engine;
use xlvs_datapath::fragments::Tally;
use xlvs_datapath::xdp::{Mode, Place, Xdp};
use xlvs_model::Config;
use xlvs_model::config::{CONNS, Hook, SERVERS, SERVICES, Sizes};

use crate::paths::Paths;
use checks::Checks;
use lock::Lock;
use site::Site;

/// Options of the daemon.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What the director is to be (`xlvs.toml`). SIGHUP and `xlvs reload` read it again.
    #[arg(long, short = 'c', value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// An interface that carries balanced traffic; name each (clients' and servers' side). Those of the file do not count then.
    #[arg(long = "interface", short = 'i', required_unless_present = "config")]
    pub interfaces: Vec<String>,
    /// Where the program is attached, xdp unless told: where frames come out of the driver, or behind that, at tc's ingress, the better
    /// place where the driver has no native XDP.
    #[arg(long, value_parser = hook())]
    pub hook: Option<Hook>,
    /// How the program is attached at the XDP hook.
    #[arg(long, value_enum, default_value = "auto")]
    pub xdp_mode: XdpMode,
    /// Connections, 1048576 unless told. The table refuses hardly any up to there (about one in a million); a few in a thousand from
    /// there to a seventh more.
    #[arg(long, value_parser = clap::value_parser!(u32).range(bounds(CONNS)))]
    pub max_conns: Option<u32>,
    /// IPv6 connections, likewise; a quarter of the others unless told.
    #[arg(long, value_parser = clap::value_parser!(u32).range(bounds(CONNS)))]
    pub max_conns_v6: Option<u32>,
    /// Virtual services, 16384 unless told.
    #[arg(long, value_parser = clap::value_parser!(u32).range(bounds(SERVICES)))]
    pub max_services: Option<u32>,
    /// Real servers, all services together; 65536 unless told.
    #[arg(long, value_parser = clap::value_parser!(u32).range(bounds(SERVERS)))]
    pub max_servers: Option<u32>,
    /// HTTP.
    #[command(flatten)]
    pub http: http::Options,
    /// The director's places.
    #[command(flatten)]
    pub paths: Paths,
}

fn bounds(range: RangeInclusive<u32>) -> RangeInclusive<i64> {
    i64::from(*range.start())..=i64::from(*range.end())
}

impl Options {
    /// Where the program is attached, and how.
    fn mode(&self) -> Mode {
        if self.hook == Some(Hook::Tc) { Mode::Tc } else { self.xdp_mode.into() }
    }

    /// What the command line leaves open is as the file says.
    fn complete(mut self, config: &Config) -> anyhow::Result<Self> {
        let Sizes { max_conns, max_conns_v6, max_services, max_servers } = config.sizes;
        self.max_conns = self.max_conns.or(max_conns);
        self.max_conns_v6 = self.max_conns_v6.or(max_conns_v6);
        self.max_services = self.max_services.or(max_services);
        self.max_servers = self.max_servers.or(max_servers);
        self.hook = self.hook.or(config.hook);
        if self.hook == Some(Hook::Tc) && self.xdp_mode != XdpMode::Auto {
            bail!("--xdp-mode says how to attach at the XDP hook; leave it out, or say --hook xdp");
        }
        if self.interfaces.is_empty() {
            self.interfaces.clone_from(&config.interfaces);
        }
        if self.interfaces.is_empty() {
            bail!("no interface is named: the file has no `interfaces`, and there is no --interface");
        }
        Ok(self)
    }
}

fn hook() -> impl TypedValueParser<Value = Hook> {
    PossibleValuesParser::new(["xdp", "tc"]).map(|word| if word == "tc" { Hook::Tc } else { Hook::Xdp })
}

/// See [`Mode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum XdpMode {
    /// Native where the driver can, else generic with a warning.
    Auto,
    /// In the driver, or not at all.
    Native,
    /// After the driver: works everywhere, and is slower.
    Generic,
}

impl From<XdpMode> for Mode {
    fn from(mode: XdpMode) -> Self {
        match mode {
            XdpMode::Auto => Self::Auto,
            XdpMode::Native => Self::Native,
            XdpMode::Generic => Self::Generic,
        }
    }
}

/// What the daemon's tasks share. They run in one thread.
pub struct Daemon {
    options: Options,
    site: RefCell<Site>,
    checks: Checks,
    engine: RefCell<Engine>,
    xdp: RefCell<Xdp>,
    hops: hops::Hops,
    path: path::Path,
    /// Where the program runs on each interface.
    places: RefCell<HashMap<String, Place>>,
    /// What became of fragments, and of packets to be cut.
    fragments: Cell<Tally>,
    /// What was done.
    work: work::Work,
    /// What happened, for those who watch.
    events: events::Events,
    /// Packets are being traced.
    tracing: Cell<bool>,
    /// It was said that what the director's own stack sends cannot be seen.
    own_is_hidden: Cell<bool>,
    began: Instant,
}

/// Runs until SIGTERM or SIGINT. The data plane goes on without us.
pub fn run(options: Options) -> anyhow::Result<ExitCode> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .init();
    let fixed_interfaces = !options.interfaces.is_empty();
    let config = options.config.as_deref().map(configure::read).transpose()?;
    let options = options.complete(config.as_ref().unwrap_or(&Config::default()))?;
    if !nix::unistd::geteuid().is_root() {
        bail!("the daemon must be run as root: it loads programs into the kernel");
    }
    let Some(_lock) = Lock::take(&options.paths.lock())? else {
        bail!("another daemon is running on {}; `xlvs check` speaks to it", options.paths.run_dir.display());
    };
    raise_open_files();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the daemon")?;
    runtime.block_on(LocalSet::new().run_until(serve(options, fixed_interfaces, config)))
}

/// Each check under way has a file open.
fn raise_open_files() {
    let limit = Resource::RLIMIT_NOFILE;
    let raised = getrlimit(limit).and_then(|(_, most)| setrlimit(limit, most, most));
    if let Err(why) = raised {
        tracing::warn!(%why, "the number of open files stays as it is; many checks at once may not be made");
    }
}

async fn serve(options: Options, fixed_interfaces: bool, config: Option<Config>) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let hangups = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let given = supervisor::socket()?;
    let is_ours = given.is_none();
    let listener = control::listen(&options.paths, given)?;
    let (daemon, fresh) = start::start(options, fixed_interfaces)?;
    let daemon = Rc::new(daemon);
    let begun = config.map_or(Ok(()), |config| configure::begin(&daemon, config));
    let listening = match begun.and_then(|()| http::listen(&daemon)) {
        Ok(listening) => listening,
        Err(why) => {
            // A first start that fails leaves nothing behind.
            fresh.map(|pins| pins.remove()).transpose()?;
            return Err(why);
        }
    };
    let hops = hops::follow(Rc::clone(&daemon))?;
    let wanted = upkeep::heed_tidings(Rc::clone(&daemon));
    let errands = errands::run(Rc::clone(&daemon));
    let control = control::serve(Rc::clone(&daemon), listener);
    let http = http::run(Rc::clone(&daemon), listening);
    let upkeep = upkeep::run(Rc::clone(&daemon));
    let checks = checks::run(Rc::clone(&daemon));
    let agents = agents::run(Rc::clone(&daemon));
    let reloads = configure::heed_sighup(Rc::clone(&daemon), hangups);
    supervisor::told_ready(daemon.site.borrow().interfaces());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = hops => ended?,
        ended = control => ended?,
        ended = http => match ended? {},
        () = reloads => {}
        () = upkeep => {}
        () = checks => {}
        () = agents => {}
        () = wanted => {}
        () = errands => {}
        () = supervisor::beat() => {}
    }
    supervisor::told_stopping();
    trace::end(&daemon);
    if is_ours {
        let _gone = std::fs::remove_file(daemon.options.paths.socket());
    }
    let _gone = std::fs::remove_file(daemon.options.paths.api_socket());
    tracing::info!("the daemon ends; packets go on being forwarded; `xlvs unload` ends that too");
    Ok(ExitCode::SUCCESS)
}
