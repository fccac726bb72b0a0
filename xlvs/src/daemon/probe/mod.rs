//! One probe of a server: sockets for what `xlvs-health` decides about. Bounded in memory; who waits bounds the time.

mod dns;
mod file;
mod grpc;
mod http;
mod http2;
mod ping;
mod script;
mod smtp;
mod tls;
mod udp;
mod whom;

use regex_lite::Regex;
use xlvs_health::Outcome;
use xlvs_model::watch::{CheckKind, CheckSpec};

pub use self::whom::Whom;

/// Makes the probe that a check asks for.
pub async fn probe(spec: &CheckSpec, whom: &Whom) -> Outcome {
    let outcome = match &spec.kind {
        CheckKind::Tcp => whom.connect().await.map(|_| None),
        CheckKind::Http(http) => http::get(http, whom).await,
        CheckKind::Grpc(grpc) => grpc::ask(grpc, whom).await,
        // A refusal comes soon, or is not waited for.
        CheckKind::Udp(udp) => udp::ask(udp, whom, spec.timing.timeout / 2).await.map(|()| None),
        CheckKind::Dns(dns) => dns::ask(dns, whom).await.map(|()| None),
        CheckKind::Smtp(smtp) => smtp::greet(smtp, whom).await.map(|()| None),
        CheckKind::Ping => ping::ask(whom.server.ip()).await.map(|()| None),
        CheckKind::File(path) => file::look(path).await.map(|()| None),
        CheckKind::Script(command) => script::run(command, whom.server).await.map(|()| None),
    };
    match outcome {
        Ok(None) => Outcome::Success,
        Ok(Some(warning)) => Outcome::Warning(warning),
        Err(Trouble::Server(why)) => Outcome::Failure(why),
        Err(Trouble::Ours(why)) => Outcome::NotMade(why),
    }
}

/// Why a probe did not succeed, in a few words.
#[derive(Debug)]
pub enum Trouble {
    /// The server is not in order.
    Server(String),
    /// The director has not what it takes to ask.
    Ours(String),
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self::Server(why)
    }
}

impl Trouble {
    /// What the system says when something is asked of a server.
    pub fn of(why: &std::io::Error) -> Self {
        let words = in_words(why);
        if is_ours(why) { Self::Ours(words) } else { Self::Server(words) }
    }
}

/// Looks in what a server said for what a regular expression wants there.
fn find(pattern: &str, what: &str, said: &[u8]) -> Result<(), String> {
    let regex = Regex::new(pattern).map_err(|why| format!("{pattern} is no regular expression: {why}"))?;
    if regex.is_match(&String::from_utf8_lossy(said)) {
        return Ok(());
    }
    Err(format!("{what} has nothing that matches {pattern}"))
}

/// Files, ports or memory have run out here. All servers at once must not be taken for failed.
fn is_ours(why: &std::io::Error) -> bool {
    use nix::errno::Errno;
    let own = [Errno::EMFILE, Errno::ENFILE, Errno::EADDRNOTAVAIL, Errno::ENOMEM, Errno::ENOBUFS];
    why.raw_os_error().is_some_and(|number| own.contains(&Errno::from_raw(number)))
}

