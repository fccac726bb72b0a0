//! Services and their servers.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use xlvs_health::{AgentWord, Health, OperatorWord, Place, Reason, Standing};
use xlvs_model::config::OF_SERVERS;
use xlvs_model::spec::Method;
use xlvs_model::view::{Rates, ServerView, ServiceView, Stats};
use xlvs_model::watch::AgentSpec;
use xlvs_model::{Change, ServerKey, ServiceKey};

use super::super::problem::Problem;
use super::super::sight::Sight;
use super::take::{Asked, Named, Said};
use super::words::{AgentWords, Identity, ServerWords, ServiceWords, Words, read, said};
use super::{App, Changes, Refusals};
use crate::named;
use crate::plan;
use crate::protocol::{Alteration, Answer, Request};

/// A virtual service.
#[derive(Serialize, ToSchema)]
pub struct Service {
    /// Its name, which is also its path below `/api/v1/services/`.
    #[schema(example = "tcp/192.0.2.10:80")]
    name: String,
    /// Its scheduler.
    #[schema(example = "wlc")]
    scheduler: String,
    /// Scheduler, persistence and flags in a few words.
    #[schema(example = "wlc, persistent 300 s")]
    words: String,
    /// Seconds of persistence.
    persistent: Option<u32>,
    /// One-packet scheduling.
    ops: bool,
    /// Counters since it came to be or was set to zero.
    counters: Counters,
    /// What came of late, a second.
    rates: PerSecond,
    /// The servers in force, the newest first, and after them those that are out.
    servers: Vec<Server>,
}

/// A real server of a service.
#[derive(Serialize, ToSchema)]
pub struct Server {
    /// Its name: address and port.
    #[schema(example = "10.0.0.11:8080")]
    name: String,
    /// `nat`, `dr`, `tun` or `local`.
    method: String,
    /// Its weight as stated.
    weight: u32,
    /// Its weight in force; none: it is out of the service.
    weight_in_force: Option<u32>,
    /// What its checks say: `unchecked`, `unknown`, `up` or `down`.
    health: String,
    /// Why it stands where it does, where that is not as stated.
    reason: Option<String>,
    /// What its last check or agent said, where that says anything.
    detail: Option<String>,
    /// What its checks warn of though they succeed, such as the end of a certificate.
    warning: Option<String>,
    /// What an operator said: `enabled`, `drained` or `disabled`.
    operator: String,
    /// The share of its weight that its agent asks for, in percent.
    agent_percent: Option<u16>,
    /// Upper and lower threshold; 0: none.
    upper: u32,
    /// See `upper`.
    lower: u32,
    /// Active connections.
    active: u32,
    /// Inactive ones.
    inactive: u32,
    /// Persistence templates.
    persistent: u32,
    /// Counters.
    counters: Counters,
    /// What came of late, a second.
    rates: PerSecond,
}

/// Connections, packets and bytes of layer 3.
#[derive(Clone, Copy, Serialize, ToSchema)]
struct Counters {
    /// Connections scheduled.
    connections: u64,
    /// Packets from clients.
    in_packets: u64,
    /// Packets to clients by way of the director.
    out_packets: u64,
    /// Bytes from clients.
    in_bytes: u64,
    /// Bytes to clients by way of the director.
    out_bytes: u64,
}

/// The same a second.
#[derive(Clone, Copy, Serialize, ToSchema)]
struct PerSecond {
    /// Connections.
    connections: u64,
    /// Packets from clients.
    in_packets: u64,
    /// Packets to clients.
    out_packets: u64,
    /// Bytes from clients.
    in_bytes: u64,
    /// Bytes to clients.
    out_bytes: u64,
}

impl From<Stats> for Counters {
    fn from(Stats { conns: connections, in_packets, out_packets, in_bytes, out_bytes }: Stats) -> Self {
        Self { connections, in_packets, out_packets, in_bytes, out_bytes }
    }
}

impl From<Rates> for PerSecond {
    fn from(rates: Rates) -> Self {
        let Rates { cps, in_pps, out_pps, in_bps, out_bps } = rates;
        Self {
            connections: cps,
            in_packets: in_pps,
            out_packets: out_pps,
            in_bytes: in_bps,
            out_bytes: out_bps,
        }
    }
}

