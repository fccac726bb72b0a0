//! What can be asked over HTTP, and the description of it that is made from the handlers.

mod configuration;
mod connections;
mod events;
mod rules;
mod services;
mod settings;
mod status;
mod take;
mod trace;
mod words;

use std::time::SystemTime;

use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router, middleware};
use serde::Serialize;
use utoipa::openapi::OpenApi as Description;
use utoipa::{IntoResponses, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use xlvs_model::view::ServiceView;
use xlvs_model::{Change, Model};

use super::ask::Asker;
use super::caller::{self, Caller};
use super::history::History;
use super::metrics;
use super::page;
use super::problem::Problem;
use super::sight::Sights;
use crate::named;
use crate::protocol::{Answer, Request};
use words::Identity;

pub use take::Asked;

/// Bytes of a body at the most: a file of ten thousand services with ten servers each has a tenth of it.
const BODY: usize = 32 << 20;

/// What handlers share.
#[derive(Clone)]
pub struct App {
    /// Asks the daemon.
    pub asker: Asker,
    /// What the daemon was when it was last looked at.
    pub sights: Sights,
    /// What it was in the last minutes.
    pub history: History,
    /// Metrics of each server too.
    pub per_server: bool,
    /// When the daemon began.
    pub began: SystemTime,
}

/// What was changed, or would be, or differs.
#[derive(Serialize, ToSchema)]
pub struct Changes {
    /// A sentence a change; none: there is nothing to change.
    #[schema(example = json!(["add service TCP 192.0.2.10:80: wlc"]))]
    changes: Vec<String>,
    /// Was it done?
    made: bool,
}

/// What every request can be answered with instead.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it describes answers, which are all one type")]
pub enum Refusals {
    /// The request is not understood.
    #[response(status = BAD_REQUEST)]
    Bad(Problem),
    /// Over TLS: there is no token that is known.
    #[response(status = UNAUTHORIZED)]
    Unknown(Problem),
    /// The caller may not do this.
    #[response(status = FORBIDDEN)]
    Forbidden(Problem),
    /// There is no such thing.
    #[response(status = NOT_FOUND)]
    Absent(Problem),
    /// It is there already.
    #[response(status = CONFLICT)]
    There(Problem),
    /// The body is too long.
    #[response(status = PAYLOAD_TOO_LARGE)]
    TooLong(Problem),
    /// It cannot be; nothing was changed.
    #[response(status = UNPROCESSABLE_ENTITY)]
    Refused(Problem),
    /// The daemon has no time.
    #[response(status = SERVICE_UNAVAILABLE)]
    Busy(Problem),
}

impl App {
    /// All that is stated.
    async fn model(&self) -> Result<Model, Problem> {
        match self.asker.ask(Request::Model).await? {
            Answer::Model(model) => Ok(*model),
            _ => Err(Problem::unexpected()),
        }
    }

    /// A service as it is stated.
    async fn stated(&self, identity: &Identity) -> Result<ServiceView, Problem> {
        let services: Vec<ServiceView> =
            self.model().await?.services().iter().map(ServiceView::from).collect();
        let found = named::service(&identity.name(), &services);
        found.cloned().map_err(|why| Problem::absent(format!("{why:#}")))
    }

    /// Has something done that answers with its changes.
    async fn plan(&self, request: Request, only_plan: bool) -> Result<Json<Changes>, Problem> {
        self.planned(self.asker.ask(request).await?, only_plan).await
    }

    /// An answer with changes.
    async fn planned(&self, answer: Answer, only_plan: bool) -> Result<Json<Changes>, Problem> {
        if !only_plan {
            self.sights.forget().await;
        }
        match answer {
            Answer::Plan(changes) => Ok(Json(Changes { made: !only_plan && !changes.is_empty(), changes })),
            Answer::Failed(why) => Err(Problem::refused(why)),
            Answer::Refused(_, why) => Err(why.into()),
            _ => Err(Problem::unexpected()),
        }
    }

    /// Has changes made as commands make them.
    async fn apply(&self, changes: Vec<Change>) -> Result<StatusCode, Problem> {
        let answer = self.asker.ask(Request::Apply(changes)).await?;
        self.sights.forget().await;
        match answer {
            Answer::Done => Ok(StatusCode::NO_CONTENT),
            _ => Err(Problem::unexpected()),
        }
    }
}

/// All routes.
pub struct Routes {
    guarded: Router,
}

/// The API of a director.
#[derive(OpenApi)]
#[openapi(
    components(schemas(Problem)),
    info(
        title = "xlvs",
        description = "The API of a director. Services are named by their kind (`tcp`, `udp`, `sctp`, `mark`, `mark6`) and by address and \
                   port, or by the number of their mark; servers by address and port. What is no GET takes the right to change. \
                   docs/http.md says who has it.",
        license(name = "MIT OR Apache-2.0")
    )
)]
struct Head;

