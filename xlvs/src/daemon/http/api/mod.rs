//! What can be asked over HTTP, and the description of it that is made from the handlers.

mod status;

use std::time::SystemTime;

use axum::{Router, middleware};
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Description;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ask::Asker;
use super::caller::{self, Caller};
use super::metrics;
use super::problem::Problem;
use super::sight::Sights;

/// What handlers share.
#[derive(Clone)]
pub struct App {
    /// What the daemon was when it was last looked at.
    pub sights: Sights,
    /// Metrics of each server too.
    pub per_server: bool,
    /// When the daemon began.
    pub began: SystemTime,
}

/// All routes.
pub struct Routes {
    guarded: Router,
}

/// The director's API. Services are named by their kind (`tcp`, `udp`, `sctp`, `mark`, `mark6`) and by address and port or
/// the number of their mark; servers by address and port. What is no GET is a change.
#[derive(OpenApi)]
#[openapi(info(title = "xlvs", license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")))]
struct Head;

impl Routes {
    /// Those that ask the daemon so.
    pub fn new(asker: Asker, per_server: bool) -> Self {
        let app = App { sights: Sights::of(asker), per_server, began: SystemTime::now() };
        let (routes, _) = described();
        let guarded = routes.fallback(nothing_here).method_not_allowed_fallback(not_so).with_state(app);
        Self { guarded }
    }

    /// The routes as this caller may use them.
    pub fn of(&self, caller: Caller) -> Router {
        self.guarded.clone().layer(middleware::from_fn_with_state(caller, caller::admit))
    }
}

fn described() -> (Router<App>, Description) {
    OpenApiRouter::with_openapi(Head::openapi())
        .routes(routes!(status::status))
        .routes(routes!(metrics::metrics))
        .split_for_parts()
}

async fn nothing_here() -> Problem {
    Problem::absent("there is nothing here; /openapi.json says what there is")
}

async fn not_so() -> Problem {
    Problem::new(axum::http::StatusCode::METHOD_NOT_ALLOWED, "this is not done so; /openapi.json says how")
}
