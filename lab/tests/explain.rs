//! `xlvs explain` tells what then happens, and changes nothing; `xlvs trace` tells what happens, and changes nothing either.

mod common;

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use common::{Method, all, directed_by, eventually, serve, with_director};
use serde_json::{Value, json};
use xlvs_lab::client::ask_again;
use xlvs_lab::{Director, Lab, Layout, NameServer};

const ASK: u16 = 7000;

#[test]
fn a_new_connection_goes_where_it_was_told_and_asking_changes_nothing() -> Result<()> {
    with_director(Layout::TwoNetwork, 3, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        for (number, (scheduler, method)) in
            (0..).zip([("rr", Method::Nat), ("wlc", Method::Dr), ("sh", Method::Tun)])
        {
            let vip = SocketAddr::new(lab.vip(number).into(), ASK);
            serve(lab, director, ("-t", vip), scheduler, &all(lab, method))?;
            for port in 40_000..40_004 {
                connects_as_told(lab, director, vip, port, scheduler)?;
            }
        }
        Ok(())
    })
}

/// Explains a connection, makes it, and explains a packet of it.
fn connects_as_told(
    lab: &Lab,
    director: &Director,
    vip: SocketAddr,
    port: u16,
    scheduler: &str,
) -> Result<()> {
    let from = SocketAddr::new(lab.layout().client(1).into(), port);
    let told = explain_unnoticed(director, &vip.to_string(), from)?;
    ensure!(told["fate"] == "forward" && told["connection"].is_null(), "{told:#}");
    let scheduling = &told["scheduling"];
    ensure!(scheduling["scheduler"] == scheduler, "{told:#}");
    ensure!(scheduling["candidates"].as_array().is_some_and(|all| all.len() == 3), "{told:#}");
    ensure!(scheduling["chosen"] == told["server"] && told["leaves"]["state"] == "SYN_RECV", "{told:#}");
    let mut stream = lab.client().connect(from, vip)?;
    let who = ask_again(&mut stream)?;
    let server = lab.servers.iter().find(|server| server.name == who).context("a server answered")?;
    ensure!(told["server"]["addr"] == server.address.to_string(), "{who} answered, but was told\n{told:#}");

    if scheduler == "rr" {
        // By NAT its answers pass here too, to where they are routed.
        let back =
            explain_unnoticed(director, &from.to_string(), SocketAddr::new(server.address.into(), ASK))?;
        ensure!(
            back["fate"] == "forward" && back["sentence"].as_str().is_some_and(|s| s.contains("reply")),
            "{back:#}"
        );
    }

    let told = explain_unnoticed(director, &vip.to_string(), from)?;
    ensure!(told["connection"]["state"] == "ESTABLISHED" && told["scheduling"].is_null(), "{told:#}");
    ensure!(told["fate"] == "forward" && told["server"]["addr"] == server.address.to_string(), "{told:#}");
    Ok(())
}