fn method(method: Method) -> &'static str {
    match method {
        Method::Masquerade => "nat",
        Method::Direct => "dr",
        Method::Tunnel => "tun",
        Method::Local => "local",
    }
}

fn health(health: Health) -> &'static str {
    match health {
        Health::Unchecked => "unchecked",
        Health::Unknown => "unknown",
        Health::Up => "up",
        Health::Down => "down",
    }
}

fn operator(word: OperatorWord) -> &'static str {
    match word {
        OperatorWord::Enabled => "enabled",
        OperatorWord::Drained => "drained",
        OperatorWord::Disabled => "disabled",
    }
}

impl Server {
    fn of(view: &ServerView, is_in_force: bool, standing: Option<&Standing>) -> Self {
        let effective = standing.map(|standing| standing.effective);
        let reason =
            effective.map(|effective| effective.reason).filter(|reason| *reason != Reason::AsConfigured);
        Self {
            name: plan::server(&view.spec.key),
            method: method(view.spec.method).to_owned(),
            weight: standing.map_or(view.spec.weight, |standing| standing.stated.weight),
            weight_in_force: is_in_force.then_some(view.spec.weight),
            health: health(standing.map(|standing| standing.health).unwrap_or_default()).to_owned(),
            reason: reason.map(|reason| reason.to_string()),
            detail: standing.and_then(|standing| standing.detail.clone()),
            warning: standing.and_then(|standing| standing.warning.clone()),
            operator: operator(standing.map(|standing| standing.operator).unwrap_or_default()).to_owned(),
            agent_percent: standing
                .and_then(|standing| standing.agent)
                .map(|AgentWord { percent, .. }| percent),
            upper: view.spec.upper,
            lower: view.spec.lower,
            active: view.active,
            inactive: view.inactive,
            persistent: view.persistent,
            counters: view.stats.into(),
            rates: view.rates.into(),
        }
    }
}

/// All services of a sight, or this one.
pub fn services(sight: &Sight, only: Option<&ServiceKey>) -> Vec<Service> {
    let mut standings: HashMap<ServiceKey, HashMap<ServerKey, &Standing>> = HashMap::new();
    for standing in &sight.standings {
        standings.entry(standing.service).or_default().insert(standing.stated.key, standing);
    }
    let none = HashMap::new();
    let wanted = |view: &&ServiceView| only.is_none_or(|key| *key == view.spec.key);
    let of = |view: &ServiceView| service(view, standings.get(&view.spec.key).unwrap_or(&none));
    sight.services.iter().filter(wanted).map(of).collect()
}

fn service(view: &ServiceView, standings: &HashMap<ServerKey, &Standing>) -> Service {
    let standing = |view: &ServerView| standings.get(&view.spec.key).copied();
    let in_force = view.servers.iter().map(|server| Server::of(server, true, standing(server)));
    let is_away = |standing: &&&Standing| {
        standing.effective.place == Place::Out
            && !view.servers.iter().any(|server| server.spec.key == standing.stated.key)
    };
    let mut away: Vec<&Standing> = standings.values().filter(is_away).copied().collect();
    away.sort_by_key(|standing| standing.stated.key);
    let away = away
        .into_iter()
        .map(|standing| Server::of(&ServerView::from(&standing.stated), false, Some(standing)));
    Service {
        name: named::of(&view.spec.key),
        scheduler: view.spec.scheduler.name().to_owned(),
        words: plan::service_words(&view.spec),
        persistent: view.spec.persistence.map(|persistence| persistence.timeout),
        ops: view.spec.one_packet,
        counters: view.stats.into(),
        rates: view.rates.into(),
        servers: in_force.chain(away).collect(),
    }
}

/// All services, with their servers.
#[utoipa::path(get, path = "/api/v1/services", tag = "services", responses((status = OK, body = Vec<Service>), Refusals))]
pub async fn list(State(app): State<App>) -> Result<Json<Vec<Service>>, Problem> {
    Ok(Json(services(&*app.sights.now().await?, None)))
}

