//! A GET, and whether its answer is what it should be.

use std::net::SocketAddr;
use std::time::SystemTime;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use ring::digest;
use tokio::io::{AsyncRead, AsyncWrite};
use xlvs_model::watch::{HttpSpec, HttpVersion};

use super::{Trouble, Whom, find, http2, tls};

/// Of an answer's head, so much is read.
const HEAD: usize = 64 << 10;
/// Of an answer's body, so much is looked at.
const BODY: usize = 64 << 10;

/// Asks, and tells what is wrong with the answer, or what is to be warned of.
pub(super) async fn get(spec: &HttpSpec, whom: &Whom) -> Result<Option<String>, Trouble> {
    let (stream, asked) = (whom.connect().await?, whom.asked());
    let Some(how) = &spec.tls else {
        exchange(spec, asked, stream).await?;
        return Ok(None);
    };
    let stream = tls::begin(how, spec.version, asked, stream).await?;
    let warning = tls::expiry(how, &stream, SystemTime::now());
    exchange(spec, asked, stream).await?;
    Ok(warning)
}

async fn exchange<S>(spec: &HttpSpec, asked: SocketAddr, stream: S) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match spec.version {
        HttpVersion::One => exchange_by_1(spec, asked, stream).await,
        HttpVersion::Two => exchange_by_2(spec, asked, stream).await,
    }
}

async fn exchange_by_1<S>(spec: &HttpSpec, asked: SocketAddr, stream: S) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let no_http = |why: hyper::Error| format!("no HTTP: {why}");
    let handshake = http1::Builder::new().max_buf_size(HEAD).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(no_http)?;
    let request = request(spec, asked)?;
    let answer = async { judge(spec, sender.send_request(request).await.map_err(no_http)?).await };
    tokio::pin!(answer, connection);
    tokio::select! {
        judged = &mut answer => judged,
        // The connection ended; what came before is still to be had.
        _ = &mut connection => answer.await,
    }
}

async fn exchange_by_2<S>(spec: &HttpSpec, asked: SocketAddr, stream: S) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let scheme = if spec.tls.is_some() { "https" } else { "http" };
    let request = Request::get(format!("{scheme}://{}{}", host(spec, asked), spec.path))
        .header(header::USER_AGENT, USER_AGENT)
        .body(())
        .map_err(no_request)?;
    http2::exchange(stream, request, Bytes::new(), async |answer| {
        judge_status(spec, answer.status())?;
        if !is_body_wanted(spec) {
            return Ok(());
        }
        let (body, is_whole) = http2::beginning(&mut answer.into_body(), BODY).await?;
        judge_body(spec, &body, is_whole)
    })
    .await
}

pub(super) const USER_AGENT: &str = concat!("xlvs/", env!("CARGO_PKG_VERSION"));

fn host(spec: &HttpSpec, asked: SocketAddr) -> String {
    spec.host.clone().unwrap_or_else(|| asked.to_string())
}

pub(super) fn no_request(why: hyper::http::Error) -> String {
    format!("no request can be made: {why}")
}

fn request(spec: &HttpSpec, asked: SocketAddr) -> Result<Request<Empty<Bytes>>, String> {
    Request::get(&spec.path)
        .header(header::HOST, host(spec, asked))
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(no_request)
}

async fn judge(spec: &HttpSpec, answer: Response<Incoming>) -> Result<(), String> {
    judge_status(spec, answer.status())?;
    if !is_body_wanted(spec) {
        return Ok(());
    }
    let (body, is_whole) = beginning(answer.into_body()).await?;
    judge_body(spec, &body, is_whole)
}

fn judge_status(spec: &HttpSpec, status: StatusCode) -> Result<(), String> {
    let status = status.as_u16();
    let is_right = spec.status.iter().any(|(first, last)| (*first..=*last).contains(&status));
    if is_right { Ok(()) } else { Err(format!("status {status}")) }
}

fn is_body_wanted(spec: &HttpSpec) -> bool {
    spec.body.is_some() || spec.digest.is_some()
}

fn judge_body(spec: &HttpSpec, body: &[u8], is_whole: bool) -> Result<(), String> {
    if let Some(pattern) = &spec.body {
        find(pattern, "the body", body)?;
    }
    match &spec.digest {
        Some(_) if !is_whole => {
            Err(format!("the body is longer than {BODY} bytes: of so many a digest is made"))
        }
        Some(wanted) => compare(wanted, body),
        None => Ok(()),
    }
}

fn compare(wanted: &str, body: &[u8]) -> Result<(), String> {
    let digest = digest::digest(&digest::SHA256, body);
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    if digest == wanted { Ok(()) } else { Err(format!("the body's digest is {digest}")) }
}

/// The beginning of a body, and whether that is all of it.
async fn beginning(mut body: Incoming) -> Result<(Vec<u8>, bool), String> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|why| format!("the body ends early: {why}"))?;
        let Ok(data) = frame.into_data() else { continue };
        let room = BODY - read.len();
        read.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            return Ok((read, false));
        }
    }
    Ok((read, true))
}
