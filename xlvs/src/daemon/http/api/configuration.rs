//! The whole configuration, and its revisions.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use xlvs_model::Config;

use super::super::problem::Problem;
use super::services::Planned;
use super::take::{Asked, Named, Text};
use super::{App, Changes, Refusals};
use crate::protocol::{Answer, Request};

/// Said of a file in messages.
const FILE: &str = "xlvs.toml";

/// All that rules, as an `xlvs.toml` that can be applied again.
#[utoipa::path(get, path = "/api/v1/configuration", tag = "configuration", responses(
    (status = OK, body = String, content_type = "application/toml"), Refusals,
))]
pub async fn get(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    match app.asker.ask(Request::Saved).await? {
        Answer::Text(text) => Ok(([(header::CONTENT_TYPE, "application/toml")], text)),
        _ => Err(Problem::unexpected()),
    }
}

/// How to apply a file.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct How {
    /// Only say what would change.
    #[serde(default)]
    pub plan: bool,
    /// Also put servers that are there into the file's order.
    #[serde(default)]
    pub in_order: bool,
}

fn right(text: &str) -> Result<(), Problem> {
    Config::read(text).map(|_| ()).map_err(|mistakes| Problem::refused(mistakes.in_file(FILE)))
}

/// Makes the director what an `xlvs.toml` says, all or nothing.
#[utoipa::path(put, path = "/api/v1/configuration", tag = "configuration", params(How),
    request_body(content = String, content_type = "application/toml"),
    responses((status = OK, body = Changes), Refusals))]
pub async fn put(
    State(app): State<App>,
    Asked(How { plan, in_order }): Asked<How>,
    Text(text): Text,
) -> Result<Json<Changes>, Problem> {
    right(&text)?;
    let by = "API, PUT configuration".to_owned();
    app.plan(Request::Configure { text, in_order, only_plan: plan, by }, plan).await
}

/// Something wrong at a place in a file.
#[derive(Serialize, ToSchema)]
pub struct Mistake {
    /// From 1.
    line: usize,
    /// In characters, from 1.
    column: usize,
    /// In a sentence.
    message: String,
}

/// Tells all that is wrong with an `xlvs.toml`; nothing is changed.
#[utoipa::path(post, path = "/api/v1/configuration/check", tag = "configuration",
    request_body(content = String, content_type = "application/toml"),
    responses((status = OK, body = Vec<Mistake>), Refusals))]
pub async fn check(Text(text): Text) -> Result<Json<Vec<Mistake>>, Problem> {
    let told = |mistake: &xlvs_model::config::Mistake| Mistake {
        line: mistake.line,
        column: mistake.column,
        message: mistake.message.clone(),
    };
    Ok(Json(
        Config::read(&text).err().map(|mistakes| mistakes.iter().map(told).collect()).unwrap_or_default(),
    ))
}

/// In what the running director differs from the file that the daemon was started with.
#[utoipa::path(get, path = "/api/v1/configuration/difference", tag = "configuration", responses((status = OK, body = Changes), Refusals))]
pub async fn difference(State(app): State<App>) -> Result<Json<Changes>, Problem> {
    app.plan(Request::Difference(None), true).await
}

/// In what the running director differs from this `xlvs.toml`; nothing is changed.
#[utoipa::path(post, path = "/api/v1/configuration/difference", tag = "configuration",
    request_body(content = String, content_type = "application/toml"),
    responses((status = OK, body = Changes), Refusals))]
pub async fn difference_from(State(app): State<App>, Text(text): Text) -> Result<Json<Changes>, Problem> {
    right(&text)?;
    app.plan(Request::Difference(Some(text)), true).await
}

/// Makes the director what the file says that the daemon was started with, as SIGHUP does.
#[utoipa::path(post, path = "/api/v1/configuration/reload", tag = "configuration", responses((status = OK, body = Changes), Refusals))]
pub async fn reload(State(app): State<App>) -> Result<Json<Changes>, Problem> {
    app.plan(Request::Reload, false).await
}

/// A state that was applied.
#[derive(Serialize, ToSchema)]
pub struct Revision {
    /// Counted from 1.
    number: u64,
    /// Seconds since 1970.
    time: u64,
    /// How many changes led to it.
    changes: usize,
    /// Whose wish it was.
    by: String,
}

/// The revisions that are kept, the oldest first.
#[utoipa::path(get, path = "/api/v1/revisions", tag = "configuration", responses((status = OK, body = Vec<Revision>), Refusals))]
pub async fn revisions(State(app): State<App>) -> Result<Json<Vec<Revision>>, Problem> {
    let Answer::History(kept) = app.asker.ask(Request::History).await? else {
        return Err(Problem::unexpected());
    };
    let shown = kept.into_iter().map(|crate::protocol::Revision { number, time, changes, by }| Revision {
        number,
        time,
        changes,
        by,
    });
    Ok(Json(shown.collect()))
}

/// Makes the director what a revision was.
#[utoipa::path(post, path = "/api/v1/revisions/{number}/rollback", tag = "configuration", params(
    ("number" = u64, Path, description = "The revision's number"),
    Planned,
), responses((status = OK, body = Changes), Refusals))]
pub async fn rollback(
    State(app): State<App>,
    Named(number): Named<u64>,
    Asked(Planned { plan }): Asked<Planned>,
) -> Result<Json<Changes>, Problem> {
    app.plan(Request::Rollback { number, only_plan: plan }, plan).await
}
