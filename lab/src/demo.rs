//! The demonstration: real requests through NAT, DR and TUN, and what the packets did.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::director::Director;
use crate::http::HttpServer;
use crate::layout::Layout;
use crate::netns::Netns;
use crate::topology::Lab;

const SERVERS: u8 = 3;
const REQUESTS: usize = 12;
/// Large enough that the way of the answers shows in the counters of the client's two devices.
const DOWNLOAD: u64 = 5_000_000;

/// One forwarding method and what it does to packets.
struct Method {
    title: &'static str,
    flag: &'static str,
    server_port: u16,
    what_happens: &'static str,
}

const METHODS: [Method; 3] = [
    Method {
        title: "NAT",
        flag: "-m",
        server_port: 8080,
        what_happens: "The director wrote a server's address and port 8080 in place of the VIP and port 80; \
                       the server answered through the director, its gateway, which wrote the VIP back.",
    },
    Method {
        title: "DR (direct routing)",
        flag: "-g",
        server_port: 80,
        what_happens: "The director changed nothing but the destination MAC; the server, which has the VIP \
                       on lo, answered the client itself, past the director.",
    },
    Method {
        title: "TUN (IP in IP)",
        flag: "-i",
        server_port: 80,
        what_happens: "The director wrapped each packet into one addressed to the server; the server unwrapped \
                       it and answered the client itself, past the director.",
    },
];

/// Lays out a lab, runs `xlvs_bin` in its director, shows all three methods and cleans up.
pub fn run(xlvs_bin: &Path, out: &mut dyn Write) -> Result<()> {
    let started = Instant::now();
    show_all(xlvs_bin, out)?;
    writeln!(out, "All removed again. That took {:.1} s.", started.elapsed().as_secs_f32())?;
    Ok(())
}

fn show_all(xlvs_bin: &Path, out: &mut dyn Write) -> Result<()> {
    let lab = Lab::lay_out_by(xlvs_bin, Layout::TwoNetwork, SERVERS)?;
    writeln!(out, "{}", picture(&lab))?;
    let _servers = [HttpServer::on_all(&lab, 80)?, HttpServer::on_all(&lab, 8080)?];
    let director = Director::start(&lab, xlvs_bin)?;
    for (number, method) in (0..).zip(&METHODS) {
        show(&lab, &director, number, method, out)
            .with_context(|| format!("{}: it did not work", method.title))?;
    }
    director.check()
}

fn picture(lab: &Lab) -> String {
    let servers = lab.servers.iter().map(|server| format!("{} {}", server.name, server.address));
    format!(
        "The lab, all of it network namespaces on this machine:\n\n  \
         client {} -- network C -- director (xlvs) -- network S -- {}\n  \
         The client's host is also the router of network S, which answers of DR and TUN take.\n\
         Each server was set up by `xlvs rs up --mode nat,dr,tun --vip … --gateway {}`.\n",
        lab.layout().client(1),
        servers.collect::<Vec<_>>().join(", "),
        lab.layout().gateway()
    )
}

fn show(lab: &Lab, director: &Director, number: u8, method: &Method, out: &mut dyn Write) -> Result<()> {
    let vip = lab.vip(number);
    writeln!(out, "---- {} ----", method.title)?;
    let mut lines = vec![format!("-A -t {vip}:80 -s rr")];
    for server in &lab.servers {
        lines.push(format!("-a -t {vip}:80 -r {}:{} {}", server.address, method.server_port, method.flag));
    }
    for line in &lines {
        writeln!(out, "$ ipvsadm {line}")?;
        director.must(line)?;
    }
    let before = Received::by(lab.client_netns())?;
    let spread = request(lab, &format!("http://{vip}/"))?;
    writeln!(out, "$ curl http://{vip}/      # {REQUESTS} times: {}", in_words(&spread))?;
    ensure!(spread.len() == lab.servers.len(), "not every server was asked");
    writeln!(out, "$ curl http://{vip}/big?n={DOWNLOAD}      # every byte compared")?;
    lab.client().download(vip.into(), 80, DOWNLOAD, None)?.finish()?;
    let after = Received::by(lab.client_netns())?;
    writeln!(out, "$ ipvsadm -Ln\n{}", director.must("-Ln")?.trim_end())?;
    writeln!(out, "{}", method.what_happens)?;
    writeln!(out, "Answers to the client: {}.\n", after.since(&before))?;
    out.flush()?;
    Ok(())
}

fn request(lab: &Lab, url: &str) -> Result<BTreeMap<String, usize>> {
    let mut spread = BTreeMap::new();
    for _ in 0..REQUESTS {
        *spread.entry(lab.client().get(url)?).or_default() += 1;
    }
    Ok(spread)
}

fn in_words(spread: &BTreeMap<String, usize>) -> String {
    spread.iter().map(|(name, count)| format!("{name} answered {count}")).collect::<Vec<_>>().join(", ")
}

/// What has come in at the client's two devices.
struct Received {
    through_director: u64,
    past_director: u64,
}

impl Received {
    fn by(client: &Netns) -> Result<Received> {
        let table = client.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?;
        Ok(Received { through_director: bytes_in(&table, "c0"), past_director: bytes_in(&table, "c1") })
    }

    fn since(&self, before: &Received) -> String {
        let through = kilobytes(self.through_director - before.through_director);
        let past = kilobytes(self.past_director - before.past_director);
        format!("{through} kB came from the director's side, {past} kB straight from the servers' network")
    }
}

fn kilobytes(bytes: u64) -> u64 {
    bytes / 1000
}

/// The first column behind a device's name in `/proc/net/dev`.
fn bytes_in(table: &str, device: &str) -> u64 {
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix(device)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_bytes_are_read_by_device() {
        let table = "Inter-|   Receive\n face |bytes packets\n    lo: 1 2 3\n  c0: 4711    9 0\n  c01: 5 6\n";
        assert_eq!(bytes_in(table, "c0"), 4711);
        assert_eq!(bytes_in(table, "c1"), 0);
    }
}