impl Routes {
    /// Those that ask the daemon so.
    pub fn new(asker: Asker, history: History, per_server: bool) -> Self {
        let began = SystemTime::now();
        let app = App { sights: Sights::of(asker.clone()), asker, history, per_server, began };
        let (routes, description) = described();
        let description = json(&description);
        let openapi =
            async move || ([(header::CONTENT_TYPE, "application/json")], description).into_response();
        let guarded = routes
            .route("/openapi.json", get(openapi))
            .fallback(nothing_here)
            .method_not_allowed_fallback(not_so)
            .layer(DefaultBodyLimit::max(BODY))
            .with_state(app);
        Self { guarded }
    }

    /// The routes as this caller may use them.
    pub fn of(&self, caller: Caller) -> Router {
        let guarded = self.guarded.clone().layer(middleware::from_fn_with_state(caller, caller::admit));
        page::routes().fallback_service(guarded)
    }
}

fn described() -> (Router<App>, Description) {
    OpenApiRouter::with_openapi(Head::openapi())
        .routes(routes!(status::status))
        .routes(routes!(status::history))
        .routes(routes!(events::since))
        .routes(routes!(trace::trace))
        .routes(routes!(metrics::metrics))
        .routes(routes!(connections::list))
        .routes(routes!(connections::explain))
        .routes(routes!(connections::check))
        .routes(routes!(services::list, services::delete_all))
        .routes(routes!(services::get, services::put, services::delete))
        .routes(routes!(services::zero))
        .routes(routes!(services::zero_all))
        .routes(routes!(services::put_server, services::delete_server))
        .routes(routes!(services::say))
        .routes(routes!(services::put_agent, services::delete_agent))
        .routes(routes!(settings::timeouts, settings::set_timeouts))
        .routes(routes!(settings::tunables))
        .routes(routes!(settings::tune))
        .routes(routes!(settings::marks, settings::add_mark, settings::delete_mark))
        .routes(routes!(configuration::get, configuration::put))
        .routes(routes!(rules::get, rules::put))
        .routes(routes!(configuration::check))
        .routes(routes!(configuration::difference, configuration::difference_from))
        .routes(routes!(configuration::reload))
        .routes(routes!(configuration::revisions))
        .routes(routes!(configuration::rollback))
        .split_for_parts()
}

/// The description as it is served and kept in `docs/openapi.json`.
fn json(description: &Description) -> String {
    // What is derived can be written.
    description.to_pretty_json().unwrap_or_default() + "\n"
}

async fn nothing_here() -> Problem {
    Problem::absent("there is nothing here; /openapi.json says what there is")
}

async fn not_so() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this is not done so; /openapi.json says how")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_description_is_what_the_code_makes() {
        let made = json(&described().1);
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
        if std::env::var_os("XLVS_BLESS").is_some() {
            std::fs::write(&path, &made).expect("write the description");
        }
        let committed = std::fs::read_to_string(&path).expect("the description");
        assert!(
            made == committed,
            "XLVS_BLESS=1 cargo test -p xlvs description writes docs/openapi.json anew"
        );
    }
}
