//! How the director is.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::history::Sample;
use super::super::problem::Problem;
use super::{App, Refusals};
use crate::named;
use crate::overview::{Connections, Fragments, Interface, Overview, Reason, Room, Unreached, WorkDone};
use crate::plan;

/// How the director is: what `xlvs status` shows. Counters count from when the director came to be.
#[derive(Serialize, ToSchema)]
pub struct Status {
    /// Version of the daemon.
    version: String,
    /// Its process.
    pid: u32,
    /// Seconds since it was started; packets may have been forwarded for longer.
    running_s: u64,
    /// Where it forwards.
    interfaces: Vec<Interface>,
    /// Services.
    services: Room,
    /// Real servers, those that were removed and still have connections included.
    servers: Room,
    /// Servers without a next hop: nothing can be sent to them.
    unreached: Vec<Lost>,
    /// Connections.
    connections: Connections,
    /// Packets that were sent on.
    forwarded: u64,
    /// Packets that were answered with an ICMP error.
    answered: u64,
    /// Fragments, and packets that were cut.
    fragments: Fragments,
    /// What the daemon has done since its start.
    work: WorkDone,
    /// The newest revision; 0: none yet.
    revision: u64,
    /// Packets dropped, by reason; only reasons that occurred.
    drops: Vec<Reason>,
    /// Packets passed to the director's own stack, by reason; only reasons that occurred.
    passes: Vec<Reason>,
}

/// A server that nothing can be sent to.
#[derive(Serialize, ToSchema)]
struct Lost {
    /// Its service.
    #[schema(example = "tcp/192.0.2.10:80")]
    service: String,
    /// The server.
    #[schema(example = "10.0.0.11:8080")]
    server: String,
    /// Why, in a sentence; only of the first of them.
    why: Option<String>,
}

impl From<&Unreached> for Lost {
    fn from(unreached: &Unreached) -> Self {
        Self {
            service: named::of(&unreached.which.service),
            server: plan::server(&unreached.which.server),
            why: unreached.why.clone(),
        }
    }
}

impl From<&Overview> for Status {
    fn from(overview: &Overview) -> Self {
        Self {
            version: overview.version.clone(),
            pid: overview.pid,
            running_s: overview.running_s,
            interfaces: overview.interfaces.clone(),
            services: overview.services,
            servers: overview.servers,
            unreached: overview.unreached.iter().map(Lost::from).collect(),
            connections: overview.connections,
            forwarded: overview.forwarded,
            answered: overview.answered,
            fragments: overview.fragments,
            work: overview.work,
            revision: overview.revision,
            drops: overview.drops.clone(),
            passes: overview.passes.clone(),
        }
    }
}

/// How the director is.
#[utoipa::path(get, path = "/api/v1/status", tag = "status", responses((status = OK, body = Status), Refusals))]
pub async fn status(State(app): State<App>) -> Result<Json<Status>, Problem> {
    let sight = app.sights.now().await?;
    Ok(Json(Status::from(&sight.overview)))
}

/// What the director was in the last ten minutes: a sample each five seconds, the oldest first.
#[utoipa::path(get, path = "/api/v1/history", tag = "status", responses((status = OK, body = Vec<Sample>), Refusals))]
pub async fn history(State(app): State<App>) -> Json<Vec<Sample>> {
    Json(app.history.samples())
}
