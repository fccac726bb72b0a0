//! TCP connections, one after the other: opened, a question and an answer, closed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use xlvs_lab::director::{Director, binary};
use xlvs_lab::{Lab, NameServer, Process};

use super::{Live, at_share, dnat, middle, nft};

const PORT: u16 = 8000;
const CONNECTIONS: usize = 1500;

/// Who is in the director's place, and the number of the VIP that is its.
const CONTESTANTS: [(&str, Who, u8); 7] = [
    ("routed to a server, no director", Who::Nobody, 0),
    ("xlvs NAT", Who::Xlvs("-m"), 1),
    ("xlvs DR", Who::Xlvs("-g"), 2),
    ("xlvs TUN", Who::Xlvs("-i"), 3),
    ("nftables DNAT, numgen", Who::Nftables, 4),
    ("HAProxy, tcp mode", Who::Haproxy, 5),
    ("nginx, stream", Who::Nginx, 6),
];

enum Who {
    Nobody,
    Xlvs(&'static str),
    Nftables,
    Haproxy,
    Nginx,
}

/// All of them, in rounds.
pub fn measure(rounds: usize) -> Result<Vec<Live>> {
    let lab = Lab::two_network(4)?;
    let _servers = NameServer::on_all(&lab, PORT)?;
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); CONTESTANTS.len()];
    let mut best = vec![f64::INFINITY; CONTESTANTS.len()];
    for round in 0..rounds {
        eprintln!("    round {} of {rounds}", round + 1);
        for (at, (name, who, vip)) in CONTESTANTS.iter().enumerate() {
            let round = in_place(&lab, who, lab.vip(*vip)).with_context(|| (*name).to_owned())?;
            best[at] = best[at].min(round.iter().sum::<f64>() / round.len() as f64);
            times[at].extend(round);
        }
    }
    let alone = best[0];
    let named = CONTESTANTS.iter().zip(&mut times).zip(&best);
    let live = named.map(|(((name, ..), times), best)| Live {
        name: format!("TCP connections, question and answer: {name}"),
        per_second: 1e6 / best,
        added_us: best - alone,
        p50_us: middle(times),
        p99_us: at_share(times, 0.99),
    });
    Ok(live.collect())
}

/// One round of one contestant: microseconds of each connection.
fn in_place(lab: &Lab, who: &Who, vip: Ipv4Addr) -> Result<Vec<f64>> {
    let servers: Vec<String> = lab.servers.iter().map(|server| server.address.to_string()).collect();
    match who {
        Who::Nobody => ask(lab, (lab.servers[0].address, PORT).into()),
        Who::Xlvs(method) => {
            let options = ["--max-conns", "100000", "--max-conns-v6", "1000"];
            let mut xlvs = Director::prepare(lab, &binary()?)?.with_options(&options);
            xlvs.restart()?;
            xlvs.must(&format!("-A -t {vip}:{PORT} -s rr"))?;
            for server in &servers {
                xlvs.must(&format!("-a -t {vip}:{PORT} -r {server}:{PORT} {method}"))?;
            }
            let times = ask(lab, (vip, PORT).into())?;
            xlvs.check()?;
            Ok(times)
        }
        Who::Nftables => {
            nft(&lab.director, &dnat("tcp", &vip.to_string(), PORT, &servers, "numgen inc mod 4"))?;
            let times = ask(lab, (vip, PORT).into());
            nft(&lab.director, "delete table ip lb")?;
            times
        }
        Who::Haproxy => {
            let file = lab.directory().join("haproxy.cfg");
            write(&file, &haproxy(vip, &servers))?;
            let mut command = Command::new("haproxy");
            let _proxy = start(lab, command.args(["-q", "-db", "-f"]).arg(&file), vip)?;
            ask(lab, (vip, PORT).into())
        }
        Who::Nginx => {
            let file = lab.directory().join("nginx.conf");
            write(&file, &nginx(lab.directory(), vip, &servers))?;
            let mut command = Command::new("nginx");
            let _proxy = start(lab, command.arg("-c").arg(&file), vip)?;
            ask(lab, (vip, PORT).into())
        }
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).with_context(|| format!("write {}", file.display()))
}

fn haproxy(vip: Ipv4Addr, servers: &[String]) -> String {
    let servers = (1..)
        .zip(servers)
        .map(|(number, server): (usize, _)| format!("  server s{number} {server}:{PORT}\n"));
    format!(
        "global\n  nbthread 1\n  maxconn 4096\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  \
         timeout server 30s\nlisten lb\n  bind {vip}:{PORT}\n  balance roundrobin\n{}",
        servers.collect::<String>()
    )
}

fn nginx(directory: &Path, vip: Ipv4Addr, servers: &[String]) -> String {
    let directory = directory.display();
    let servers = servers.iter().map(|server| format!("server {server}:{PORT}; ")).collect::<String>();
    format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off; master_process off; pid {directory}/nginx.pid;\n\
         error_log {directory}/nginx.log;\nevents {{ worker_connections 4096; }}\n\
         stream {{ upstream lb {{ {servers} }} server {{ listen {vip}:{PORT}; proxy_pass lb; }} }}\n"
    )
}

/// Starts a proxy and waits until it listens.
fn start(lab: &Lab, command: &mut Command, vip: Ipv4Addr) -> Result<Process> {
    let mut proxy =
        lab.director.spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()))?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while lab.client().ask((vip, PORT).into()).is_err() {
        if let Some(status) = proxy.ended() {
            anyhow::bail!("it ended at once ({status})");
        }
        ensure!(Instant::now() < deadline, "it does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(proxy)
}

/// The connections of one round.
fn ask(lab: &Lab, to: SocketAddr) -> Result<Vec<f64>> {
    lab.client_netns().run(|| {
        for _warm in 0..20 {
            once(to)?;
        }
        (0..CONNECTIONS).map(|_| once(to)).collect()
    })
}

fn once(to: SocketAddr) -> Result<f64> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(3)).context("connect")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    stream.write_all(b"hi").context("ask")?;
    let mut name = [0; 16];
    let length = stream.read(&mut name).context("hear an answer")?;
    ensure!(name[..length].starts_with(b"rs"), "no server's name: {:02x?}", &name[..length]);
    drop(stream);
    Ok(begun.elapsed().as_secs_f64() * 1e6)
}
