//! One probe of a server: sockets for what `xlvs-health` decides about. Bounded in memory; who waits bounds the time.

mod http;
mod tls;

use std::net::SocketAddr;

use tokio::net::TcpStream;
use xlvs_health::Outcome;
use xlvs_model::watch::{CheckKind, CheckSpec};

/// Makes the probe that a check asks for.
pub async fn probe(spec: &CheckSpec, target: SocketAddr) -> Outcome {
    let outcome = match &spec.kind {
        CheckKind::Tcp => connect(target).await.map(drop),
        CheckKind::Http(http) => http::get(http, target).await,
    };
    outcome.map_or_else(Outcome::Failure, |()| Outcome::Success)
}

/// Connects, or says in a few words why not.
async fn connect(target: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(target).await.map_err(|why| in_words(&why))
}

/// An error without the number that the system has for it.
fn in_words(why: &std::io::Error) -> String {
    let text = why.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    use xlvs_model::watch::{HttpSpec, Timing, TlsSpec};

    use super::*;

    const GET: HttpSpec =
        HttpSpec { tls: None, path: String::new(), host: None, status: Vec::new(), body: None };

    fn check(kind: CheckKind, port: u16) -> CheckSpec {
        CheckSpec { kind, address: None, port, timing: Timing::default() }
    }

    fn http(body: Option<&str>, tls: Option<TlsSpec>) -> CheckKind {
        let body = body.map(str::to_owned);
        CheckKind::Http(HttpSpec { path: "/health".to_owned(), status: vec![(200, 299)], body, tls, ..GET })
    }

    /// The outcome of a check of a server that answers every request with these bytes, and the request.
    fn outcome(kind: CheckKind, answer: &'static [u8]) -> (Outcome, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = listener.local_addr().expect("its address");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a probe");
            stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
            let mut request = [0; 2000];
            let length = if answer.is_empty() { 0 } else { stream.read(&mut request).unwrap_or(0) };
            let _hung_up = stream.write_all(answer);
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let outcome = runtime.block_on(probe(&check(kind, target.port()), target));
        (outcome, server.join().expect("the server ends"))
    }

    fn fails(kind: CheckKind, answer: &'static [u8]) -> String {
        match outcome(kind, answer).0 {
            Outcome::Failure(why) => why,
            Outcome::Success => panic!("it succeeds"),
        }
    }

    #[test]
    fn a_connection_is_accepted_or_the_reason_is_told() {
        assert_eq!(outcome(CheckKind::Tcp, b"").0, Outcome::Success);
        let target =
            TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port that is free now");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let refused = runtime.block_on(probe(&check(CheckKind::Tcp, target.port()), target));
        assert_eq!(refused, Outcome::Failure("connection refused".to_owned()));
    }

    #[test]
    fn a_request_is_answered_as_it_should_be() {
        let (outcome, request) = outcome(http(None, None), b"HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(outcome, Outcome::Success);
        assert!(request.starts_with("GET /health HTTP/1.1\r\n"), "{request}");
        assert!(request.to_ascii_lowercase().contains("\r\nhost: 127.0.0.1:"), "{request}");
    }

    #[test]
    fn another_status_or_body_fails() {
        let busy = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(fails(http(None, None), busy), "status 503");
        let body = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nbroken";
        assert_eq!(fails(http(Some("^ok$"), None), body), "the body has nothing that matches ^ok$");
        let ok = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        assert_eq!(outcome(http(Some("^ok$"), None), ok).0, Outcome::Success);
    }

    #[test]
    fn strangers_fail_and_cost_little() {
        assert!(fails(http(None, None), b"SSH-2.0-OpenSSH_9.2\r\n").starts_with("no HTTP: "));
        let headers: &[u8] = Vec::leak([&b"HTTP/1.1 200 OK\r\n"[..], &b"X: y\r\n".repeat(100_000)].concat());
        assert!(fails(http(None, None), headers).starts_with("no HTTP: "));
        let length = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n";
        let huge: &[u8] = Vec::leak([&length[..], &[b'x'; 200_000]].concat());
        assert_eq!(fails(http(Some("never"), None), huge), "the body has nothing that matches never");
        let tls = Some(TlsSpec::default());
        assert!(fails(http(None, tls), b"HTTP/1.1 400 Bad Request\r\n\r\n").starts_with("no TLS: "));
    }
}
