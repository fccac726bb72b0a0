//! What happens, for those who ask again and again.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::problem::Problem;
use super::take::Asked;
use super::{App, Refusals};
use crate::event::Event;

/// Seconds that are waited for an event at the most: less than a connection lasts.
const LONGEST: u64 = 60;

/// Which events.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Since {
    /// Those after the event with this number; what the last answer's `last` said. Without it, all that are kept.
    #[serde(default)]
    after: u64,
    /// If there is none yet, wait for one for so many seconds, 60 at the most.
    #[serde(default)]
    wait: u64,
}

/// What has happened.
#[derive(Serialize, ToSchema)]
pub struct Happened {
    /// As `xlvs watch --json` tells them, the oldest first, 1000 at the most.
    #[schema(value_type = Vec<Object>, example = json!([{ "number": 7, "time_ms": 1_800_000_000_000_u64, "event": "table-full", "refused": 3 }]))]
    events: Vec<Event>,
    /// So many came before these and are not kept any more.
    missed: u64,
    /// The number to ask with the next time. Less than what was asked with when the daemon was started anew, which counts from 1.
    last: u64,
}

/// What has happened since an event, or happens soon: ask with `after` and `wait`, again and again.
#[utoipa::path(get, path = "/api/v1/events", tag = "status", params(Since), responses((status = OK, body = Happened), Refusals))]
pub async fn since(
    State(app): State<App>,
    Asked(Since { after, wait }): Asked<Since>,
) -> Result<Json<Happened>, Problem> {
    let wait = Duration::from_secs(wait.min(LONGEST));
    let (found, last) = app.asker.events(after, wait).await?;
    Ok(Json(Happened { events: found.events, missed: found.missed, last }))
}
