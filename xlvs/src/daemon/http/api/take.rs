//! What requests carry, taken with refusals in JSON.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::super::problem::Problem;

/// What the path names.
pub struct Named<T>(pub T);

/// What is asked behind the question mark.
pub struct Asked<T>(pub T);

/// A body of JSON.
pub struct Said<T>(pub T);

/// A body of text.
pub struct Text(pub String);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let refused =
            |why: PathRejection| Problem::absent(format!("the path names nothing: {}", why.body_text()));
        Ok(Self(Path::from_request_parts(parts, state).await.map_err(refused)?.0))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let refused = |why: QueryRejection| Problem::bad(why.body_text());
        Ok(Self(Query::from_request_parts(parts, state).await.map_err(refused)?.0))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Said<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = bytes(request, state).await?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|why| Problem::bad(format!("the body is not as it should be: {why}")))
    }
}

impl<S: Send + Sync> FromRequest<S> for Text {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = bytes(request, state).await?;
        // Whoever forgot the file does not want everything deleted.
        if bytes.is_empty() {
            return Err(Problem::bad("the body is empty; send the file"));
        }
        String::from_utf8(bytes.into()).map(Self).map_err(|_| Problem::bad("the body is not in UTF-8"))
    }
}

async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|why: BytesRejection| match why.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a body has {} bytes at the most", super::BODY),
        ),
        _ => Problem::bad("the body did not come whole"),
    })
}
