//! Servers come and go under load, and no established connection notices.

mod common;

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use common::{
    Method, add, all, counts, ensure_spread, eventually, hold, serve, spread, still_there, under_load,
    with_director,
};
use xlvs_lab::{Director, HttpServer, Lab, Layout, NameServer};
use xlvs_model::spec::Scheduler;

const ASK: u16 = 7000;
const HTTP: u16 = 80;

#[test]
fn a_server_comes_and_goes_under_load_by_nat() -> Result<()> {
    comes_and_goes(Method::Nat)
}

#[test]
fn a_server_comes_and_goes_under_load_by_dr() -> Result<()> {
    comes_and_goes(Method::Dr)
}

#[test]
fn a_server_comes_and_goes_under_load_by_tun() -> Result<()> {
    comes_and_goes(Method::Tun)
}

/// Every scheduler takes the service over from another, and weights change, while connections come and go.
#[test]
fn schedulers_and_weights_change_under_load() -> Result<()> {
    with_director(Layout::TwoNetwork, 3, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        // So large that even ovf has room for all.
        let servers = [(0, Method::Nat, 500), (1, Method::Dr, 500), (2, Method::Tun, 500)];
        serve(lab, director, ("-t", vip), "rr", &servers)?;
        let mut held = hold(lab, vip, 20)?;
        under_load(lab, vip, || {
            for (round, scheduler) in Scheduler::ALL.into_iter().enumerate() {
                director.must(&format!("-E -t {vip} -s {}", scheduler.name()))?;
                std::thread::sleep(std::time::Duration::from_millis(50));
                let (weight, address) = (300 + 10 * round, lab.servers[0].address);
                director.must(&format!("-e -t {vip} -r {address}:{ASK} -m -w {weight}"))?;
                std::thread::sleep(std::time::Duration::from_millis(50));
                ensure!(director.must("-Ln")?.contains(&format!("TCP  {vip} {}\n", scheduler.name())));
            }
            Ok(())
        })?;
        still_there(&mut held)
    })
}

#[test]
fn a_quiesced_server_keeps_its_connections_and_gets_no_new_ones() -> Result<()> {
    with_director(Layout::TwoNetwork, 2, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        serve(lab, director, ("-t", vip), "rr", &all(lab, Method::Nat))?;
        let mut held = hold(lab, vip, 10)?;
        director.must(&format!("-e -t {vip} -r {}:{ASK} -m -w 0", lab.servers[1].address))?;
        let names = lab.client().ask_times(vip, 50)?;
        ensure_spread(&spread(&names), &[("rs1", 50)], 0)?;
        still_there(&mut held)
    })
}

#[test]
fn a_server_removed_and_added_again_gets_its_connections_back() -> Result<()> {
    with_director(Layout::TwoNetwork, 2, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        serve(lab, director, ("-t", vip), "rr", &all(lab, Method::Nat))?;
        let mut held = hold(lab, vip, 10)?;
        let before = director.must("-Ln")?;
        director.must(&format!("-d -t {vip} -r {}:{ASK}", lab.servers[1].address))?;
        add(lab, director, ("-t", vip), (1, Method::Nat, 1))?;
        ensure!(director.must("-Ln")? == before, "the counts changed");
        still_there(&mut held)
    })
}

fn comes_and_goes(method: Method) -> Result<()> {
    with_director(Layout::TwoNetwork, 3, |lab, director| {
        let (_names, _files) = (NameServer::on_all(lab, ASK)?, HttpServer::on_all(lab, HTTP)?);
        let (ask, http) = (SocketAddr::new(lab.vip(0).into(), ASK), SocketAddr::new(lab.vip(0).into(), HTTP));
        for service in [("-t", ask), ("-t", http)] {
            serve(lab, director, service, "rr", &[(0, method, 1), (1, method, 1)])?;
        }
        let mut held = hold(lab, ask, 20)?;
        let download = lab.client().download(http.ip(), HTTP, 30_000_000, Some("10M"))?;
        // Only then may the third server come, or it would get the download and be taken away with it.
        eventually("the download is a connection", || {
            let listing = director.must(&format!("-Ln -t {http}"))?;
            Ok(counts(&listing).iter().map(|(_, active, _)| active).sum::<u32>() == 1)
        })?;
        under_load(lab, ask, || {
            for _ in 0..10 {
                change_third(lab, director, (ask, http), method)?;
            }
            Ok(())
        })?;
        download.finish()?;
        still_there(&mut held)
    })
}

/// Adds the third server, lets it serve, and removes it again.
fn change_third(
    lab: &Lab,
    director: &Director,
    (ask, http): (SocketAddr, SocketAddr),
    method: Method,
) -> Result<()> {
    for at in [ask, http] {
        add(lab, director, ("-t", at), (2, method, 1))?;
    }
    std::thread::sleep(std::time::Duration::from_millis(100));
    for at in [ask, http] {
        director.must(&format!(
            "-e -t {at} -r {}:{} {} -w 0",
            lab.servers[2].address,
            at.port(),
            method.flag()
        ))?;
    }
    // What it was given before its weight fell may finish; only then is it taken away.
    std::thread::sleep(std::time::Duration::from_millis(100));
    for at in [ask, http] {
        director.must(&format!("-d -t {at} -r {}:{}", lab.servers[2].address, at.port()))?;
    }
    Ok(())
}
