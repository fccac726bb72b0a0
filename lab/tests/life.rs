//! Connections live and end as they should, and who is not served hears of it.

mod common;

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use common::{Method, all, directed_by, ensure_spread, eventually, serve, spread, with_director, within};
use xlvs_lab::client::{ask_again, ask_by, ephemeral};
use xlvs_lab::{Director, Lab, Layout, NameServer};

const ASK: u16 = 7000;

#[test]
fn drain_waits_for_the_last_connection() -> Result<()> {
    with_director(Layout::TwoNetwork, 2, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        serve(lab, director, ("-t", vip), "rr", &all(lab, Method::Nat))?;
        serve(lab, director, ("-u", vip), "rr", &all(lab, Method::Nat))?;
        let mut held = [lab.client().connect_to(vip)?, lab.client().connect_to(vip)?];
        let server = format!("{}:{ASK}", lab.servers[0].address);

        let reply = director.command("drain", &[&format!("tcp/{vip}"), &server, "--deadline", "1s"])?;
        ensure!(
            reply.code == Some(1) && reply.out.contains("still has 1 active"),
            "{}{}",
            reply.out,
            reply.err
        );
        let names = lab.client().ask_times(vip, 20)?;
        ensure_spread(&spread(&names), &[("rs2", 20)], 0)?;
        for stream in &mut held {
            ask_again(stream).context("a connection that was there before")?;
        }

        director.must("--set 0 0 2")?;
        let asked = [lab.client().ask_by_datagram(vip)?, lab.client().ask_by_datagram(vip)?];
        ensure!(
            asked.contains(&"rs1".to_owned()),
            "nobody asked the server that is to be drained: {asked:?}"
        );
        let reply = director.command("drain", &[&format!("udp/{vip}"), &server, "--deadline", "30s"])?;
        ensure!(reply.code == Some(0) && reply.out.contains("is empty after"), "{}{}", reply.out, reply.err);
        Ok(())
    })
}

#[test]
fn what_has_expired_is_gone_within_two_seconds() -> Result<()> {
    const TIMEOUT: Duration = Duration::from_secs(3);
    with_director(Layout::TwoNetwork, 1, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        serve(lab, director, ("-u", vip), "rr", &all(lab, Method::Nat))?;
        director.must(&format!("--set 0 0 {}", TIMEOUT.as_secs()))?;
        let began = Instant::now();
        lab.client().ask_by_datagram(vip)?;
        let last_packet = Instant::now();
        loop {
            let asked = last_packet.elapsed();
            let there = director.must("-Lnc")?.contains("UDP");
            if !there {
                // Last-seen is kept in quarters of a second.
                ensure!(
                    began.elapsed() + Duration::from_millis(250) >= TIMEOUT,
                    "gone after {:?}",
                    began.elapsed()
                );
                return Ok(());
            }
            ensure!(asked < TIMEOUT + Duration::from_secs(2), "still listed after {asked:?}");
        }
    })
}

#[test]
fn a_full_table_refuses_new_connections_says_so_and_recovers() -> Result<()> {
    let lab = Lab::two_network(1)?;
    let director =
        Director::prepare(&lab, &xlvs_lab::director::binary()?)?.with_options(&["--max-conns", "1000"]);
    directed_by(director, &lab, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        serve(lab, director, ("-t", vip), "rr", &all(lab, Method::Nat))?;
        serve(lab, director, ("-u", vip), "rr", &all(lab, Method::Nat))?;
        director.must("--set 0 0 4")?;
        let mut held = lab.client().connect_to(vip)?;
        ask_again(&mut held)?;

        for port in 10_000..14_000 {
            lab.client().datagrams(SocketAddr::new(lab.layout().client(1).into(), port), vip)?.send(b"hi")?;
        }
        eventually("the daemon says that the table is full", || {
            Ok(director.log().contains("the connection table is full"))
        })?;
        let status = director.command("status", &["--json"])?.out;
        ensure!(status.contains("table_full"), "no drop is counted: {status}");
        ask_again(&mut held).context("the connection from before")?;

        within(Duration::from_secs(30), "the table takes connections again", || {
            Ok(director.log().contains("takes new connections again"))
        })?;
        ask_again(&mut held).context("the connection from before, afterwards")?;
        ensure!(lab.client().ask(vip)? == "rs1" && lab.client().ask_by_datagram(vip)? == "rs1");
        Ok(())
    })
}