/// An error without the number that the system has for it.
fn in_words(why: &std::io::Error) -> String {
    let text = why.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::time::Duration;

    use xlvs_model::watch::{DnsSpec, HttpSpec, HttpVersion, SmtpSpec, Timing, TlsSpec, UdpSpec, Via};

    use super::*;

    const GET: HttpSpec = HttpSpec {
        tls: None,
        version: HttpVersion::One,
        path: String::new(),
        host: None,
        status: Vec::new(),
        body: None,
        digest: None,
    };

    pub(super) fn check(kind: CheckKind, port: u16) -> CheckSpec {
        CheckSpec { kind, address: None, port, via: Via::Server, timing: Timing::default() }
    }

    fn somewhere() -> Whom {
        SocketAddr::from(([10, 0, 0, 1], 80)).into()
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
        let outcome = runtime.block_on(probe(&check(kind, target.port()), &target.into()));
        (outcome, server.join().expect("the server ends"))
    }

    pub(super) fn fails(kind: CheckKind, answer: &'static [u8]) -> String {
        match outcome(kind, answer).0 {
            Outcome::Failure(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_connection_is_accepted_or_the_reason_is_told() {
        assert_eq!(outcome(CheckKind::Tcp, b"").0, Outcome::Success);
        let target =
            TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port that is free now");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let refused = runtime.block_on(probe(&check(CheckKind::Tcp, target.port()), &target.into()));
        assert_eq!(refused, Outcome::Failure("connection refused".to_owned()));
    }

    fn outcome_of_script(line: &str, patience: Duration) -> Option<Outcome> {
        let command = ["/bin/sh", "-c", line].map(str::to_owned).to_vec();
        let target: SocketAddr = "10.0.0.1:80".parse().expect("an address");
        let check = check(CheckKind::Script(command), 80);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { tokio::time::timeout(patience, probe(&check, &target.into())).await.ok() })
    }

    #[test]
    fn a_script_says_by_its_exit_code_how_the_server_is() {
        let long = Duration::from_secs(30);
        let about = "test $XLVS_ADDRESS = 10.0.0.1 && test $XLVS_PORT = 80";
        assert_eq!(outcome_of_script(about, long), Some(Outcome::Success));
        assert_eq!(outcome_of_script("exit 3", long), Some(Outcome::Failure("exit status: 3".to_owned())));
        let nothing = check(CheckKind::Script(vec!["/nonexistent".to_owned()]), 80);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let outcome = runtime.block_on(probe(&nothing, &somewhere()));
        assert!(matches!(outcome, Outcome::NotMade(why) if why.contains("/nonexistent")));
    }

    #[test]
    fn a_script_that_hangs_is_ended_with_all_that_it_started() {
        let file = std::env::temp_dir().join(format!("xlvs-script-{}", std::process::id()));
        let line = format!("sleep 1000 & echo $! > {}; wait", file.display());
        assert_eq!(outcome_of_script(&line, Duration::from_millis(500)), None);
        let child = std::fs::read_to_string(&file).expect("the script ran");
        let _gone = std::fs::remove_file(&file);
        let stat = format!("/proc/{}/stat", child.trim());
        // Whoever takes over orphans may leave it a zombie for a while.
        let is_gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        assert!((0..100).any(|_| is_gone() || {
            std::thread::sleep(Duration::from_millis(20));
            false
        }));
    }

    /// The outcome of a check of a server that answers a datagram with these bytes, if with any.
    fn outcome_of_datagram(kind: CheckKind, answer: Option<&'static [u8]>) -> Outcome {
        let server = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        server.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        let target = server.local_addr().expect("its address");
        let server = std::thread::spawn(move || {
            let mut question = [0; 512];
            let (_, from) = server.recv_from(&mut question).expect("a question");
            let answered = answer.map(|answer| server.send_to(answer, from));
            (server, answered)
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut check = check(kind, target.port());
        check.timing.timeout = Duration::from_millis(200);
        let outcome = runtime.block_on(probe(&check, &target.into()));
        let (_open_until_now, _answered) = server.join().expect("the server ends");
        outcome
    }

    #[test]
    fn a_datagram_is_refused_or_answered_or_simply_taken() {
        let udp = |answer: Option<&str>| {
            CheckKind::Udp(UdpSpec { send: "hi".to_owned(), answer: answer.map(str::to_owned) })
        };
        assert_eq!(outcome_of_datagram(udp(None), None), Outcome::Success);
        assert_eq!(outcome_of_datagram(udp(Some("^pong$")), Some(b"pong")), Outcome::Success);
        let other = Outcome::Failure("the answer has nothing that matches ^pong$".to_owned());
        assert_eq!(outcome_of_datagram(udp(Some("^pong$")), Some(b"pang")), other);
        let free = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|s| s.local_addr()).expect("a port");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let refused = runtime.block_on(probe(&check(udp(None), free.port()), &free.into()));
        assert_eq!(refused, Outcome::Failure("connection refused".to_owned()));
    }

    #[test]
    fn a_file_holds_nothing_but_0() {
        let path = std::env::temp_dir().join(format!("xlvs-file-{}", std::process::id()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let said = |text: Option<&str>| {
            match text {
                Some(text) => std::fs::write(&path, text).expect("write it"),
                None => drop(std::fs::remove_file(&path)),
            }
            let kind = CheckKind::File(path.to_string_lossy().into_owned());
            runtime.block_on(probe(&check(kind, 80), &somewhere()))
        };
        for fine in ["0", " 0\n", ""] {
            assert_eq!(said(Some(fine)), Outcome::Success, "{fine:?}");
        }
        assert_eq!(said(Some("3\n")), Outcome::Failure(format!("{} says 3", path.display())));
        assert!(matches!(said(Some("down")), Outcome::NotMade(_)));
        assert_eq!(said(None), Outcome::Success);
    }

    #[test]
    fn what_runs_out_here_is_no_fault_of_the_servers() {
        let error = |number| std::io::Error::from_raw_os_error(number);
        assert!(is_ours(&error(nix::libc::EMFILE)) && is_ours(&error(nix::libc::EADDRNOTAVAIL)));
        assert!(!is_ours(&error(nix::libc::ECONNREFUSED)) && !is_ours(&error(nix::libc::EHOSTUNREACH)));
    }

    #[test]
    fn a_request_is_answered_as_it_should_be() {
        let (outcome, request) = outcome(http(None, None), b"HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(outcome, Outcome::Success);
        assert!(request.starts_with("GET /health HTTP/1.1\r\n"), "{request}");
        assert!(request.to_ascii_lowercase().contains("\r\nhost: 127.0.0.1:"), "{request}");
    }

    #[test]
    fn a_body_has_the_digest_that_is_wanted_or_not() {
        // As `printf ok | sha256sum` says.
        const OK: &str = "2689367b205c16ce32ed4200942b8b8b1e262dfc70d9bc9fbc77c49699a4f1df";
        let digested = |digest: &str| {
            let CheckKind::Http(http) = http(None, None) else { unreachable!() };
            CheckKind::Http(HttpSpec { digest: Some(digest.to_owned()), ..http })
        };
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(outcome(digested(OK), answer).0, Outcome::Success);
        assert_eq!(fails(digested(&"0".repeat(64)), answer), format!("the body's digest is {OK}"));
        let long: &'static [u8] = Box::leak(
            [&b"HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n"[..], &[b'x'; 65_537]].concat().into(),
        );
        let why = fails(digested(OK), long);
        assert_eq!(why, "the body is longer than 65536 bytes: of so many a digest is made");
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

    /// The outcome of a check of a mail server that says all this at once, and what it hears.
    fn outcome_of_mail(answers: &'static [u8]) -> (Outcome, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = listener.local_addr().expect("its address");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a probe");
            let _hung_up = stream.write_all(answers);
            let _no_more = stream.shutdown(std::net::Shutdown::Write);
            let mut heard = Vec::new();
            let _reset = stream.read_to_end(&mut heard);
            String::from_utf8_lossy(&heard).into_owned()
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let kind = CheckKind::Smtp(SmtpSpec { helo: Some("lb.example.com".to_owned()) });
        let outcome = runtime.block_on(probe(&check(kind, target.port()), &target.into()));
        drop(runtime);
        (outcome, server.join().expect("the server ends"))
    }

    #[test]
    fn a_mail_server_greets_and_is_greeted() {
        let all = b"220 mx ready\r\n250-mx\r\n250-SIZE 1000\r\n250 HELP\r\n221 bye\r\n";
        let (outcome, heard) = outcome_of_mail(all);
        assert_eq!((outcome, &heard[..]), (Outcome::Success, "EHLO lb.example.com\r\nQUIT\r\n"));
        let failure = |why: &str| Outcome::Failure(why.to_owned());
        let busy = outcome_of_mail(b"220 mx\r\n421 too busy\r\n").0;
        assert_eq!(busy, failure("the answer to EHLO is \"421 too busy\", not 250"));
    }

    #[test]
    fn who_is_no_mail_server_fails_and_costs_little() {
        let failure = |why: &str| Outcome::Failure(why.to_owned());
        assert_eq!(outcome_of_mail(b"220 mx").0, failure("no SMTP: the connection ends within an answer"));
        let garbage = outcome_of_mail(b"HTTP/1.1 400 \x1b\r\n").0;
        assert_eq!(garbage, failure("the greeting is \"HTTP/1.1 400 ?\", not 220"));
        let endless: &[u8] = Vec::leak(b"220-x\r\n".repeat(100_000));
        assert_eq!(outcome_of_mail(endless).0, failure("no SMTP: the answers are longer than 16384 bytes"));
        let one_line: &[u8] = Vec::leak(vec![b'2'; 1_000_000]);
        assert_eq!(outcome_of_mail(one_line).0, failure("no SMTP: the answers are longer than 16384 bytes"));
    }

    /// Gives a probe up while its server goes on byte by byte; returns when the server has noticed.
    fn give_up_on_a_slow_server(kind: CheckKind, beginning: &'static [u8]) -> Option<Outcome> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = listener.local_addr().expect("its address");
        let client_speaks_first = !matches!(kind, CheckKind::Smtp(_));
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a probe");
            if client_speaks_first {
                let _request = stream.read(&mut [0; 2000]).expect("a request");
            }
            let _hung_up = stream.write_all(beginning);
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let check = check(kind, target.port());
        let patience = Duration::from_millis(300);
        let outcome = runtime
            .block_on(async { tokio::time::timeout(patience, probe(&check, &target.into())).await.ok() });
        // With the runtime still there: it is the probe that lets go of its connection.
        server.join().expect("the server ends");
        outcome
    }

    #[test]
    fn who_answers_byte_by_byte_keeps_no_connection() {
        let header = b"HTTP/1.1 200 OK\r\nX: ";
        assert_eq!(give_up_on_a_slow_server(http(None, None), header), None);
        let body = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n";
        assert_eq!(give_up_on_a_slow_server(http(Some("never"), None), body), None);
        // The beginning of a TLS record of 16 KiB: a handshake message.
        let tls = Some(TlsSpec::default());
        assert_eq!(give_up_on_a_slow_server(http(None, tls), b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc"), None);
        assert_eq!(give_up_on_a_slow_server(CheckKind::Smtp(SmtpSpec::default()), b"220-"), None);
    }

    /// The outcome of a check of a name server that answers with these bytes after the id, and the question.
    fn outcome_of_question(name: &str, answers: &'static [&'static [u8]]) -> (Outcome, Vec<u8>) {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let target = socket.local_addr().expect("its address");
        let server = std::thread::spawn(move || {
            let mut question = [0; 600];
            let (length, client) = socket.recv_from(&mut question).expect("a question");
            for answer in answers {
                socket.send_to(&[&question[..2], answer].concat(), client).expect("it is sent");
            }
            question[..length].to_vec()
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let kind = CheckKind::Dns(DnsSpec { name: name.to_owned(), ..DnsSpec::default() });
        let outcome = runtime.block_on(probe(&check(kind, target.port()), &target.into()));
        (outcome, server.join().expect("the server ends"))
    }

    #[test]
    fn a_name_server_answers_without_an_error() {
        const NO_ERROR: &[u8] = b"\x81\x80\0\x01\0\0\0\0\0\0";
        const REFUSED: &[u8] = b"\x81\x85\0\x01\0\0\0\0\0\0";
        const QUESTION: &[u8] = b"\x01\x00\0\x01\0\0\0\0\0\0";
        let (outcome, question) = outcome_of_question("a.example", &[NO_ERROR]);
        assert_eq!(outcome, Outcome::Success);
        assert_eq!(&question[2..], [QUESTION, b"\x01a\x07example\0\0\x06\0\x01"].concat());
        let (outcome, question) = outcome_of_question(".", &[REFUSED]);
        assert_eq!(outcome, Outcome::Failure("it says REFUSED".to_owned()));
        assert_eq!(&question[2..], [QUESTION, b"\0\0\x06\0\x01"].concat());
        // What is no answer is passed over.
        let (outcome, _) = outcome_of_question(".", &[b"", QUESTION, b"garbage garbage", NO_ERROR]);
        assert_eq!(outcome, Outcome::Success);
    }

    #[test]
    fn nobody_listens_where_a_name_server_should() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let target = socket.expect("a port that is free now");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let kind = CheckKind::Dns(DnsSpec::default());
        let outcome = runtime.block_on(probe(&check(kind, target.port()), &target.into()));
        assert_eq!(outcome, Outcome::Failure("connection refused".to_owned()));
    }

    pub(super) const DAY: Duration = Duration::from_secs(86_400);

    /// A TLS server's part, with a certificate of its own making that ends at this time after 1970.
    pub(super) fn certified(end: Duration) -> tokio_rustls::rustls::ServerConfig {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut wanted = rcgen::CertificateParams::new(["www.example.com".to_owned()]).expect("a name");
        wanted.not_after = rcgen::date_time_ymd(1970, 1, 1) + end;
        let made = wanted.self_signed(&key).expect("a certificate");
        let provider = std::sync::Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions();
        let config = config.expect("versions").with_no_client_auth();
        let key = key.serialize_der().try_into().expect("a key");
        config.with_single_cert(vec![made.der().clone()], key).expect("a certificate")
    }

    /// The outcome of a check of a TLS server whose certificate ends so long after now, and the name that it was told.
    fn outcome_over_tls(tls: TlsSpec, left: Duration) -> (Outcome, Option<String>) {
        use tokio_rustls::rustls::{ServerConnection, StreamOwned};
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is later");
        let config = certified(now + left);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = listener.local_addr().expect("its address");
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a probe");
            let connection = ServerConnection::new(config.into()).expect("a connection");
            let mut stream = StreamOwned::new(connection, stream);
            let _request = stream.read(&mut [0; 2000]);
            let _hung_up = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            stream.conn.server_name().map(str::to_owned)
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let outcome =
            runtime.block_on(probe(&check(http(Some("ok"), Some(tls)), target.port()), &target.into()));
        (outcome, server.join().expect("the server ends"))
    }

    #[test]
    fn tls_is_spoken_and_certificates_are_verified_where_that_is_asked_for() {
        let long = 365 * DAY;
        assert_eq!(outcome_over_tls(TlsSpec::default(), long), (Outcome::Success, None));
        let sni = Some("www.example.com".to_owned());
        let told = outcome_over_tls(TlsSpec { sni: sni.clone(), ..TlsSpec::default() }, long);
        assert_eq!(told, (Outcome::Success, sni.clone()));
        let (verified, _) = outcome_over_tls(TlsSpec { sni, verify: true, ..TlsSpec::default() }, long);
        // Without any root on this machine that is what is told.
        let Outcome::Failure(why) = verified else { panic!("nobody vouches for it: {verified:?}") };
        assert!(why.contains("certificate"), "{why}");
    }

    #[test]
    fn a_certificate_that_ends_soon_is_warned_of() {
        let warned = |ahead: Duration, left: Duration| {
            outcome_over_tls(TlsSpec { warn_expiry: ahead, ..TlsSpec::default() }, left).0
        };
        let soon = warned(14 * DAY, 10 * DAY);
        assert!(
            matches!(&soon, Outcome::Warning(of) if of.starts_with("its certificate expires on 20")),
            "{soon:?}"
        );
        assert_eq!(warned(5 * DAY, 10 * DAY), Outcome::Success);
        assert_eq!(warned(Duration::ZERO, DAY), Outcome::Success);
    }
}
