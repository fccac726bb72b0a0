//! gRPC's health checking protocol: is the server, or one of its services, serving?
//!
//! The two messages of `grpc.health.v1.Health/Check` have one field each, so they are written and read here. What is around them is
//! gRPC over HTTP/2: a byte and a length before a message, and the outcome of the call in what trails the body.

use std::time::SystemTime;

use h2::RecvStream;
use hyper::body::Bytes;
use hyper::{HeaderMap, Request, Response, header};
use tokio::io::{AsyncRead, AsyncWrite};
use xlvs_model::watch::{GrpcSpec, HttpVersion};

use super::{Trouble, Whom, http, http2, tls};

const METHOD: &str = "/grpc.health.v1.Health/Check";
/// An answer is a few bytes long.
const ANSWER: usize = 1 << 10;
/// Before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// `HealthCheckResponse.ServingStatus`, by number.
const SERVING: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
/// Outcomes of calls, by number.
const OUTCOMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Asks, and tells what is wrong with the answer, or what is to be warned of.
pub(super) async fn ask(spec: &GrpcSpec, whom: &Whom) -> Result<Option<String>, Trouble> {
    let (stream, asked) = (whom.connect().await?, whom.asked());
    let host = spec.host.clone().unwrap_or_else(|| asked.to_string());
    let Some(how) = &spec.tls else {
        call(&spec.service, &format!("http://{host}{METHOD}"), stream).await?;
        return Ok(None);
    };
    let stream = tls::begin(how, HttpVersion::Two, asked, stream).await?;
    let warning = tls::expiry(how, &stream, SystemTime::now());
    call(&spec.service, &format!("https://{host}{METHOD}"), stream).await?;
    Ok(warning)
}

async fn call<S>(service: &str, uri: &str, stream: S) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = Request::post(uri)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, http::USER_AGENT)
        .body(())
        .map_err(http::no_request)?;
    http2::exchange(stream, request, question(service), judge).await
}

async fn judge(answer: Response<RecvStream>) -> Result<(), String> {
    if answer.status() != 200 {
        return Err(format!("status {}", answer.status().as_u16()));
    }
    let is_grpc = |kind: &str| kind.starts_with("application/grpc");
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(is_grpc) {
        return Err("no gRPC: the answer is of another type".to_owned());
    }
    // Of a call that fails at once, the outcome is in the head.
    if let Some(outcome) = outcome(answer.headers()) {
        outcome?;
    }
    let mut body = answer.into_body();
    let (said, is_whole) = http2::beginning(&mut body, ANSWER).await?;
    if !is_whole {
        return Err(format!("no gRPC: the answer is longer than {ANSWER} bytes"));
    }
    let trailers = body.trailers().await.map_err(http2::no_http2)?;
    outcome(&trailers.unwrap_or_default())
        .unwrap_or_else(|| Err("no gRPC: the call has no outcome".to_owned()))?;
    let status = message(&said).and_then(status).ok_or("no gRPC: the answer is no message of a status")?;
    match SERVING.get(usize::try_from(status).unwrap_or(usize::MAX)) {
        Some(&"SERVING") => Ok(()),
        Some(other) => Err(format!("it says {other}")),
        None => Err(format!("it says status {status}")),
    }
}

/// How the call ended, if that is told here.
fn outcome(headers: &HeaderMap) -> Option<Result<(), String>> {
    let code = headers.get("grpc-status")?.to_str().ok().and_then(|code| code.parse::<usize>().ok());
    Some(match code {
        Some(0) => Ok(()),
        Some(code) => Err(format!("the call ends with {}", OUTCOMES.get(code).unwrap_or(&"an unknown code"))),
        None => Err("no gRPC: the call has an outcome that is no number".to_owned()),
    })
}

/// A `HealthCheckRequest`: field 1 is the service's name.
fn question(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(1 << 3 | 2);
        put_varint(&mut message, service.len());
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0][..], &length, &message].concat().into()
}

fn put_varint(message: &mut Vec<u8>, mut number: usize) {
    while number > 0x7f {
        message.push(number as u8 | 0x80);
        number >>= 7;
    }
    message.push(number as u8);
}

/// The one message of a body, which is not compressed.
fn message(body: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = body.split_at_checked(PREFIX)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    (prefix[0] == 0 && length as usize == message.len()).then_some(message)
}

