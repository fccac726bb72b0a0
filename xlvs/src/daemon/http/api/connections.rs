//! Connections, what would become of a packet, and whether counters and table agree.

use std::net::{IpAddr, SocketAddr};

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use xlvs_model::spec::Protocol;
use xlvs_model::view::ConnView;

use super::super::problem::Problem;
use super::take::Asked;
use super::{App, Refusals};
use crate::explain::{Destination, Explanation, Fate, Kind, Question};
use crate::named;
use crate::plan;
use crate::protocol::{Answer, Request};

/// Connections that are shown unless told, and at the most.
const SHOWN: usize = 1000;
const MOST: usize = 100_000;

/// A connection.
#[derive(Serialize, ToSchema)]
pub struct Connection {
    /// `tcp`, `udp`, `sctp`; `ip` of a mark's template.
    protocol: String,
    /// LVS's word.
    #[schema(example = "ESTABLISHED")]
    state: String,
    /// Milliseconds until it expires.
    expires_ms: u64,
    /// The client, of a template its network.
    client: String,
    /// The VIP.
    vip: String,
    /// The server.
    server: String,
}

impl From<&ConnView> for Connection {
    fn from(view: &ConnView) -> Self {
        let protocol = Protocol::from_u8(view.protocol).map_or("IP", Protocol::listed);
        Self {
            protocol: protocol.to_lowercase(),
            state: view.state.clone(),
            expires_ms: view.expires_ms,
            client: view.client.to_string(),
            vip: view.virt.to_string(),
            server: view.dest.to_string(),
        }
    }
}

/// Some of the connections.
#[derive(Serialize, ToSchema)]
pub struct Listed {
    /// In no order.
    connections: Vec<Connection>,
    /// There may be more.
    more: bool,
}

/// Which connections.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// Of this client.
    #[param(value_type = Option<String>, example = "198.51.100.7")]
    client: Option<IpAddr>,
    /// To this VIP and port.
    #[param(value_type = Option<String>, example = "192.0.2.10:80")]
    vip: Option<SocketAddr>,
    /// By this server.
    #[param(value_type = Option<String>, example = "10.0.0.11")]
    server: Option<IpAddr>,
    /// So many at the most: 1000 unless told, and never more than 100,000.
    limit: Option<usize>,
}

impl Which {
    fn is(&self, view: &ConnView) -> bool {
        self.client.is_none_or(|client| client == view.client.ip())
            && self.vip.is_none_or(|vip| vip == view.virt)
            && self.server.is_none_or(|server| server == view.dest.ip())
    }
}

/// The connections, some of them.
#[utoipa::path(get, path = "/api/v1/connections", tag = "status", params(Which), responses((status = OK, body = Listed), Refusals))]
pub async fn list(State(app): State<App>, Asked(which): Asked<Which>) -> Result<Json<Listed>, Problem> {
    let limit = which.limit.unwrap_or(SHOWN).min(MOST);
    let mut connections = Vec::new();
    let mut some = app.asker.connections().await?;
    while let Some(views) = some.recv().await {
        for view in views.iter().filter(|view| which.is(view)) {
            if connections.len() >= limit {
                return Ok(Json(Listed { connections, more: true }));
            }
            connections.push(Connection::from(view));
        }
    }
    Ok(Json(Listed { connections, more: false }))
}

/// Which packet.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Packet {
    /// The client's address and port.
    #[param(value_type = String, example = "198.51.100.7:40000")]
    from: SocketAddr,
    /// Where it goes: `ADDRESS:PORT`, with `udp:` before it where that is so.
    #[param(example = "192.0.2.10:80")]
    to: String,
    /// `syn`, `ack`, `fin` or `rst`; one of the connection if there is one, else a SYN.
    #[param(value_type = Option<String>)]
    packet: Option<Kind>,
    /// The VLAN that it comes by, or the outer and the inner one (`5.6`); that by which the client is reached.
    #[param(example = "100")]
    vlan: Option<String>,
}

