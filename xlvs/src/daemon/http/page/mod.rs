//! The page: what the director is, in a browser. It only reads, and all of it is in the binary.

use axum::Extension;
use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;

/// Nothing from anywhere else, and in no other page's frame.
const POLICY: &str =
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The page and its parts, for anybody: they hold nothing of the director. What they show they ask the API for.
pub fn routes() -> Router {
    let part =
        |content: &'static str, text: &'static str| get(serve).layer(Extension(Part { content, text }));
    Router::new()
        .route("/", part("text/html; charset=utf-8", include_str!("index.html")))
        .route("/page.css", part("text/css; charset=utf-8", include_str!("page.css")))
        .route("/page.js", part("text/javascript; charset=utf-8", include_str!("page.js")))
}

/// A file.
#[derive(Clone, Copy)]
struct Part {
    content: &'static str,
    text: &'static str,
}

async fn serve(Extension(Part { content, text }): Extension<Part>) -> impl IntoResponse {
    let value = HeaderValue::from_static;
    let headers: [(HeaderName, HeaderValue); 5] = [
        (header::CONTENT_TYPE, value(content)),
        (header::CONTENT_SECURITY_POLICY, value(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, value("nosniff")),
        (header::REFERRER_POLICY, value("no-referrer")),
        // Another version of the daemon has another page.
        (header::CACHE_CONTROL, value("no-cache")),
    ];
    (headers, text)
}