/// The status in a `HealthCheckResponse`: field 1, a number; 0 where it is not there. Other fields are passed over.
fn status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => status = take_varint(&mut message)?,
            (_, 0) => _ = take_varint(&mut message)?,
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use xlvs_health::Outcome;
    use xlvs_model::watch::{CheckKind, TlsSpec};

    use super::super::http2::tests::{Answer, outcome as outcome_of};
    use super::super::tests::{DAY, certified};
    use super::*;

    /// The outcome of a question about a service to a server that answers so.
    fn asked(service: &str, answer: Answer) -> Outcome {
        let spec = GrpcSpec { tls: None, host: None, service: service.to_owned() };
        let (outcome, place, heard) = outcome_of(CheckKind::Grpc(spec), None, answer);
        assert!(place.starts_with("POST http://127.0.0.1:") && place.ends_with(METHOD), "{place}");
        assert_eq!(heard, question(service));
        outcome
    }

    fn says(body: &[u8], call: Option<&'static str>) -> Answer {
        Answer { status: 200, kind: "application/grpc", body: body.to_vec(), call }
    }

    const IS_SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";

    #[test]
    fn a_server_says_whether_it_serves() {
        let failure = |why: &str| Outcome::Failure(why.to_owned());
        assert_eq!(asked("", says(IS_SERVING, Some("0"))), Outcome::Success);
        assert_eq!(asked("shop.v1.Cart", says(IS_SERVING, Some("0"))), Outcome::Success);
        let not = says(b"\0\0\0\0\x02\x08\x02", Some("0"));
        assert_eq!(asked("", not), failure("it says NOT_SERVING"));
        assert_eq!(asked("", says(b"\0\0\0\0\0", Some("0"))), failure("it says UNKNOWN"));
        assert_eq!(asked("none", says(b"", Some("5"))), failure("the call ends with NOT_FOUND"));
        assert_eq!(asked("", says(b"", Some("12"))), failure("the call ends with UNIMPLEMENTED"));
    }

    #[test]
    fn who_is_no_grpc_server_fails() {
        let failure = |why: &str| Outcome::Failure(why.to_owned());
        let page = Answer { kind: "text/html", ..says(b"hello", None) };
        assert_eq!(asked("", page), failure("no gRPC: the answer is of another type"));
        let busy = Answer { status: 503, ..says(b"", None) };
        assert_eq!(asked("", busy), failure("status 503"));
        assert_eq!(asked("", says(IS_SERVING, None)), failure("no gRPC: the call has no outcome"));
        let garbage = says(b"garbage", Some("0"));
        assert_eq!(asked("", garbage), failure("no gRPC: the answer is no message of a status"));
        let long = says(&[0; 5000], Some("0"));
        assert_eq!(asked("", long), failure("no gRPC: the answer is longer than 1024 bytes"));
    }

    #[test]
    fn it_is_asked_over_tls_too() {
        let mut config = certified(100_000 * DAY);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let spec = GrpcSpec {
            tls: Some(TlsSpec::default()),
            host: Some("www.example.com".to_owned()),
            service: String::new(),
        };
        let (outcome, place, _) =
            outcome_of(CheckKind::Grpc(spec), Some(config), says(IS_SERVING, Some("0")));
        assert_eq!((outcome, place), (Outcome::Success, format!("POST https://www.example.com{METHOD}")));
    }

    #[test]
    fn a_call_that_fails_at_once_has_its_outcome_in_the_head() {
        let told = |code: &'static str| {
            let headers = [("grpc-status", code)].map(|(name, value)| {
                (hyper::header::HeaderName::from_static(name), hyper::header::HeaderValue::from_static(value))
            });
            outcome(&headers.into_iter().collect())
        };
        assert_eq!(told("0"), Some(Ok(())));
        assert_eq!(told("14"), Some(Err("the call ends with UNAVAILABLE".to_owned())));
        assert_eq!(told("99"), Some(Err("the call ends with an unknown code".to_owned())));
        assert!(told("x").is_some_and(|outcome| outcome.is_err()));
        assert_eq!(outcome(&HeaderMap::new()), None);
    }

    #[test]
    fn a_question_is_one_field_behind_its_length() {
        assert_eq!(question("")[..], *b"\0\0\0\0\0");
        assert_eq!(question("a.B")[..], *b"\0\0\0\0\x05\x0a\x03a.B");
        let long = question(&"x".repeat(200));
        assert_eq!(long[..8], *b"\0\0\0\0\xcb\x0a\xc8\x01");
    }

    #[test]
    fn an_answer_has_its_status_among_what_may_come() {
        let said = |body: &[u8]| message(body).and_then(status);
        assert_eq!(said(b"\0\0\0\0\x02\x08\x01"), Some(1));
        assert_eq!(said(b"\0\0\0\0\0"), Some(0), "what is 0 is left out");
        let among = b"\x12\x02hi\x08\x02\x1d1234\x2112345678\x28\xff\x01";
        assert_eq!(status(among), Some(2));
        for broken in [&b"\x01\0\0\0\x02\x08\x01"[..], b"\0\0\0\0\x03\x08\x01", b"\0\0\0\0\x01\x08", b"\0\0"]
        {
            assert_eq!(said(broken), None, "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _any = status(&body);
            let _any = message(&body);
        }

        #[test]
        fn numbers_are_read_as_they_are_written(number: u32) {
            let mut written = Vec::new();
            put_varint(&mut written, number as usize);
            prop_assert_eq!(take_varint(&mut &written[..]), Some(u64::from(number)));
        }
    }
}
