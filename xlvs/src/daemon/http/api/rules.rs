//! The director in `ipvsadm`'s words.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use tokio::task::spawn_blocking;
use xlvs_ipvsadm::{System, read_script, script};

use super::super::problem::Problem;
use super::configuration::How;
use super::take::{Asked, Text};
use super::{App, Changes, Refusals};
use crate::protocol::{Answer, Request};

/// All that `ipvsadm` has words for, as rules that `ipvsadm -R` and `xlvs apply` take: without checks, agents and interfaces.
#[utoipa::path(get, path = "/api/v1/rules", tag = "configuration", responses(
    (status = OK, body = String, content_type = "text/plain"), Refusals,
))]
pub async fn get(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    let model = app.model().await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], script(&model)))
}

/// Makes the director what rules say, as `ipvsadm-save` writes them: all or nothing, and without touching what stays.
#[utoipa::path(put, path = "/api/v1/rules", tag = "configuration", params(How),
    request_body(content = String, content_type = "text/plain"),
    responses((status = OK, body = Changes), Refusals))]
pub async fn put(
    State(app): State<App>,
    Asked(How { plan, in_order }): Asked<How>,
    Text(text): Text,
) -> Result<Json<Changes>, Problem> {
    // Names of hosts may be asked for.
    let read = spawn_blocking(move || read_script(text.as_bytes(), &System::default()));
    let rules = read.await.map_err(|_| Problem::busy())?.map_err(|why| Problem::refused(why.to_string()))?;
    let changes = rules.iter().map(|rule| rule.change.clone()).collect();
    let by = "API, PUT rules".to_owned();
    let request = Request::Become { changes, in_order, only_plan: plan, by };
    let answer = app.asker.answer(request).await?;
    if let Answer::Refused(at, why) = &answer
        && let Some(rule) = rules.get(*at)
    {
        return Err(Problem::refused(rule.refused(why).to_string()));
    }
    app.planned(answer, plan).await
}