/// What would become of a packet.
#[derive(Serialize, ToSchema)]
pub struct Explained {
    /// The packet, in words.
    packet: String,
    /// The service that it belongs to.
    service: Option<String>,
    /// The connection that it belongs to.
    connection: Option<Connection>,
    /// The scheduler with its flags, if it was asked.
    scheduler: Option<String>,
    /// The servers in the order in which it sees them.
    candidates: Vec<Candidate>,
    /// The server that the packet is for.
    server: Option<String>,
    /// How it is forwarded there.
    method: Option<String>,
    /// Where the server is found.
    next_hop: Option<String>,
    /// `forward`, `pass`, `drop` or `answer`.
    fate: String,
    /// The reason's label, where there is one.
    reason: Option<String>,
    /// The fate in a sentence.
    sentence: String,
}

/// A server that could be chosen.
#[derive(Serialize, ToSchema)]
struct Candidate {
    /// Which.
    server: String,
    /// Its weight.
    weight: u32,
    /// Active connections.
    active: u32,
    /// Inactive ones.
    inactive: u32,
    /// What the scheduler compares, where it compares numbers.
    load: Option<f64>,
    /// Why it gets nothing new.
    unusable: Option<String>,
}

impl From<Explanation> for Explained {
    fn from(told: Explanation) -> Self {
        let fate = match told.fate {
            Fate::Forward => "forward",
            Fate::Pass => "pass",
            Fate::Drop => "drop",
            Fate::Answer => "answer",
        };
        let candidates = told.scheduling.iter().flat_map(|scheduling| &scheduling.candidates);
        let candidate = |candidate: &crate::explain::Candidate| Candidate {
            server: plan::server(&candidate.server),
            weight: candidate.weight,
            active: candidate.active,
            inactive: candidate.inactive,
            load: candidate.load,
            unusable: candidate.unusable.clone(),
        };
        Self {
            packet: told.packet,
            service: told.service.as_ref().map(named::of),
            connection: told.connection.as_ref().map(Connection::from),
            candidates: candidates.map(candidate).collect(),
            scheduler: told.scheduling.map(|scheduling| scheduling.scheduler),
            server: told.server.as_ref().map(plan::server),
            method: told.method,
            next_hop: told.next_hop,
            fate: fate.to_owned(),
            reason: told.reason,
            sentence: told.sentence,
        }
    }
}

/// Tells what would become of a packet now, and why, without changing anything.
#[utoipa::path(get, path = "/api/v1/explain", tag = "status", params(Packet), responses((status = OK, body = Explained), Refusals))]
pub async fn explain(
    State(app): State<App>,
    Asked(asked): Asked<Packet>,
) -> Result<Json<Explained>, Problem> {
    let Destination { protocol, addr: to } =
        asked.to.parse().map_err(|why: String| Problem::bad(format!("`to`: {why}")))?;
    let vlan = asked.vlan.map(|vlan| vlan.parse().map_err(|why| Problem::bad(format!("`vlan`: {why}"))));
    let vlan = vlan.transpose()?;
    let question = Question { from: asked.from, to, protocol: protocol as u8, kind: asked.packet, vlan };
    match app.asker.ask(Request::Explain(question)).await? {
        Answer::Explanation(told) => Ok(Json((*told).into())),
        _ => Err(Problem::unexpected()),
    }
}

/// Compares the servers' counters with the connection table, all of it: what does not agree, a sentence each.
#[utoipa::path(post, path = "/api/v1/check", tag = "status", responses((status = OK, body = Vec<String>), Refusals))]
pub async fn check(State(app): State<App>) -> Result<Json<Vec<String>>, Problem> {
    match app.asker.ask(Request::Check).await? {
        Answer::Check(differences) => Ok(Json(differences)),
        _ => Err(Problem::unexpected()),
    }
}
