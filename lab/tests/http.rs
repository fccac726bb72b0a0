//! HTTP: metrics and the API on the unix socket and over TCP, who may do what, and that callers disturb nothing.

mod common;

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use common::{Method, all, directed_by, eventually, pins, serve};
use xlvs_lab::{Director, Lab, Layout, NameServer};

const ASK: u16 = 7000;
const HTTP: &str = "127.0.0.1:9110";
/// Sends a request over the unix socket; the status code is the last line.
const LOCAL: &str = "curl -s -S -w '\\n%{http_code}' --unix-socket run/api.sock";

fn serving(
    servers: u8,
    options: &[&str],
    test: impl FnOnce(&Lab, &mut Director, SocketAddr) -> Result<()>,
) -> Result<()> {
    let lab = Lab::lay_out(Layout::TwoNetwork, servers)?;
    let director = Director::prepare(&lab, &xlvs_lab::director::binary()?)?.with_options(options);
    let vip = SocketAddr::new(lab.vip(0).into(), ASK);
    directed_by(director, &lab, |lab, director| test(lab, director, vip))
}

/// What a command line prints: the answer and its status code.
fn ask(director: &Director, line: &str) -> Result<(String, u16)> {
    let reply = director.shell(line)?;
    let (body, code) = reply.out.rsplit_once('\n').with_context(|| format!("{line}: {reply:?}"))?;
    Ok((body.to_owned(), code.parse().with_context(|| format!("{line}: {reply:?}"))?))
}

fn local(director: &Director, words: &str) -> Result<(String, u16)> {
    ask(director, &format!("{LOCAL} {words}"))
}

/// The value of the sample that begins so.
fn metric(director: &Director, sample: &str) -> Result<f64> {
    let (text, code) = local(director, "http://xlvs/metrics")?;
    ensure!(code == 200, "{code}: {text}");
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.with_context(|| format!("there is no {sample} in\n{text}"))?.parse().context("a number")
}

#[test]
fn metrics_count_what_was_balanced() -> Result<()> {
    serving(2, &[], |lab, director, vip| {
        let _names = NameServer::on_all(lab, ASK)?;
        serve(lab, director, ("-t", vip), "rr", &all(lab, Method::Nat))?;
        lab.client().ask_times(vip, 30)?;
        let of_service = format!("{{service=\"tcp/{vip}\"}}");
        let connections = format!("xlvs_service_connections_total{of_service}");
        eventually("30 connections are counted", || Ok(metric(director, &connections)? == 30.0))?;
        let used = format!("xlvs_service_servers{{service=\"tcp/{vip}\",state=\"used\"}}");
        ensure!(metric(director, &used)? == 2.0);
        ensure!(metric(director, "xlvs_packets_forwarded_total")? > 100.0);
        eventually("it sweeps", || Ok(metric(director, "xlvs_sweeps_total")? > 1.0))?;
        let (text, _) = local(director, "'http://xlvs/metrics?per_server=true'")?;
        let first = lab.servers[0].address;
        let sample =
            format!("xlvs_server_connections_total{{service=\"tcp/{vip}\",server=\"{first}:{ASK}\"}} 15");
        ensure!(text.contains(&sample), "{sample} is not in\n{text}");
        let checked = director.shell(&format!(
            "command -v promtool > /dev/null || exit 0; {} | sed '$d' | promtool check metrics",
            LOCAL.to_owned() + " 'http://xlvs/metrics?per_server=true'"
        ))?;
        ensure!(checked.code == Some(0), "{checked:?}");
        Ok(())
    })
}

#[test]
fn root_may_change_a_group_may_read_and_tcp_without_tls_reads_on_the_loopback() -> Result<()> {
    serving(1, &["--http", HTTP, "--http-group", "nogroup"], |_, director, _| {
        let status = "http://xlvs/api/v1/status";
        ensure!(local(director, status)?.1 == 200);
        // Root may, but there is no such thing.
        ensure!(local(director, &format!("-X DELETE {status}"))?.1 == 405);
        director.shell("chmod o+x . run")?;
        let nobody = |groups: &str, words: &str| {
            ask(director, &format!("setpriv --reuid 65534 --regid {groups} --clear-groups {LOCAL} {words}"))
        };
        ensure!(nobody("65534", status)?.1 == 200, "a member of the group may read");
        let (why, code) = nobody("65534", &format!("-X DELETE {status}"))?;
        ensure!(
            code == 403 && why == "{\"error\":\"only root changes anything over this socket\"}",
            "{code}: {why}"
        );
        ensure!(nobody("65533", status)?.1 == 0, "who is not in the group cannot connect");

        let curl = "curl -s -S -w '\\n%{http_code}'";
        ensure!(ask(director, &format!("{curl} http://{HTTP}/metrics"))?.1 == 200);
        let (why, code) = ask(director, &format!("{curl} -X POST http://{HTTP}/metrics"))?;
        ensure!(code == 403 && why.contains("without TLS and tokens"), "{code}: {why}");
        let by_name = format!("{curl} -H 'Host: rebound.example' http://{HTTP}/metrics");
        ensure!(ask(director, &by_name)?.1 == 403);
        ensure!(director.log().contains("for reading only"), "the log tells what TCP is for");
        Ok(())
    })
}

