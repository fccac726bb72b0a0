//! A request over HTTP/2 and its answer, bounded in memory.

use h2::{RecvStream, client};
use hyper::body::Bytes;
use hyper::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

/// Of an answer's head, so much is read.
const HEAD: u32 = 64 << 10;
/// Of an answer's body, so much may come before it is looked at.
const WINDOW: u32 = 64 << 10;

/// Sends a request, and has its answer judged.
pub(super) async fn exchange<S>(
    stream: S,
    request: Request<()>,
    body: Bytes,
    judge: impl AsyncFnOnce(Response<RecvStream>) -> Result<(), String>,
) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = client::Builder::new()
        .enable_push(false)
        .max_header_list_size(HEAD)
        .initial_window_size(WINDOW)
        .handshake(stream);
    let (client, connection) = handshake.await.map_err(no_http2)?;
    let answer = async {
        let mut client = client.ready().await.map_err(no_http2)?;
        let is_all = body.is_empty();
        let (answer, mut sending) = client.send_request(request, is_all).map_err(no_http2)?;
        if !is_all {
            sending.send_data(body, true).map_err(no_http2)?;
        }
        judge(answer.await.map_err(no_http2)?).await
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        judged = &mut answer => judged,
        // The connection ended; what came before is still to be had.
        _ = &mut connection => answer.await,
    }
}

/// The beginning of a body, and whether that is all of it.
pub(super) async fn beginning(body: &mut RecvStream, most: usize) -> Result<(Vec<u8>, bool), String> {
    let mut read = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(|why| format!("the body ends early: {why}"))?;
        let room = most - read.len();
        read.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            return Ok((read, false));
        }
        body.flow_control().release_capacity(data.len()).map_err(no_http2)?;
    }
    Ok((read, true))
}

pub(super) fn no_http2(why: h2::Error) -> String {
    format!("no HTTP/2: {why}")
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use hyper::HeaderMap;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use xlvs_health::Outcome;
    use xlvs_model::watch::{CheckKind, HttpSpec, HttpVersion, TlsSpec};

    use super::super::probe;
    use super::super::tests::{DAY, certified, check, fails};
    use super::*;

    /// What a server answers.
    #[derive(Clone)]
    pub struct Answer {
        pub status: u16,
        pub kind: &'static str,
        pub body: Vec<u8>,
        /// `grpc-status`, behind the body.
        pub call: Option<&'static str>,
    }

    /// The outcome of a check of a server that answers one request so, and that request: method, place and body.
    pub fn outcome(kind: CheckKind, tls: Option<ServerConfig>, answer: Answer) -> (Outcome, String, Vec<u8>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let target: SocketAddr = listener.local_addr().expect("its address");
        let runtime =
            || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let server = std::thread::spawn(move || {
            runtime().block_on(async {
                listener.set_nonblocking(true).expect("it need not wait");
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let (stream, _) = listener.accept().await.expect("a probe");
                match tls {
                    None => serve(stream, answer).await,
                    Some(config) => match TlsAcceptor::from(Arc::new(config)).accept(stream).await {
                        Ok(stream) => serve(stream, answer).await,
                        Err(_) => Default::default(),
                    },
                }
            })
        });
        let outcome = runtime().block_on(probe(&check(kind, target.port()), &target.into()));
        let (asked, body) = server.join().expect("the server ends");
        (outcome, asked, body)
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, answer: Answer) -> (String, Vec<u8>) {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return Default::default() };
        let Some(Ok((request, mut respond))) = connection.accept().await else { return Default::default() };
        let asked = format!("{} {}", request.method(), request.uri());
        let mut body = request.into_body();
        let mut heard = Vec::new();
        loop {
            tokio::select! {
                data = body.data() => match data {
                    Some(Ok(data)) => heard.extend_from_slice(&data),
                    _ => break,
                },
                _ = connection.accept() => break,
            }
        }
        let head = Response::builder().status(answer.status).header("content-type", answer.kind);
        let mut sending = respond.send_response(head.body(()).expect("a head"), false).expect("it is sent");
        sending.send_data(answer.body.into(), answer.call.is_none()).expect("it is sent");
        if let Some(code) = answer.call {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", code.parse().expect("a value"));
            sending.send_trailers(trailers).expect("they are sent");
        }
        while let Some(Ok(_)) = connection.accept().await {}
        (asked, heard)
    }

    fn get(tls: Option<TlsSpec>, body: Option<&str>, digest: Option<&str>) -> CheckKind {
        CheckKind::Http(HttpSpec {
            tls,
            version: HttpVersion::Two,
            path: "/health".to_owned(),
            host: Some("www.example.com".to_owned()),
            status: vec![(200, 299)],
            body: body.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    fn says(status: u16, body: &[u8]) -> Answer {
        Answer { status, kind: "text/plain", body: body.to_vec(), call: None }
    }

    #[test]
    fn a_request_over_http2_is_answered_as_it_should_be_or_not() {
        let (fine, asked, _) = outcome(get(None, Some("^ok$"), None), None, says(200, b"ok"));
        assert_eq!((fine, &asked[..]), (Outcome::Success, "GET http://www.example.com/health"));
        let why = |kind, answer| match outcome(kind, None, answer).0 {
            Outcome::Failure(why) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(why(get(None, None, None), says(503, b"")), "status 503");
        let other = why(get(None, Some("^ok$"), None), says(200, b"broken"));
        assert_eq!(other, "the body has nothing that matches ^ok$");
        let long = why(get(None, None, Some(&"0".repeat(64))), says(200, &[b'x'; 300_000]));
        assert_eq!(long, "the body is longer than 65536 bytes: of so many a digest is made");
    }

    #[test]
    fn over_tls_a_server_must_agree_to_http2() {
        let over = |protocols: &[&[u8]]| {
            let mut config = certified(100_000 * DAY);
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            outcome(get(Some(TlsSpec::default()), None, None), Some(config), says(200, b"ok"))
        };
        let (fine, asked, _) = over(&[b"http/1.1", b"h2"]);
        assert_eq!((fine, &asked[..]), (Outcome::Success, "GET https://www.example.com/health"));
        let none = Outcome::Failure("no HTTP/2: the server does not agree to it (ALPN)".to_owned());
        assert_eq!(over(&[]).0, none);
        let (other, ..) = over(&[b"http/1.1"]);
        assert!(matches!(&other, Outcome::Failure(why) if why.starts_with("no TLS: ")), "{other:?}");
    }

    #[test]
    fn who_speaks_no_http2_fails_and_costs_little() {
        let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert!(fails(get(None, None, None), ok).starts_with("no HTTP/2: "));
        // An empty SETTINGS, and a head that goes on and on in frames of nothing but a name.
        let settings = b"\0\0\0\x04\0\0\0\0\0";
        let head = b"\0\0\x01\x01\0\0\0\0\x01\x88";
        let more = [&b"\0\x10\0\x09\0\0\0\0\x01"[..], &[0x88; 4096]].concat();
        let endless: &[u8] = Vec::leak([&settings[..], head, &more.repeat(200)].concat());
        assert!(fails(get(None, None, None), endless).starts_with("no HTTP/2: "));
    }
}
