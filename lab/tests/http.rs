//! HTTP: metrics and the API on the unix socket and over TCP, who may do what, and that callers disturb nothing.

mod common;

use std::fmt::Write as _;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use common::{Method, all, directed_by, ensure_spread, eventually, hold, pins, serve, spread};
use serde_json::Value as Json;
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

/// The questions of the Grafana dashboard as rules of Prometheus.
fn dashboard_as_rules() -> Result<String> {
    let dashboard: Json = serde_json::from_str(include_str!("../../docs/grafana.json"))?;
    let panels = dashboard["panels"].as_array().context("it has panels")?;
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (number, target) in targets.enumerate() {
        let asked = target["expr"].as_str().context("a question")?;
        // What Grafana puts in itself.
        let asked =
            asked.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$service", ".*");
        writeln!(rules, "  - record: dashboard:{number}\n    expr: {}", Json::from(asked))?;
    }
    Ok(rules)
}

#[test]
fn the_dashboard_asks_in_the_language_of_prometheus() -> Result<()> {
    let rules = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("dashboard.yaml");
    std::fs::write(&rules, dashboard_as_rules()?)?;
    let Ok(checked) = Command::new("promtool").args(["check", "rules"]).arg(&rules).output() else {
        eprintln!("promtool (of Debian's package prometheus) is not installed, so that it was not asked");
        return Ok(());
    };
    let said = String::from_utf8_lossy(&checked.stdout);
    ensure!(checked.status.success() && said.contains("rules found"), "{checked:?}");
    Ok(())
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

/// Asks the API for JSON: the answer and its status code.
fn api(director: &Director, method: &str, path: &str, body: &str) -> Result<(String, u16)> {
    let body = if body.is_empty() { String::new() } else { format!("--json '{body}'") };
    local(director, &format!("-g -X {method} {body} 'http://xlvs/api/v1/{path}'"))
}

/// The same, which must succeed.
fn done(director: &Director, method: &str, path: &str, body: &str) -> Result<serde_json::Value> {
    let (told, code) = api(director, method, path, body)?;
    ensure!(matches!(code, 200 | 204), "{method} {path} {body}: {code} {told}");
    Ok(serde_json::from_str(&told).unwrap_or_default())
}

/// The same, which must be refused so.
fn refused(
    director: &Director,
    (method, path, body): (&str, &str, &str),
    code: u16,
    why: &str,
) -> Result<()> {
    let (told, was) = api(director, method, path, body)?;
    let error: serde_json::Value = serde_json::from_str(&told).with_context(|| format!("{path}: {told}"))?;
    let error = error["error"].as_str().unwrap_or_default();
    ensure!(was == code && error.contains(why), "{method} {path} {body}: {was} {error}");
    Ok(())
}

#[test]
fn a_service_that_is_set_up_over_the_api_alone_is_balanced_and_looked_after() -> Result<()> {
    serving(3, &[], |lab, director, vip| {
        let _names = NameServer::on_all(lab, ASK)?;
        let servers: Vec<String> = lab.servers.iter().map(|server| server.address.to_string()).collect();
        let service = format!("services/tcp/{vip}");
        let server = |index: usize| format!("{service}/servers/{}", servers[index]);
        let words = format!("{{\"scheduler\":\"rr\",\"method\":\"nat\",\"servers\":[\"{}\"]}}", servers[0]);
        let planned = done(director, "PUT", &format!("{service}?plan=true"), &words)?;
        ensure!(planned["made"] == false && planned["changes"].as_array().is_some_and(|all| all.len() == 2));
        refused(director, ("GET", &service, ""), 404, "there is no service")?;
        done(director, "PUT", &service, &words)?;
        for index in [1, 2] {
            done(director, "PUT", &server(index), "{\"method\":\"nat\"}")?;
        }
        ensure_spread(
            &spread(&lab.client().ask_times(vip, 30)?),
            &[("rs1", 10), ("rs2", 10), ("rs3", 10)],
            0,
        )?;

        // A server of weight 3, another that is drained, and one with a check that fails.
        done(director, "PUT", &service, "{\"scheduler\":\"wrr\"}")?;
        done(director, "PUT", &server(0), "{\"method\":\"nat\",\"weight\":3}")?;
        ensure_spread(
            &spread(&lab.client().ask_times(vip, 50)?),
            &[("rs1", 30), ("rs2", 10), ("rs3", 10)],
            1,
        )?;
        done(director, "PUT", &format!("{}/operator", server(1)), "{\"word\":\"drained\"}")?;
        let check = "{\"method\":\"nat\",\"check\":{\"type\":\"tcp\",\"port\":9,\"interval\":\"200ms\",\"timeout\":\"100ms\",\"fall\":1}}";
        done(director, "PUT", &server(2), check)?;
        eventually("only the first serves", || {
            let shown = done(director, "GET", &service, "")?;
            let all = shown["servers"].as_array().cloned().unwrap_or_default();
            let of = |name: &str| all.iter().find(|one| one["name"] == format!("{name}:{ASK}")).cloned();
            let (second, third) =
                (of(&servers[1]).context("the second")?, of(&servers[2]).context("the third")?);
            Ok(second["weight_in_force"] == 0
                && second["operator"] == "drained"
                && third["weight_in_force"].is_null()
                && third["health"] == "down")
        })?;
        ensure_spread(&spread(&lab.client().ask_times(vip, 10)?), &[("rs1", 10)], 0)?;

        // What the API made, the other commands see, and the history tells.
        ensure!(director.shell("xlvs servers")?.out.contains("a check failed: connection refused"));
        let saved = local(director, "http://xlvs/api/v1/configuration")?.0;
        ensure!(saved == director.shell("xlvs save")?.out, "{saved}");
        let revisions = done(director, "GET", "revisions", "")?;
        let by = revisions[0]["by"].as_str().unwrap_or_default();
        ensure!(by == format!("API, PUT tcp/{vip}"), "{revisions}");
        done(director, "POST", "revisions/1/rollback", "")?;
        ensure!(director.must("-Ln")?.contains("rr"), "the first revision has one server");
        let shown = done(director, "GET", &service, "")?;
        ensure!(shown["servers"].as_array().is_some_and(|all| all.len() == 1), "{shown}");
        std::fs::write(lab.directory().join("saved.toml"), &saved)?;
        let put = "-X PUT --data-binary @saved.toml http://xlvs/api/v1/configuration";
        ensure!(local(director, put)?.1 == 200);
        ensure!(local(director, "http://xlvs/api/v1/configuration")?.0 == saved);
        done(director, "DELETE", &service, "")?;
        ensure!(!director.must("-Ln")?.contains("TCP"));
        Ok(())
    })
}

#[test]
fn the_api_does_what_the_commands_do_and_says_no_in_their_words() -> Result<()> {
    serving(1, &[], |lab, director, vip| {
        let _names = NameServer::on_all(lab, ASK)?;
        serve(lab, director, ("-t", vip), "rr", &all(lab, Method::Nat))?;
        let service = format!("services/tcp/{vip}");
        let server = format!("{service}/servers/{}", lab.servers[0].address);
        let _held = hold(lab, vip, 3)?;
        let shown = done(director, "GET", &format!("connections?vip={vip}&limit=2"), "")?;
        ensure!(shown["more"] == true && shown["connections"][0]["state"] == "ESTABLISHED", "{shown}");
        let told = done(director, "GET", &format!("explain?from=192.0.2.9:4000&to={vip}"), "")?;
        ensure!(told["fate"] == "forward" && told["service"] == format!("tcp/{vip}"), "{told}");
        ensure!(done(director, "POST", "check", "")? == serde_json::json!([]));
        done(director, "PUT", "timeouts", "{\"udp\":30}")?;
        ensure!(director.must("-L --timeout")?.contains("900 120 30"));
        done(director, "PUT", "tunables/drop_entry", "{\"value\":1}")?;
        ensure!(director.shell("xlvs tune drop_entry")?.out == "drop_entry = 1\n");
        let mark = "{\"mark\":7,\"to\":\"192.0.2.0/24\",\"port\":\"80-89\"}";
        done(director, "POST", "marks", mark)?;
        ensure!(director.shell("xlvs mark list")?.out.starts_with("7 --to 192.0.2.0/24"));
        done(director, "DELETE", "marks?mark=7&to=192.0.2.0/24&port=80-89", "")?;
        ensure!(done(director, "GET", "marks", "")? == serde_json::json!([]));
        done(director, "PUT", &format!("{server}/agent"), "{\"port\":8282}")?;
        ensure!(director.shell("xlvs save")?.out.contains("8282"));
        done(director, "DELETE", &format!("{server}/agent"), "")?;
        eventually("it is counted", || {
            Ok(done(director, "GET", &service, "")?["counters"]["connections"].as_u64() >= Some(3))
        })?;
        done(director, "POST", &format!("{service}/zero"), "")?;
        eventually("it counts anew", || {
            Ok(done(director, "GET", &service, "")?["counters"]["connections"] == 0)
        })?;

        let rules = local(director, "http://xlvs/api/v1/rules")?.0;
        ensure!(
            rules == director.shell("xlvs save --rules")?.out && rules.contains(&format!("-t {vip}")),
            "{rules}"
        );
        let last = done(director, "GET", "events", "")?["last"].as_u64().context("a number")?;
        let heavier = rules.replace("-w 1", "-w 5");
        let told = done(director, "PUT", "rules", &heavier)?;
        ensure!(told["made"] == true && director.must("-Ln")?.contains(" 5 "), "{told}");
        let told = done(director, "GET", &format!("events?after={last}&wait=60"), "")?;
        let heavier = |event: &serde_json::Value| event["event"] == "weight-changed" && event["to"] == 5;
        ensure!(told["events"].as_array().is_some_and(|events| events.iter().any(heavier)), "{told}");
        let told = done(director, "GET", &format!("events?after={}", told["last"]), "")?;
        ensure!(told["events"] == serde_json::json!([]), "{told}");

        let before = director.shell("xlvs save")?.out;
        for (request, code, why) in [
            (("PUT", "rules", "-A -t 10.0.0.9:80 -s nothing"), 422, "line 1"),
            (("PUT", "rules", "-E -t 10.0.0.9:80 -s rr"), 422, "line 1"),
            (
                ("PUT", &*service, "{\"scheduler\":\"rrr\"}"),
                422,
                "there is no scheduler \"rrr\"; do you mean \"rr\"?",
            ),
            (("PUT", &*service, "{\"method\":\"nat\"}"), 422, "`method` is said of servers"),
            (("PUT", &*service, "{"), 400, "the body is not as it should be"),
            (("PUT", "services/tcp/10.0.0.1", "{}"), 422, "a port is missing"),
            (("PUT", "services/ftp/10.0.0.1:21", "{}"), 404, "there is no kind ftp"),
            (("PUT", &*server, "{\"weight\":-1}"), 422, "`weight` is a number from 0"),
            (("DELETE", "services/udp/10.0.0.9:53", ""), 404, "there is no service udp/10.0.0.9:53"),
            (("PUT", &format!("{server}/operator"), "{\"word\":\"off\"}"), 400, "unknown variant `off`"),
            (("PUT", &format!("{server}/agent"), "{\"prot\":1}"), 422, "an agent has no key `prot`"),
            (("PUT", "tunables/drop_entri", "{\"value\":1}"), 404, "do you mean drop_entry?"),
            (("PUT", "tunables/drop_entry", "{\"value\":9}"), 422, "drop_entry takes 0 to 3, not 9"),
            (("PUT", "timeouts", "{\"udp\":0}"), 422, "a timeout is 1 to"),
            (("POST", "marks", "{\"mark\":0}"), 422, "0 is no mark"),
            (("POST", "revisions/77/rollback", ""), 422, "there is no revision 77"),
            (("POST", "configuration/reload", ""), 422, "no file rules this director"),
            (("PUT", "configuration", "[[service]]"), 422, "xlvs.toml:1:1: a service says where it is"),
            (("PUT", "configuration", ""), 400, "the body is empty; send the file"),
            (("GET", "explain?from=1&to=2", ""), 400, "from"),
            (("GET", "nothing", ""), 404, "/openapi.json says what there is"),
            (("PATCH", &*service, ""), 405, "/openapi.json says how"),
        ] {
            refused(director, request, code, why)?;
        }
        ensure!(director.shell("xlvs save")?.out == before, "what is refused changes nothing");
        // Too long to be read at all.
        let flood = "head -c 40000000 /dev/zero | curl -s -o /dev/null -w '\\n%{http_code}' --unix-socket run/api.sock -X PUT \
                     --data-binary @- http://xlvs/api/v1/configuration";
        ensure!(ask(director, flood)?.1 == 413);
        let described = local(director, "http://xlvs/openapi.json")?.0;
        ensure!(described.contains("\"/api/v1/services/{kind}/{at}/servers/{server}\""));
        Ok(())
    })
}