#[test]
fn who_finds_no_server_is_told_at_once() -> Result<()> {
    with_director(Layout::TwoNetwork, 1, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let (empty, quiet) =
            (SocketAddr::new(lab.vip(0).into(), ASK), SocketAddr::new(lab.vip(1).into(), ASK));
        for kind in ["-t", "-u"] {
            serve(lab, director, (kind, empty), "wlc", &[])?;
            serve(lab, director, (kind, quiet), "wlc", &[(0, Method::Nat, 0)])?;
        }
        for vip in [empty, quiet] {
            let Err(why) = lab.client().connect_to(vip) else { bail!("{vip} took a connection") };
            ensure!(is_refusal(&why), "TCP to {vip}: {why:#}");
            let socket = lab.client().datagrams(ephemeral(lab.layout().client(1)), vip)?;
            let Err(why) = ask_by(&socket) else { bail!("{vip} answered") };
            ensure!(is_refusal(&why), "UDP to {vip}: {why:#}");
        }
        Ok(())
    })
}

/// What a socket says after ICMP port unreachable.
fn is_refusal(why: &anyhow::Error) -> bool {
    why.chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == ErrorKind::ConnectionRefused)
}

#[test]
fn connections_outlive_a_server_whose_weight_is_zero_and_end_with_one_that_is_removed() -> Result<()> {
    with_director(Layout::TwoNetwork, 1, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        serve(lab, director, ("-t", vip), "rr", &all(lab, Method::Nat))?;
        let reply = director.command("tune", &["expire_nodest_conn=1"])?;
        ensure!(reply.out == "expire_nodest_conn = 1\n", "{}{}", reply.out, reply.err);
        let mut held = lab.client().connect_to(vip)?;
        let server = format!("{}:{ASK}", lab.servers[0].address);
        director.must(&format!("-e -t {vip} -r {server} -m -w 0"))?;
        ask_again(&mut held).context("weight 0")?;
        director.must(&format!("-d -t {vip} -r {server}"))?;
        eventually("the connection of the removed server is gone", || {
            Ok(!director.must("-Lnc")?.contains("ESTABLISHED"))
        })?;
        held.set_read_timeout(Some(Duration::from_millis(300)))?;
        ensure!(held.read(&mut [0]).is_err(), "somebody still speaks");
        Ok(())
    })
}

#[test]
fn drop_packet_turns_away_every_so_manieth_new_connection() -> Result<()> {
    with_director(Layout::TwoNetwork, 1, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        serve(lab, director, ("-u", vip), "rr", &all(lab, Method::Nat))?;
        let held = lab.client().datagrams(SocketAddr::new(lab.layout().client(1).into(), 9_000), vip)?;
        ask_by(&held)?;
        let reply = director.command("tune", &["am_droprate=4", "drop_packet=3"])?;
        ensure!(reply.code == Some(0), "{}", reply.err);
        for port in 10_000..10_040 {
            lab.client().datagrams(SocketAddr::new(lab.layout().client(1).into(), port), vip)?.send(b"hi")?;
        }
        for _ in 0..8 {
            ask_by(&held).context("a connection that is there is never turned away")?;
        }
        let entries = director.must("-Lnc")?.lines().filter(|line| line.starts_with("UDP")).count();
        ensure!(
            entries == 1 + 30,
            "{entries} entries, of 40 new connections less every fourth, and one from before"
        );
        Ok(())
    })
}

#[test]
fn tunables_are_set_all_or_none_and_names_are_suggested() -> Result<()> {
    with_director(Layout::TwoNetwork, 0, |_, director| {
        let reply = director.command("tune", &["drop_entry=1", "expire_nodst_conn=1"])?;
        ensure!(reply.code != Some(0) && reply.err.contains("expire_nodest_conn"), "{}", reply.err);
        ensure!(director.command("tune", &["drop_entry"])?.out == "drop_entry = 0\n", "half of it was set");
        let reply = director.command("tune", &["net.ipv4.vs.drop_entry=7"])?;
        ensure!(reply.code != Some(0) && reply.err.contains("nothing was set"), "{}", reply.err);
        Ok(())
    })
}
