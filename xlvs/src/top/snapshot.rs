//! What the director was at one moment, as far as `xlvs top` shows it.

use std::collections::HashMap;

use xlvs_health::{Effective, Health, Place, Reason, Standing};
use xlvs_ipvsadm::Backend;
use xlvs_model::view::{Rates, ServerView, ServiceView};
use xlvs_model::{ServerKey, ServiceKey};

use crate::client::Client;
use crate::overview::{InterfaceState, Overview};
use crate::plan;
use crate::protocol::{Answer, Request};

/// See the module.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The director as a whole, a line each.
    pub head: Vec<String>,
    /// Its services.
    pub services: Vec<ServiceRow>,
}

/// Numbers of a service or server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Per second, as IPVS's estimators have it.
    pub rates: Rates,
    /// Active connections.
    pub active: u64,
    /// Inactive connections.
    pub inactive: u64,
}

/// A service with its servers.
#[derive(Clone, Debug)]
pub struct ServiceRow {
    /// By name.
    pub name: String,
    /// Its scheduler.
    pub scheduler: String,
    /// What it carries.
    pub load: Load,
    /// In force, and those that are out.
    pub servers: Vec<ServerRow>,
}

/// A server.
#[derive(Clone, Debug)]
pub struct ServerRow {
    /// By name.
    pub name: String,
    /// Stated weight, and where it stands.
    pub stated: u32,
    /// Where it stands, and why.
    pub effective: Effective,
    /// What its checks say.
    pub health: Health,
    /// Why they say so.
    pub detail: Option<String>,
    /// What they warn of, though they succeed.
    pub warning: Option<String>,
    /// What it carries.
    pub load: Load,
}

impl ServerRow {
    /// Does it lack some of its weight, or is something to be warned of?
    pub fn is_troubled(&self) -> bool {
        self.effective.place != Place::In(self.stated) || self.warning.is_some()
    }

    /// Why it stands where it does, and what is to be warned of; empty: as configured, and nothing speaks against it.
    pub fn reason(&self) -> String {
        let why = match (&self.effective.reason, &self.detail) {
            (Reason::AsConfigured, None) => None,
            (Reason::AsConfigured, Some(detail)) => Some(format!("last check: {detail}")),
            (reason, Some(detail)) => Some(format!("{reason}: {detail}")),
            (reason, None) => Some(reason.to_string()),
        };
        let warning = self.warning.as_ref().map(|of| format!("warning: {of}"));
        why.into_iter().chain(warning).collect::<Vec<_>>().join("; ")
    }
}

impl Snapshot {
    /// Asks the director.
    pub fn take(client: &mut Client) -> anyhow::Result<Self> {
        let overview = match client.ask(&Request::Overview)? {
            Answer::Overview(overview) => overview,
            other => return Err(other.unexpected().into()),
        };
        let standings = match client.ask(&Request::Standings)? {
            Answer::Standings(standings) => standings,
            other => return Err(other.unexpected().into()),
        };
        Ok(Self { head: head(&overview), services: rows(&client.services(None)?, standings) })
    }
}

fn head(overview: &Overview) -> Vec<String> {
    let interfaces = overview.interfaces.iter().map(|interface| {
        let state = match interface.state {
            InterfaceState::Native => "native",
            InterfaceState::Generic => "generic",
            InterfaceState::Tc => "tc",
            InterfaceState::Gone => "gone",
            InterfaceState::Detached => "not attached",
        };
        format!("{} {state}", interface.name)
    });
    let interfaces: Vec<String> = interfaces.collect();
    let connections = &overview.connections;
    let used = connections.active + connections.inactive + connections.persistent;
    let fill = used as f64 * 100.0 / connections.slots.max(1) as f64;
    let dropped: u64 = overview.drops.iter().map(|reason| reason.packets).sum();
    vec![
        format!("xlvs {}, up {} s; {}", overview.version, overview.running_s, interfaces.join(", ")),
        format!(
            "{} active, {} inactive, {fill:.1} % of the table; {} forwarded, {dropped} dropped",
            connections.active, connections.inactive, overview.forwarded
        ),
    ]
}

/// Makes rows of what is in force, and of what would be.
pub fn rows(services: &[ServiceView], standings: Vec<Standing>) -> Vec<ServiceRow> {
    let mut known: HashMap<ServiceKey, Vec<Standing>> = HashMap::new();
    for standing in standings {
        known.entry(standing.service).or_default().push(standing);
    }
    let row = |view: &ServiceView| {
        let mut standings = known.remove(&view.spec.key).unwrap_or_default();
        let mut servers: Vec<ServerRow> = view
            .servers
            .iter()
            .map(|server| in_force(server, taken(&mut standings, server.spec.key)))
            .collect();
        servers.extend(standings.into_iter().map(away));
        let sum = |of: fn(&ServerView) -> u32| view.servers.iter().map(|server| u64::from(of(server))).sum();
        ServiceRow {
            name: plan::service(&view.spec.key),
            scheduler: view.spec.scheduler.name().to_owned(),
            load: Load { rates: view.rates, active: sum(|s| s.active), inactive: sum(|s| s.inactive) },
            servers,
        }
    };
    services.iter().map(row).collect()
}

fn taken(standings: &mut Vec<Standing>, server: ServerKey) -> Option<Standing> {
    let at = standings.iter().position(|standing| standing.stated.key == server)?;
    Some(standings.remove(at))
}

/// A server that is there. Of one that nobody looks after, the weight is all that is known.
fn in_force(server: &ServerView, standing: Option<Standing>) -> ServerRow {
    let weight = server.spec.weight;
    let load =
        Load { rates: server.rates, active: u64::from(server.active), inactive: u64::from(server.inactive) };
    let unwatched = Effective { place: Place::In(weight), reason: Reason::AsConfigured };
    let name = plan::server(&server.spec.key);
    match standing {
        Some(standing) => ServerRow { load, ..away(standing) },
        None => ServerRow {
            name,
            stated: weight,
            effective: unwatched,
            health: Health::Unchecked,
            detail: None,
            warning: None,
            load,
        },
    }
}

/// A server that is stated and not there.
fn away(standing: Standing) -> ServerRow {
    ServerRow {
        name: plan::server(&standing.stated.key),
        stated: standing.stated.weight,
        effective: standing.effective,
        health: standing.health,
        detail: standing.detail,
        warning: standing.warning,
        load: Load::default(),
    }
}