#[test]
fn silent_callers_take_nothing_from_others() -> Result<()> {
    serving(2, &["--http", HTTP], |lab, director, vip| {
        let _names = NameServer::on_all(lab, ASK)?;
        serve(lab, director, ("-t", vip), "rr", &all(lab, Method::Nat))?;
        let at: SocketAddr = HTTP.parse()?;
        let silent = |_| lab.director.run(|| Ok(TcpStream::connect(at)?));
        let held: Vec<TcpStream> = (0..100).map(silent).collect::<Result<_>>()?;
        ensure!(local(director, "http://xlvs/metrics")?.1 == 200, "the unix socket has places of its own");
        ensure!(director.must("-Ln")?.contains("7000"));
        ensure!(lab.client().ask_times(vip, 30)?.len() == 30);
        // A head that never comes is not waited for; then those in the queue have their turn.
        let mut byte = [0];
        for mut stream in held {
            ensure!(stream.read(&mut byte)? == 0, "it was let in and is asked to go");
        }
        ensure!(director.shell(&format!("curl -s -f -o /dev/null http://{HTTP}/metrics"))?.code == Some(0));
        Ok(())
    })
}

#[test]
fn what_others_could_reach_takes_a_certificate_and_tokens() -> Result<()> {
    let lab = Lab::lay_out(Layout::TwoNetwork, 1)?;
    let prepare = || Director::prepare(&lab, &xlvs_lab::director::binary()?);
    let open = prepare()?.with_options(&["--http", "0.0.0.0:9110"]);
    let refused = open.refused(lab.layout().director_interfaces())?;
    ensure!(refused.code == Some(1) && refused.err.contains("can be reached by others"), "{refused:?}");
    ensure!(pins(&open.bpffs())?.is_empty(), "something is still pinned");
    drop(open);

    let file = |name: &str| lab.directory().join(name);
    let written = |path: PathBuf, text: &str| -> Result<String> {
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let pair = rcgen::generate_simple_self_signed(["director.example".to_owned()])?;
    let cert = written(file("cert.pem"), &pair.cert.pem())?;
    let key = written(file("key.pem"), &pair.signing_key.serialize_pem())?;
    let tokens = written(file("tokens"), "read reads-and-no-more\nchange changes-everything\n")?;
    std::fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let options =
        ["--http", "0.0.0.0:9443", "--http-cert", &cert, "--http-key", &key, "--http-tokens", &tokens];
    directed_by(prepare()?.with_options(&options), &lab, |_, director| {
        let curl = "curl -s -S -w '\\n%{http_code}' --cacert cert.pem --connect-to ::127.0.0.1:9443";
        let asked = |words: &str| ask(director, &format!("{curl} {words} https://director.example/metrics"));
        ensure!(asked("")?.1 == 401);
        ensure!(asked("-H 'Authorization: Bearer reads-and-no-mor'")?.1 == 401);
        ensure!(asked("-H 'Authorization: Bearer reads-and-no-more'")?.1 == 200);
        ensure!(asked("-X POST -H 'Authorization: Bearer reads-and-no-more'")?.1 == 403);
        ensure!(asked("-X POST -H 'Authorization: Bearer changes-everything'")?.1 == 405);
        std::fs::write(&tokens, "read reads-anything-else\n")?;
        ensure!(
            asked("-H 'Authorization: Bearer reads-and-no-more'")?.1 == 401,
            "it was taken out of the file"
        );

        let renewed = rcgen::generate_simple_self_signed(["director.example".to_owned()])?;
        std::fs::write(file("key.pem"), renewed.signing_key.serialize_pem())?;
        std::fs::write(file("cert.pem"), renewed.cert.pem())?;
        eventually("the new certificate is shown", || {
            Ok(asked("-H 'Authorization: Bearer reads-anything-else'").is_ok_and(|(_, code)| code == 200))
        })
    })
}