#[test]
fn what_is_not_forwarded_is_told_with_its_reason() -> Result<()> {
    with_director(Layout::TwoNetwork, 1, |lab, director| {
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        serve(lab, director, ("-t", vip), "wlc", &all(lab, Method::Nat))?;
        let from = SocketAddr::new(lab.layout().client(1).into(), 40_000);
        let reason = |to: &str, expected: (&str, &str)| -> Result<Value> {
            let told = explain_unnoticed(director, to, from)?;
            ensure!((&told["fate"], &told["reason"]) == (&expected.0.into(), &expected.1.into()), "{told:#}");
            Ok(told)
        };
        reason(&format!("udp:{vip}"), ("pass", "no_service"))?;
        reason(&format!("{}:{ASK}", lab.layout().director()), ("pass", "not_ours"))?;
        reason("198.51.100.7:80", ("pass", "not_ours"))?;

        // Nobody has this address.
        let nobody = SocketAddr::new(lab.vip(1).into(), ASK);
        director.must(&format!("-A -t {nobody}"))?;
        director.must(&format!("-a -t {nobody} -r 10.1.0.99 -m"))?;
        let mut told = Value::Null;
        eventually("the neighbour is given up", || {
            told = reason(&nobody.to_string(), ("drop", "next_hop_unresolved"))?;
            Ok(told["next_hop"].as_str().is_some_and(|why| why.contains("10.1.0.99")))
        })?;

        director.must(&format!("-e -t {vip} -r {}:{ASK} -m -w 0", lab.servers[0].address))?;
        let told = explain_unnoticed(director, &vip.to_string(), from)?;
        ensure!(told["fate"] == "answer", "{told:#}");
        let unusable = &told["scheduling"]["candidates"][0]["unusable"];
        ensure!(unusable.as_str().is_some_and(|why| why.contains("weight 0")), "{told:#}");

        let reply = director.command("explain", &["--from", "10.0.0.1:40000"])?;
        ensure!(reply.code == Some(0) && reply.out.contains(&format!("TCP {vip}")), "{reply:?}");
        let reply =
            director.command("explain", &["--from", "10.0.0.1:40000", "--service", "[fd00::100]:80"])?;
        ensure!(reply.code == Some(1) && reply.err.contains("different families"), "{reply:?}");
        Ok(())
    })
}

#[test]
fn persistence_and_full_servers_are_told() -> Result<()> {
    with_director(Layout::TwoNetwork, 2, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let [sticky, full] = [0, 1].map(|number| SocketAddr::new(lab.vip(number).into(), ASK));
        for (vip, service, server) in [(sticky, "-p 60", ""), (full, "", "-x 1")] {
            director.must(&format!("-A -t {vip} -s rr {service}"))?;
            for real in &lab.servers {
                director.must(format!("-a -t {vip} -r {}:{ASK} -m {server}", real.address).trim_end())?;
            }
        }
        let from = |port| SocketAddr::new(lab.layout().client(1).into(), port);

        let mut streams = vec![lab.client().connect(from(40_000), sticky)?];
        let who = ask_again(&mut streams[0])?;
        let server = lab.servers.iter().find(|server| server.name == who).context("a server answered")?;
        let told = explain_unnoticed(director, &sticky.to_string(), from(40_001))?;
        ensure!(told["connection"].is_null() && told["scheduling"].is_null(), "{told:#}");
        ensure!(told["server"]["addr"] == server.address.to_string(), "{told:#}");

        for port in 40_000..40_002 {
            streams.push(lab.client().connect(from(port), full)?);
        }
        let told = explain_unnoticed(director, &full.to_string(), from(40_002))?;
        ensure!(told["fate"] == "answer" && told["server"].is_null(), "{told:#}");
        let candidates = told["scheduling"]["candidates"].as_array().context("candidates")?;
        let is_full = |one: &Value| one["unusable"].as_str().is_some_and(|why| why.contains("threshold"));
        ensure!(candidates.len() == 2 && candidates.iter().all(is_full), "{told:#}");
        Ok(())
    })
}

#[test]
fn where_a_packet_without_a_server_goes_is_told() -> Result<()> {
    with_director(Layout::TwoNetwork, 1, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let server = lab.servers[0].address;
        let to = SocketAddr::new(server.into(), ASK);
        // What carries the mark is the director's, as IPVS needs it; without the mark the address is somebody else's.
        lab.director.ip(&[
            "rule add fwmark 8 lookup 100".to_owned(),
            format!("route add local {server} dev lo table 100"),
        ])?;
        // The client's host has a way of its own to the servers' network.
        lab.client_netns().ip(&[format!("route add {server} via {}", lab.layout().director())])?;
        director.must("-A -f 8 -s rr")?;
        for (command, words) in [("mark", format!("add 8 --to {server}")), ("tune", "cache_bypass=1".into())]
        {
            let words: Vec<&str> = words.split(' ').collect();
            let reply = director.command(command, &words)?;
            ensure!(reply.code == Some(0), "{reply:?}");
        }
        ensure!(lab.client().ask(to)? == lab.servers[0].name, "it goes where it is addressed to");
        let bypassed = director.must("-Lnc")?;
        ensure!(bypassed.contains(&format!("{to}")), "{bypassed}");
        let from = SocketAddr::new(lab.layout().client(1).into(), 40_000);
        let told = explain_unnoticed(director, &to.to_string(), from)?;
        ensure!(told["fate"] == "forward" && has(&told["sentence"], "cache_bypass"), "{told:#}");
        ensure!(has(&told["sentence"], "by l1") && told["server"].is_null(), "{told:#}");
        ensure!(has(&told["next_hop"], &format!("{server} dev l1 lladdr")), "{told:#}");
        ensure!(told["leaves"]["state"] == "SYN_RECV", "{told:#}");
        Ok(())
    })
}

