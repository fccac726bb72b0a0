//! The file that says what a director is: `xlvs.toml`.
//!
//! [`Config::read`] is strict: an unknown word, a value out of its range, something said twice, or a check that cannot be
//! made is a [`Mistake`] with line, column and, where there is one, the right word. It finds all mistakes, not only the
//! first. [`Config::to_toml`] writes a file that reads back equal. The page `docs/configuration.md` is for people.

mod address;
mod check;
mod entry;
mod globals;
mod http;
mod mistake;
mod pool;
mod section;
mod server;
mod service;
mod words;
mod write;

use std::collections::BTreeMap;

use toml::de::DeTable;

use crate::change::Change;
use crate::spec::ServiceKey;
use crate::state::Model;
use crate::watch::Pool;

pub use globals::{CONNS, Hook, SERVERS, SERVICES, Sizes};
pub use http::Http;
pub use mistake::{Mistake, Mistakes};
pub use server::OF_SERVERS;

use mistake::Sink;
use section::Section;

/// A director as a file describes it. What the file does not speak of has LVS's defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Interfaces that carry balanced traffic.
    pub interfaces: Vec<String>,
    /// Where the director is attached there, for one that starts; `None`: as the command line or the default says.
    pub hook: Option<Hook>,
    /// Sizes of the tables, for a director that starts.
    pub sizes: Sizes,
    /// What is served over HTTP, for a director that starts.
    pub http: Http,
    /// Services, servers, timeouts, tunables and rules of marks.
    pub model: Model,
    /// How servers are looked after, of services of which anything is said.
    pub pools: BTreeMap<ServiceKey, Pool>,
}

/// Tables and lists of the file's outermost level.
const KEYS: &[&str] = &[
    "interfaces",
    "hook",
    "tables",
    "http",
    "timeouts",
    "tunables",
    "mark",
    "check",
    "agent",
    "defaults",
    "service",
];

impl Config {
    /// Reads a file, or finds all of its mistakes.
    pub fn read(text: &str) -> Result<Self, Mistakes> {
        let sink = Sink::new(text);
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let hint =
                if error.message().starts_with("invalid float") { "; a text stands in quotes" } else { "" };
            sink.note(error.span().map_or(0, |span| span.start), format!("{}{hint}", error.message()));
        }
        let mut config = Self::default();
        // What the parser made up to go on would only lead to further mistakes.
        if errors.is_empty() {
            config.fill(&Section::new(document.get_ref(), 0, "this file", KEYS, &sink));
        }
        sink.into_result(config)
    }

    fn fill(&mut self, file: &Section<'_>) {
        self.interfaces = globals::interfaces(file);
        self.hook = globals::hook(file);
        self.sizes = globals::sizes(file);
        self.http = http::read(file);
        globals::timeouts(file, &mut self.model);
        globals::tunables(file, &mut self.model);
        globals::marks(file, &mut self.model);
        let named = check::Named::read(file);
        let defaults = file.section("defaults", "`defaults`", service::DEFAULT_KEYS);
        let mut seen = BTreeMap::new();
        for section in file.sections("service", "a service", service::KEYS) {
            let layers = section::Layers::new(section, defaults);
            let Some((service, pool)) = service::read(&layers, &named, &mut seen) else { continue };
            let key = service.spec.key;
            let mut apply = |change: Change| self.model.apply(&change);
            let added = apply(Change::AddService(service.spec));
            let servers = service.servers.into_iter().map(|server| Change::AddServer(key, server));
            // All that can be wrong has been told at its place; what is left is told at the service's.
            if let Err(why) = added.and_then(|()| servers.into_iter().try_for_each(&mut apply)) {
                section.wrong(format!("this service cannot be: {why}"));
            }
            if pool != Pool::default() {
                self.pools.insert(key, pool);
            }
        }
    }

    /// Without what is said of services and servers that are not there (any more).
    pub fn pruned(mut self) -> Self {
        let model = &self.model;
        self.pools.retain(|key, pool| {
            let Some(service) = model.service(key) else { return false };
            pool.servers.retain(|server, _| service.server(server).is_some());
            let is_there = |sorry: &mut crate::ServerSpec| service.server(&sorry.key).is_none();
            pool.sorry = pool.sorry.take_if(is_there);
            *pool != Pool::default()
        });
        self
    }
}
