//! What happens, as `xlvs watch` tells it.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::{Method, all, eventually, ruled_by, serve, with_director, within};
use serde_json::{Value, json};
use xlvs_lab::{Director, HttpServer, Lab, Layout, NameServer};

const ASK: u16 = 7000;
const HTTP: u16 = 80;

/// All that has happened until now.
fn told(director: &Director) -> Result<Vec<Value>> {
    let kept = run(director, "xlvs watch --json --no-follow")?;
    kept.lines().map(|line| serde_json::from_str(line).context("a line of JSON")).collect()
}

fn run(director: &Director, line: &str) -> Result<String> {
    let reply = director.shell(line)?;
    ensure!(reply.code == Some(0), "{line}: {reply:?}");
    Ok(reply.out)
}

fn has(told: &[Value], event: &str, more: &[(&str, Value)]) -> bool {
    told.iter().any(|line| line["event"] == event && more.iter().all(|(name, value)| line[*name] == *value))
}

#[test]
fn a_server_that_fails_and_comes_back_is_told_with_the_reason() -> Result<()> {
    let lab = Lab::lay_out(Layout::TwoNetwork, 2)?;
    let file = lab.directory().join("xlvs.toml");
    let (vip, [first, second]) = (lab.vip(0), [lab.servers[0].address, lab.servers[1].address]);
    let text = format!(
        "interfaces = [\"l0\", \"l1\"]\n[[service]]\ntcp = \"{vip}:{ASK}\"\nmethod = \"nat\"\n\
         servers = [\"{first}\", \"{second}\"]\n\
         check = {{ type = \"http\", port = {HTTP}, interval = \"300ms\", timeout = \"200ms\", rise = 2, fall = 2 }}\n"
    );
    std::fs::write(&file, text).context("write the file")?;
    ruled_by(&lab, &file, |lab, director| {
        let mut files = HttpServer::on_all(lab, HTTP)?;
        eventually("both are up", || Ok(run(director, "xlvs servers")?.matches(", up").count() == 2))?;
        drop(files.remove(1));
        let reason = json!("a check failed: connection refused");
        let seconds = |event: &str, more: &[(&str, Value)]| {
            let server = json!({ "addr": second.to_string(), "port": ASK });
            let more: Vec<_> = more.iter().cloned().chain([("server", server)]).collect();
            Ok(has(&told(director)?, event, &more))
        };
        eventually("it is told down", || seconds("server-down", &[("reason", reason.clone())]))?;
        eventually("it is told gone", || seconds("server-removed", &[("by", json!("check"))]))?;
        files.push(HttpServer::start(&lab.servers[1].netns, "rs2", HTTP)?);
        eventually("it is told up", || seconds("server-up", &[]))?;
        eventually("it is told back", || {
            seconds("server-added", &[("by", json!("check")), ("weight", json!(1))])
        })?;
        run(director, &format!("xlvs server drain {vip}:{ASK} {second}"))?;
        let drained = [("from", json!(1)), ("to", json!(0)), ("by", json!("operator"))];
        eventually("the operator is told of", || seconds("weight-changed", &drained))?;
        let told = told(director)?;
        ensure!(has(&told, "revision-applied", &[("revision", json!(1))]), "{told:?}");
        ensure!(has(&told, "service-added", &[("by", json!("configuration"))]), "{told:?}");
        for interface in ["l0", "l1"] {
            ensure!(has(&told, "interface-attached", &[("interface", json!(interface))]), "{told:?}");
        }
        Ok(())
    })
}

#[test]
fn a_server_is_told_drained_when_its_last_connection_has_ended() -> Result<()> {
    with_director(Layout::TwoNetwork, 1, |lab, director| {
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        let _names = NameServer::on_all(lab, ASK)?;
        // Long enough for a look at the connection while it is there.
        director.must("--set 0 0 12")?;
        serve(lab, director, ("-u", vip), "rr", &all(lab, Method::Nat))?;
        lab.client().ask_by_datagram(vip)?;
        director.must(&format!("-e -u {vip} -r {}:{ASK} -m -w 0", lab.servers[0].address))?;
        let is_told = |event: &str| Ok(has(&told(director)?, event, &[]));
        eventually("the weight is told", || is_told("weight-changed"))?;
        within(Duration::from_secs(60), "the end of the last connection", || is_told("drained"))?;
        let told = told(director)?;
        let at = |event: &str| told.iter().position(|line| line["event"] == event);
        ensure!(at("weight-changed") < at("drained"), "{told:?}");
        director.must("-C")?;
        eventually("the service is told gone", || is_told("service-removed"))?;
        let shown = run(director, "xlvs watch --last 100 --count 1")?;
        ensure!(shown.contains(" has the director, "), "{shown}");
        Ok(())
    })
}

#[test]
fn who_does_not_read_is_told_what_it_lost_and_delays_nobody() -> Result<()> {
    with_director(Layout::TwoNetwork, 1, |lab, director| {
        let socket = director.run_dir().join("control.sock");
        let mut slow = UnixStream::connect(&socket)?;
        slow.write_all(b"{\"watch\":{\"last\":0,\"follow\":true}}\n")?;
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        serve(lab, director, ("-t", vip), "rr", &all(lab, Method::Nat))?;
        let mut answers = BufReader::new(slow.try_clone()?).lines();
        let first: Value = serde_json::from_str(&answers.next().context("an answer")??)?;
        ensure!(first["event"]["event"] == "service-added", "it watches: {first}");
        // From here on it does not read. More than the ring holds, and than the socket takes.
        let server = format!("-e -t {vip} -r {}:{ASK} -m -w", lab.servers[0].address);
        let rules: String = (0..40_000).map(|n| format!("{server} {}\n", 2 + n % 2)).collect();
        std::fs::write(lab.directory().join("rules"), rules)?;
        run(director, "ipvsadm -R < rules")?;
        ensure!(director.must("-Ln")?.contains(&vip.to_string()), "others are answered");
        let (mut seen, mut missed, mut expected) = (0, 0, None::<u64>);
        for answer in answers {
            let answer: Value = serde_json::from_str(&answer?)?;
            if let Some(count) = answer["missed"].as_u64() {
                missed += count;
                expected = expected.map(|number| number + count);
                continue;
            }
            let number = answer["event"]["number"].as_u64().context("an event")?;
            ensure!(expected.is_none_or(|expected| expected == number), "{number}, not {expected:?}");
            expected = Some(number + 1);
            seen += 1;
            // The service was read; its server and the changes of the weight were not.
            if seen + missed == 40_001 {
                break;
            }
        }
        ensure!(seen + missed == 40_001, "{seen} seen, {missed} missed");
        ensure!(missed > 0, "all of it was kept somewhere");
        Ok(())
    })
}