#[test]
fn a_packet_of_a_vlan_that_nobody_takes_is_told_of_with_its_tags() -> Result<()> {
    with_director(Layout::TwoNetwork, 1, |lab, director| {
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        serve(lab, director, ("-t", vip), "rr", &all(lab, Method::Nat))?;
        let ask = |vlan: &str| {
            let service = vip.to_string();
            director.command("explain", &["--service", &service, "--from", "10.0.0.1:40000", "--vlan", vlan])
        };
        let told = ask("5.6")?;
        ensure!(told.code == Some(0), "{told:?}");
        ensure!(
            told.out.starts_with(&format!("VLAN 5 VLAN 6 TCP SYN 10.0.0.1:40000 -> {vip}\n")),
            "{told:?}"
        );
        ensure!(told.out.contains("no VLAN device of this host takes the frame's tags"), "{told:?}");
        let mistaken = ask("4095")?;
        ensure!(mistaken.code == Some(2) && mistaken.err.contains("1 to 4094"), "{mistaken:?}");
        Ok(())
    })
}

#[test]
fn a_clients_packets_are_told_step_by_step_and_its_connections_go_on() -> Result<()> {
    with_director(Layout::TwoNetwork, 2, |lab, director| {
        let mut watched = Watched::begin(lab, director)?;
        let reply = director.command("trace", &["--from", "10.0.0.0/24", "--count", "1"])?;
        ensure!(reply.code == Some(1) && reply.err.contains("one trace at a time"), "{reply:?}");
        watched.each_step_is_told(lab)?;
        let Watched { trace, mut client, .. } = watched;
        drop(trace);
        eventually("the programs that tell are gone", || Ok(!telling(director)?))?;
        client.goes_on()?;

        let six = SocketAddr::new(lab.layout().vip6(0).into(), ASK);
        let client6 = lab.layout().client6(1);
        let mut trace = Trace::of(director, &format!("{client6}/128"))?;
        lab.client().ask(six)?;
        let told = trace.find("an IPv6 connection", |told| has(&told["packet"], &format!("> {six}")))?;
        ensure!(steps(&told).contains(&"opened".to_owned()), "{told:#}");
        drop(trace);
        eventually("the programs that tell are gone", || Ok(!telling(director)?))?;
        client.goes_on()?;

        let reply = director.command("trace", &["--from", "192.0.2.7", "--for", "1"])?;
        ensure!(reply.code == Some(0) && reply.out.is_empty(), "nobody has that address: {reply:?}");
        ensure!(!telling(director)?, "the programs that tell are gone");
        client.goes_on()?;

        let ask = "curl -sS --unix-socket run/api.sock -X POST 'http://xlvs/api/v1/trace?from=192.0.2.7/32&seconds=1'";
        let reply = director.shell(ask)?;
        ensure!(reply.out == "{\"packets\":[],\"missed\":0}", "nobody has that address: {reply:?}");
        client.goes_on()?;

        let trace = Trace::of(director, "10.0.0.0/8")?;
        goes_on_without_the_daemon(director, trace, &mut client)
    })
}

