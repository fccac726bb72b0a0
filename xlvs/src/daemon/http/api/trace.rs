//! What becomes of a client's packets.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::problem::Problem;
use super::take::Asked;
use super::{App, Refusals};
use crate::protocol::Answer;
use crate::trace::{Traced, Wanted};

/// Seconds that packets are traced for unless told, and at the most: less than a connection lasts.
const SECONDS: u64 = 10;
const LONGEST: u64 = 60;

/// Packets unless told, and at the most.
const PACKETS: u64 = 100;
const MOST: u64 = 10_000;

/// Whose packets, and for how long.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Whose {
    /// From and to these clients: a prefix.
    #[param(value_type = String, example = "198.51.100.7/32")]
    from: IpNet,
    /// Of their packets on each processor, every so many: 1 unless told.
    #[serde(default)]
    every: u32,
    /// So many packets at the most: 100 unless told, and never more than 10,000.
    count: Option<u64>,
    /// For so many seconds: 10 unless told, and never more than 60.
    seconds: Option<u64>,
}

/// Packets, and what became of them.
#[derive(Serialize, ToSchema)]
pub struct Told {
    /// In the order in which they left, each as `xlvs trace --json` tells it.
    #[schema(value_type = Vec<Object>)]
    packets: Vec<Traced>,
    /// Steps that came too fast and are not there.
    missed: u64,
}

/// Traces packets of some clients, and answers when there are enough or the time is over. Programs on all interfaces are exchanged for
/// that, which is a change.
#[utoipa::path(post, path = "/api/v1/trace", tag = "status", params(Whose), responses((status = OK, body = Told), Refusals))]
pub async fn trace(State(app): State<App>, Asked(whose): Asked<Whose>) -> Result<Json<Told>, Problem> {
    let wanted = Wanted {
        clients: whose.from.trunc(),
        every: whose.every.max(1),
        count: Some(whose.count.unwrap_or(PACKETS).clamp(1, MOST)),
        limit: Some(Duration::from_secs(whose.seconds.unwrap_or(SECONDS).min(LONGEST))),
    };
    let mut answers = app.asker.trace(wanted).await?;
    let mut told = Told { packets: Vec::new(), missed: 0 };
    while let Some(answer) = answers.recv().await {
        match answer {
            Answer::Traced(packet) => told.packets.push(*packet),
            Answer::Missed(count) => told.missed += count,
            Answer::Failed(why) => return Err(Problem::refused(why)),
            _ => {}
        }
    }
    Ok(Json(told))
}