/// One service, with its servers.
#[utoipa::path(get, path = "/api/v1/services/{kind}/{at}", tag = "services", params(
    Identity,
), responses((status = OK, body = Service), Refusals))]
pub async fn get(State(app): State<App>, Named(identity): Named<Identity>) -> Result<Json<Service>, Problem> {
    let sight = app.sights.now().await?;
    let key = named::service(&identity.name(), &sight.services).map_err(absent)?.spec.key;
    services(&sight, Some(&key)).pop().map(Json).ok_or_else(Problem::unexpected)
}

fn absent(why: anyhow::Error) -> Problem {
    Problem::absent(format!("{why:#}"))
}

/// Whether to change anything.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Planned {
    /// Only say what would change.
    #[serde(default)]
    pub plan: bool,
}

async fn alter(
    app: &App,
    what: Alteration,
    Planned { plan }: Planned,
    by: String,
) -> Result<Json<Changes>, Problem> {
    app.plan(Request::Alter { what, only_plan: plan, by }, plan).await
}

/// Makes a service, or makes one what these words say. Without `servers` its servers stay as they are; what else is not said
/// has its default.
#[utoipa::path(put, path = "/api/v1/services/{kind}/{at}", tag = "services", request_body = ServiceWords, params(
    Identity,
    Planned,
), responses((status = OK, body = Changes), Refusals))]
pub async fn put(
    State(app): State<App>,
    Named(identity): Named<Identity>,
    Asked(planned): Asked<Planned>,
    Said(words): Said<Words>,
) -> Result<Json<Changes>, Problem> {
    let words = said(words);
    let with_servers = words.contains_key("servers");
    let of_servers = OF_SERVERS.iter().find(|word| words.contains_key(**word));
    if let Some(word) = of_servers.filter(|_| !with_servers && !words.contains_key("sorry")) {
        return Err(Problem::refused(format!(
            "`{word}` is said of servers: say `servers` too, or put the server"
        )));
    }
    let by = format!("API, PUT {}", identity.name());
    alter(&app, Alteration::Service { file: identity.file(words)?, with_servers }, planned, by).await
}

/// Deletes a service with its servers.
#[utoipa::path(delete, path = "/api/v1/services/{kind}/{at}", tag = "services", params(
    Identity,
    Planned,
), responses((status = OK, body = Changes), Refusals))]
pub async fn delete(
    State(app): State<App>,
    Named(identity): Named<Identity>,
    Asked(planned): Asked<Planned>,
) -> Result<Json<Changes>, Problem> {
    let service = app.stated(&identity).await?;
    let by = format!("API, DELETE {}", identity.name());
    alter(&app, Alteration::NoService(service.spec.key), planned, by).await
}

/// Deletes all services.
#[utoipa::path(delete, path = "/api/v1/services", tag = "services", params(Planned), responses((status = OK, body = Changes), Refusals))]
pub async fn delete_all(
    State(app): State<App>,
    Asked(planned): Asked<Planned>,
) -> Result<Json<Changes>, Problem> {
    alter(&app, Alteration::Nothing, planned, "API, DELETE services".to_owned()).await
}

/// Begins a service's counters anew.
#[utoipa::path(post, path = "/api/v1/services/{kind}/{at}/zero", tag = "services", params(
    Identity,
), responses((status = NO_CONTENT), Refusals))]
pub async fn zero(State(app): State<App>, Named(identity): Named<Identity>) -> Result<StatusCode, Problem> {
    let service = app.stated(&identity).await?;
    app.apply(vec![Change::Zero(Some(service.spec.key))]).await
}

/// Begins all services' counters anew.
#[utoipa::path(post, path = "/api/v1/zero", tag = "services", responses((status = NO_CONTENT), Refusals))]
pub async fn zero_all(State(app): State<App>) -> Result<StatusCode, Problem> {
    app.apply(vec![Change::Zero(None)]).await
}

/// A server's identity as a path names it.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct Of {
    /// `tcp`, `udp`, `sctp`, `mark` or `mark6`.
    kind: String,
    /// Address and port of the service, or its mark.
    at: String,
    /// Address of the server, and its port where that is not the service's.
    server: String,
}

impl Of {
    fn service(&self) -> Identity {
        Identity { kind: self.kind.clone(), at: self.at.clone() }
    }

    /// Both, as they are stated.
    async fn keys(&self, app: &App) -> Result<(ServiceKey, ServerKey), Problem> {
        let service = app.stated(&self.service()).await?;
        let server = named::server(&self.server, &service).map_err(absent)?;
        Ok((service.spec.key, server.spec.key))
    }