#[test]
fn they_are_told_at_the_tc_hook_too() -> Result<()> {
    let lab = Lab::two_network(2)?;
    let director = Director::prepare(&lab, &xlvs_lab::director::binary()?)?.with_options(&["--hook", "tc"]);
    directed_by(director, &lab, |lab, director| {
        let mut watched = Watched::begin(lab, director)?;
        watched.each_step_is_told(lab)?;
        let Watched { trace, mut client, .. } = watched;
        goes_on_without_the_daemon(director, trace, &mut client)
    })
}

/// A client with a connection, whose packets are traced.
struct Watched {
    nat: SocketAddr,
    tun: SocketAddr,
    client: Client,
    trace: Trace,
    _names: Vec<NameServer>,
}

/// A connection with a server.
struct Client {
    stream: TcpStream,
    server: String,
}

impl Client {
    fn goes_on(&mut self) -> Result<()> {
        let who = ask_again(&mut self.stream)?;
        ensure!(who == self.server, "the connection goes on to {who}, not to {}", self.server);
        Ok(())
    }
}

impl Watched {
    fn begin(lab: &Lab, director: &Director) -> Result<Self> {
        let names = NameServer::on_all(lab, ASK)?;
        let [nat, tun] = [0, 1].map(|number| SocketAddr::new(lab.vip(number).into(), ASK));
        let six = SocketAddr::new(lab.layout().vip6(0).into(), ASK);
        serve(lab, director, ("-t", nat), "rr", &all(lab, Method::Nat))?;
        serve(lab, director, ("-t", tun), "rr", &all(lab, Method::Tun))?;
        director.must(&format!("-A -t {six} -s rr"))?;
        director.must(&format!("-a -t {six} -r [{}]:{ASK} -m", lab.layout().server6(1)))?;
        let mut stream = lab.client().connect(from(lab, 40_000), nat)?;
        let server = ask_again(&mut stream)?;
        let trace = Trace::of(director, &format!("{}/32", lab.layout().client(1)))?;
        Ok(Self { nat, tun, client: Client { stream, server }, trace, _names: names })
    }

    fn each_step_is_told(&mut self, lab: &Lab) -> Result<()> {
        let Self { nat, tun, client, trace, .. } = self;
        client.goes_on()?;
        let server =
            lab.servers.iter().find(|server| server.name == client.server).context("a server answered")?;
        let known = from(lab, 40_000);
        let told = trace.find("a request of a known connection", |told| goes(told, known, *nat))?;
        ensure!(steps(&told) == ["connection"] && told["fate"] == "forward", "{told:#}");
        ensure!(told["steps"][0]["connection"]["state"] == "ESTABLISHED", "{told:#}");
        ensure!(has(&told["leaves"], &format!("> {}:{ASK}", server.address)), "{told:#}");
        let told =
            trace.find("a reply", |told| has(&told["packet"], &format!("{}:{ASK} >", server.address)))?;
        ensure!(steps(&told).contains(&"connection".to_owned()), "{told:#}");
        ensure!(has(&told["leaves"], &format!("{nat} > {known}")), "{told:#}");

        let new = from(lab, 40_001);
        for (vip, wrapped) in [(*nat, ""), (*tun, "IP in IP")] {
            drop(lab.client().connect(new, vip)?);
            let told =
                trace.find("a new connection", |told| goes(told, new, vip) && has(&told["packet"], "SYN"))?;
            let way = ["stage", "no-connection", "service", "scheduled", "opened"];
            ensure!(steps(&told) == way && has(&told["leaves"], wrapped), "{told:#}");
            ensure!(told["steps"][4]["connection"]["state"] == "SYN_RECV", "{told:#}");
        }
        let (who, nobody) = (from(lab, 40_002), SocketAddr::new(nat.ip(), ASK + 1));
        ensure!(lab.client().connect(who, nobody).is_err(), "nobody serves {nobody}");
        let told = trace.find("what is not forwarded", |told| goes(told, who, nobody))?;
        ensure!(told["fate"] == "pass" && told["reason"] == "no_service", "{told:#}");
        Ok(())
    }
}

