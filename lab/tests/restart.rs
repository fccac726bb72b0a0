//! The data plane owns itself: the daemon may be killed, and comes back to the same counts.

mod common;

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::{Method, all, counts, ensure_spread, eventually, pins, serve, spread, with_director};
use xlvs_lab::client::ask_again;
use xlvs_lab::{HttpServer, Layout, NameServer};

const ASK: u16 = 7000;
const HTTP: u16 = 80;

#[test]
fn sigkill_under_load_loses_nothing_by_nat() -> Result<()> {
    survives_sigkill(Method::Nat)
}

#[test]
fn sigkill_under_load_loses_nothing_by_dr() -> Result<()> {
    survives_sigkill(Method::Dr)
}

#[test]
fn new_connections_are_balanced_while_no_daemon_runs() -> Result<()> {
    with_director(Layout::TwoNetwork, 3, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        serve(lab, director, ("-t", vip), "rr", &all(lab, Method::Nat))?;
        ensure!(lab.client().ask_times(vip, 3)?.len() == 3);
        director.kill9()?;
        let names = lab.client().ask_times(vip, 300).context("without a daemon")?;
        ensure_spread(&spread(&names), &[("rs1", 100), ("rs2", 100), ("rs3", 100)], 0)?;
        director.restart()?;
        let inactive: u32 = counts(&director.must("-Ln")?).iter().map(|(_, _, inactive)| inactive).sum();
        ensure!(inactive == 303, "{inactive} connections are remembered, not 303");
        Ok(())
    })
}

#[test]
fn sigterm_ends_the_daemon_in_good_order_and_forwarding_goes_on() -> Result<()> {
    with_director(Layout::TwoNetwork, 2, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        serve(lab, director, ("-t", vip), "rr", &all(lab, Method::Nat))?;
        director.stop()?;
        ensure!(lab.client().ask_times(vip, 10)?.len() == 10);
        director.restart()
    })
}

#[test]
fn unload_removes_programs_and_pins() -> Result<()> {
    with_director(Layout::TwoNetwork, 1, |lab, director| {
        director.stop()?;
        let reply = director.unload()?;
        ensure!(reply.code == Some(0), "xlvs unload: {}", reply.err);
        eventually("the devices are free of XDP", || {
            let links = lab.director.output(Command::new("ip").args(["link", "show"]))?;
            Ok(!String::from_utf8_lossy(&links.stdout).contains("xdp"))
        })?;
        ensure!(pins(&director.bpffs())?.is_empty(), "something is still pinned");
        director.restart()
    })
}

fn survives_sigkill(method: Method) -> Result<()> {
    with_director(Layout::TwoNetwork, 3, |lab, director| {
        let (_names, _files) = (NameServer::on_all(lab, ASK)?, HttpServer::on_all(lab, HTTP)?);
        let (ask, http) = (SocketAddr::new(lab.vip(0).into(), ASK), SocketAddr::new(lab.vip(0).into(), HTTP));
        for at in [ask, http] {
            serve(lab, director, ("-t", at), "wlc", &all(lab, method))?;
        }
        ensure!(lab.client().ask_times(ask, 100)?.len() == 100);
        let mut held = (0..20).map(|_| lab.client().connect_to(ask)).collect::<Result<Vec<_>>>()?;
        // It must last until the daemon is there again, however slow the machine is today.
        let seconds = 8 + 3 * director.start_took().as_secs();
        let mut download = lab.client().download(http.ip(), HTTP, seconds * 4_000_000, Some("4M"))?;
        eventually("the download is a connection", || Ok(active(&director.must("-Ln")?) == 21))?;
        let before = director.must("-Ln")?;

        director.kill9()?;
        held.iter_mut().try_for_each(|stream| ask_again(stream).map(drop)).context("while no daemon runs")?;
        std::thread::sleep(Duration::from_millis(500));
        director.restart()?;

        ensure!(download.is_running(), "the download was over before it was put to the test");
        let after = director.must("-Ln")?;
        ensure!(before == after, "the listing changed from\n{before}to\n{after}");
        director.check()?;
        held.iter_mut().try_for_each(|stream| ask_again(stream).map(drop)).context("after the restart")?;
        download.finish()
    })
}

fn active(listing: &str) -> u32 {
    counts(listing).iter().map(|(_, active, _)| active).sum()
}
