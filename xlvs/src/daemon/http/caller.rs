//! Who asks, and what he may.
//!
//! | over | who | may |
//! | --- | --- | --- |
//! | the unix socket | root (`SO_PEERCRED`) | change |
//! | the unix socket | who else can open it: members of its group | read |
//! | TCP with TLS | the bearer of a token | what the token is for |
//! | TCP without, on this host | anybody | read |
//!
//! What is no GET is a change. The page itself, which holds no data, is for anybody.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::tokens::Tokens;

/// What a caller may do; who may do the latter may do the former.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum May {
    /// See everything.
    Read,
    /// Change everything.
    Change,
}

/// How a caller came.
#[derive(Clone)]
pub enum Caller {
    /// Over the unix socket, as this user.
    Local(u32),
    /// Over TCP without TLS, from this host.
    Loopback,
    /// Over TLS, and should show one of these tokens.
    Remote(Tokens),
}

/// Lets requests through that their caller may make.
pub async fn admit(State(caller): State<Caller>, request: Request, next: Next) -> Response {
    match caller.judge(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

impl Caller {
    fn judge(&self, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
        let reads = method.is_safe();
        match (self.may(headers)?, reads) {
            (May::Change, _) | (May::Read, true) => Ok(()),
            (May::Read, false) => Err(Problem::new(StatusCode::FORBIDDEN, self.advice())),
        }
    }

    fn may(&self, headers: &HeaderMap) -> Result<May, Problem> {
        match self {
            Self::Local(0) => Ok(May::Change),
            Self::Local(_) => Ok(May::Read),
            Self::Loopback if names_this_host(headers) => Ok(May::Read),
            // A name that leads here is one that a page of somebody else's could have chosen.
            Self::Loopback => {
                Err(Problem::new(StatusCode::FORBIDDEN, "ask for an address or localhost, not for a name"))
            }
            Self::Remote(tokens) => bearer(tokens, headers),
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Local(_) => "only root changes anything over this socket",
            Self::Loopback => {
                "nothing is changed over TCP without TLS and tokens; use the unix socket, or set up [http] in xlvs.toml"
            }
            Self::Remote(_) => "this token is for reading; it takes one that is for `change`",
        }
    }
}

fn bearer(tokens: &Tokens, headers: &HeaderMap) -> Result<May, Problem> {
    let unknown = |why: &str| Problem::new(StatusCode::UNAUTHORIZED, why);
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(token) = shown.and_then(|value| value.strip_prefix("Bearer ")) else {
        return Err(unknown("show a token: `Authorization: Bearer TOKEN`"));
    };
    match tokens.may(token.trim()) {
        Ok(may) => may.ok_or_else(|| unknown("nobody knows this token")),
        Err(why) => {
            tracing::error!("no token is accepted: {why:#}");
            Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the file of tokens cannot be used; the log says why",
            ))
        }
    }
}

/// `Host` is `localhost` or an address, with or without a port.
fn names_this_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return true };
    let is_address = host.parse::<std::net::SocketAddr>().is_ok()
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    is_address
        || host == "localhost"
        || host.strip_prefix("localhost:").is_some_and(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(caller: &Caller, method: Method, host: &'static str) -> u16 {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, header::HeaderValue::from_static(host));
        match caller.judge(&method, &headers) {
            Ok(()) => 200,
            Err(problem) => problem.into_response().status().as_u16(),
        }
    }

    #[test]
    fn root_changes_and_others_on_the_socket_read() {
        assert_eq!(judged(&Caller::Local(0), Method::PUT, "x"), 200);
        assert_eq!(judged(&Caller::Local(1000), Method::GET, "x"), 200);
        for method in [Method::PUT, Method::POST, Method::DELETE, Method::PATCH] {
            assert_eq!(judged(&Caller::Local(1000), method, "x"), 403);
        }
    }

    #[test]
    fn without_tls_tcp_is_for_reading_by_an_address() {
        for host in ["127.0.0.1:9110", "localhost:9110", "localhost", "[::1]:9110", "[::1]", "127.0.0.1"] {
            assert_eq!(judged(&Caller::Loopback, Method::GET, host), 200, "{host}");
            assert_eq!(judged(&Caller::Loopback, Method::DELETE, host), 403, "{host}");
        }
        for host in ["evil.example:9110", "localhost.evil.example", "localhost:x"] {
            assert_eq!(judged(&Caller::Loopback, Method::GET, host), 403, "{host}");
        }
    }
}