fn from(lab: &Lab, port: u16) -> SocketAddr {
    SocketAddr::new(lab.layout().client(1).into(), port)
}

/// The daemon is killed while it traces, and comes again.
fn goes_on_without_the_daemon(director: &mut Director, mut trace: Trace, client: &mut Client) -> Result<()> {
    director.kill9()?;
    client.goes_on().context("without a daemon")?;
    // What was told before has been read, or is read now.
    ensure!(telling(director)? && trace.find("the end", |_| false).is_err());
    director.restart()?;
    ensure!(!telling(director)?, "the new daemon has put its programs there");
    client.goes_on().context("with a new daemon")
}

/// Are the programs that tell still there?
fn telling(director: &Director) -> Result<bool> {
    let pins = common::pins(&director.bpffs())?;
    Ok(pins.iter().any(|pin| pin.to_string_lossy().contains("TRACED")))
}

/// A trace under way.
struct Trace {
    answers: Lines<BufReader<UnixStream>>,
}

impl Trace {
    /// Of the packets of these clients. It has begun.
    fn of(director: &Director, clients: &str) -> Result<Self> {
        let mut stream = UnixStream::connect(director.run_dir().join("control.sock"))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let wanted = json!({ "trace": { "clients": clients, "every": 1, "count": null, "limit": null } });
        writeln!(stream, "{wanted}")?;
        let mut answers = BufReader::new(stream).lines();
        let first = answers.next().context("an answer")??;
        ensure!(first == "\"tracing\"", "{first}");
        Ok(Self { answers })
    }

    /// The next packet of this kind.
    fn find(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
        for answer in self.answers.by_ref() {
            let mut answer: Value =
                serde_json::from_str(&answer.with_context(|| format!("wait for {what}"))?)?;
            let told = answer["traced"].take();
            if is_it(&told) {
                return Ok(told);
            }
        }
        bail!("the trace ended before {what}")
    }
}

fn has(words: &Value, part: &str) -> bool {
    words.as_str().is_some_and(|words| words.contains(part))
}

fn goes(told: &Value, from: SocketAddr, to: SocketAddr) -> bool {
    has(&told["packet"], &format!("{from} > {to}"))
}

fn steps(told: &Value) -> Vec<String> {
    let steps = told["steps"].as_array().map_or(&[][..], Vec::as_slice);
    steps.iter().filter_map(|step| step["step"].as_str().map(str::to_owned)).collect()
}

/// What `xlvs explain` says, having seen that nothing is otherwise afterwards. A late packet of an earlier connection may
/// come in between, once; what the explanation itself changed would be changed each time.
fn explain_unnoticed(director: &Director, service: &str, from: SocketAddr) -> Result<Value> {
    let mut told = Value::Null;
    eventually("explaining changes nothing", || {
        let before = everything(director)?;
        let words = ["--json", "--service", service, "--from", &from.to_string()];
        let reply = director.command("explain", &words)?;
        ensure!(reply.code == Some(0), "xlvs explain: {}", reply.err);
        told = serde_json::from_str(&reply.out)?;
        Ok(everything(director)? == before)
    })?;
    ensure!(told.as_array().is_some_and(|all| all.len() == 1), "{told:#}");
    Ok(told[0].take())
}

/// Services, counts, connections without their seconds, and packets by fate.
fn everything(director: &Director) -> Result<[String; 4]> {
    let connections = director.must("-Lnc")?;
    let mut connections: Vec<String> = connections.lines().map(timeless).collect();
    connections.sort();
    let status: Value = serde_json::from_str(&director.command("status", &["--json"])?.out)?;
    let packets = ["forwarded", "answered", "drops"].map(|what| status[what].to_string()).concat();
    director.check()?;
    Ok([director.must("-Ln")?, connections.join("\n"), packets, director.command("save", &[])?.out])
}

fn timeless(line: &str) -> String {
    line.split_whitespace()
        .enumerate()
        .filter(|(at, _)| *at != 1)
        .map(|(_, word)| word)
        .collect::<Vec<_>>()
        .join(" ")
}