    fn by(&self, what: &str) -> String {
        format!("API, {what} {} of {}", self.server, self.service().name())
    }
}

/// Adds a server to a service, or makes it what these words say; what is not said has its default.
#[utoipa::path(put, path = "/api/v1/services/{kind}/{at}/servers/{server}", tag = "servers", request_body = ServerWords, params(
    Of,
    Planned,
), responses((status = OK, body = Changes), Refusals))]
pub async fn put_server(
    State(app): State<App>,
    Named(of): Named<Of>,
    Asked(planned): Asked<Planned>,
    Said(words): Said<Words>,
) -> Result<Json<Changes>, Problem> {
    app.stated(&of.service()).await?;
    let file = of.service().file_with(&of.server, words)?;
    alter(&app, Alteration::Server { file }, planned, of.by("PUT")).await
}

/// Removes a server from a service.
#[utoipa::path(delete, path = "/api/v1/services/{kind}/{at}/servers/{server}", tag = "servers", params(
    Of,
    Planned,
), responses((status = OK, body = Changes), Refusals))]
pub async fn delete_server(
    State(app): State<App>,
    Named(of): Named<Of>,
    Asked(planned): Asked<Planned>,
) -> Result<Json<Changes>, Problem> {
    let (service, server) = of.keys(&app).await?;
    alter(&app, Alteration::NoServer(service, server), planned, of.by("DELETE")).await
}

/// An operator's word about a server, which wins over its checks and agent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Word {
    word: Saying,
}

/// What is said.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Saying {
    /// Its checks and agent decide.
    Enabled,
    /// No new connections.
    Drained,
    /// Out of the service.
    Disabled,
}

/// Says what is to become of a server, whatever its checks and agent say. It holds until something else is said.
#[utoipa::path(put, path = "/api/v1/services/{kind}/{at}/servers/{server}/operator", tag = "servers", request_body = Word, params(
    Of,
), responses((status = NO_CONTENT), Refusals))]
pub async fn say(
    State(app): State<App>,
    Named(of): Named<Of>,
    Said(Word { word }): Said<Word>,
) -> Result<StatusCode, Problem> {
    let (service, server) = of.keys(&app).await?;
    let word = match word {
        Saying::Enabled => OperatorWord::Enabled,
        Saying::Drained => OperatorWord::Drained,
        Saying::Disabled => OperatorWord::Disabled,
    };
    match app.asker.ask(Request::Say(service, server, word)).await? {
        Answer::Done => app.sights.forget().await,
        _ => return Err(Problem::unexpected()),
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Has a server's agent asked.
#[utoipa::path(put, path = "/api/v1/services/{kind}/{at}/servers/{server}/agent", tag = "servers", request_body = AgentWords, params(
    Of,
), responses((status = OK, body = Changes), Refusals))]
pub async fn put_agent(
    State(app): State<App>,
    Named(of): Named<Of>,
    Said(words): Said<Words>,
) -> Result<Json<Changes>, Problem> {
    let (service, server) = of.keys(&app).await?;
    app.plan(Request::Agent { service, server: Some(server), agent: agent(words)? }, false).await
}

/// What words say of an agent, read as of any server.
fn agent(words: Words) -> Result<Option<AgentSpec>, Problem> {
    let any = Identity { kind: "tcp".to_owned(), at: "192.0.2.1:80".to_owned() };
    let file = any.file_with("192.0.2.2", Words::from_iter([("agent".to_owned(), words.into())]))?;
    let watched = read(&file)?.pools.into_values().flat_map(|pool| pool.servers.into_values());
    Ok(watched.filter_map(|watch| watch.agent).next())
}

/// Does not have a server's agent asked any more.
#[utoipa::path(delete, path = "/api/v1/services/{kind}/{at}/servers/{server}/agent", tag = "servers", params(
    Of,
), responses((status = OK, body = Changes), Refusals))]
pub async fn delete_agent(State(app): State<App>, Named(of): Named<Of>) -> Result<Json<Changes>, Problem> {
    let (service, server) = of.keys(&app).await?;
    app.plan(Request::Agent { service, server: Some(server), agent: None }, false).await
}
