//! How the program is attached: in the driver where it can be, else after it, or as `--xdp-mode` says; and at the tc hook.

mod common;

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::{Method, all, directed_by, pins, ruled_by, serve, within};
use serde_json::Value;
use xlvs_lab::client::ask_again;
use xlvs_lab::{Director, HttpServer, Lab, NameServer, Netns};

const ASK: u16 = 7000;
const HTTP: u16 = 80;
/// Some turns of a check, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn where_the_driver_cannot_generic_mode_is_taken_with_a_warning() -> Result<()> {
    let lab = Lab::two_network(0)?;
    // The loopback's driver has no native XDP.
    directed_by(prepared(&lab, &["l0", "l1", "lo"])?, &lab, |_, director| {
        let log = director.log();
        ensure!(log.contains("WARN") && log.contains("generic mode"), "no warning");
        let told = |director: &Director| -> Result<()> {
            let status = director.command("status", &[])?.out;
            ensure!(status.contains("l0 native") && status.contains("lo generic"), "{status}");
            Ok(())
        };
        told(director)?;
        director.kill9()?;
        director.restart()?;
        told(director).context("the next daemon")
    })
}

#[test]
fn native_mode_is_refused_where_the_driver_cannot() -> Result<()> {
    let lab = Lab::two_network(0)?;
    let director = prepared(&lab, &["lo"])?.with_options(&["--xdp-mode", "native"]);
    let reply = director.refused(&["lo"])?;
    ensure!(reply.code != Some(0) && reply.err.contains("lo"), "{}", reply.err);
    ensure!(reply.err.contains("generic"), "what to do is not said: {}", reply.err);
    Ok(())
}

#[test]
fn generic_mode_balances_too() -> Result<()> {
    let lab = Lab::two_network(2)?;
    let director =
        prepared(&lab, lab.layout().director_interfaces())?.with_options(&["--xdp-mode", "generic"]);
    directed_by(director, &lab, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let vips = [(0, Method::Nat), (1, Method::Dr)];
        for (number, method) in vips {
            let vip = SocketAddr::new(lab.vip(number).into(), ASK);
            serve(lab, director, ("-t", vip), "rr", &all(lab, method))?;
            let names = lab.client().ask_times(vip, 10)?;
            ensure!(names.iter().filter(|name| *name == "rs1").count() == 5, "{method:?}: {names:?}");
        }
        Ok(())
    })
}

fn prepared<'a>(lab: &'a Lab, interfaces: &[&str]) -> Result<Director<'a>> {
    let binary = xlvs_lab::director::binary()?;
    Director::prepare_on(&lab.director, interfaces, lab.directory(), &binary)
}

/// Offloads stay as a kernel that is left alone has them: the director gets half-made checksums, and segments joined.
#[test]
fn at_the_tc_hook_senders_keep_their_offloads() -> Result<()> {
    let lab = Lab::two_network(2)?;
    lab.switch_offloads_on()?;
    let file = lab.directory().join("xlvs.toml");
    std::fs::write(&file, at_hook(&lab, "tc")).context("write the file")?;
    let (_names, _files) = (NameServer::on_all(&lab, ASK)?, HttpServer::on_all(&lab, HTTP)?);
    let mut director = Director::ruled_by(&lab, &xlvs_lab::director::binary()?, &file)?;
    let outcome = aggregates_go_on_over_a_restart(&lab, &mut director)
        .and_then(|()| director.check())
        .and_then(|()| is_gone_when_unloaded(&lab, &mut director));
    outcome.with_context(|| format!("the daemon's log:\n{}", director.log()))
}

fn aggregates_go_on_over_a_restart(lab: &Lab, director: &mut Director) -> Result<()> {
    is_at(director, "tc")?;
    within(PATIENCE, "NAT servers are known to be up", || {
        Ok(director.shell("xlvs servers")?.out.matches(", up").count() == 4)
    })?;
    for vip in vips(lab) {
        let which = || format!("by {vip}");
        lab.client().download(vip, HTTP, 20_000_000, None)?.finish().with_context(which)?;
        let names = lab.client().ask_times(SocketAddr::new(vip, ASK), 10).with_context(which)?;
        ensure!(names.iter().filter(|name| *name == "rs1").count() == 5, "{vip}: {names:?}");
    }
    let mean = mean_length(&lab.director, "l1")?;
    ensure!(mean > 2000, "there were no aggregates: {mean} bytes a packet");
    let downloads = vips(lab).into_iter().map(|vip| lab.client().download(vip, HTTP, 5_000_000, Some("2M")));
    let downloads = downloads.collect::<Result<Vec<_>>>()?;
    director.kill9()?;
    director.restart()?;
    is_at(director, "tc").context("the next daemon")?;
    downloads.into_iter().try_for_each(xlvs_lab::Download::finish).context("over the restart")
}

fn is_gone_when_unloaded(lab: &Lab, director: &mut Director) -> Result<()> {
    director.stop()?;
    let unloaded = director.unload()?;
    ensure!(unloaded.code == Some(0), "xlvs unload: {}", unloaded.err);
    let vip = SocketAddr::new(lab.vip(0).into(), ASK);
    ensure!(lab.client().ask(vip).is_err(), "it goes on without programs");
    Ok(())
}

/// Of packets that came in by an interface, in bytes.
fn mean_length(host: &Netns, device: &str) -> Result<u64> {
    let shown = host.output(Command::new("ip").args(["-s", "-j", "link", "show", device]))?;
    let shown: Value = serde_json::from_slice(&shown.stdout)?;
    let rx = &shown[0]["stats64"]["rx"];
    let [bytes, packets] = ["bytes", "packets"].map(|what| rx[what].as_u64().unwrap_or(0));
    bytes.checked_div(packets).context("nothing came in")
}

#[test]
fn a_director_changes_its_hook_and_keeps_its_connections() -> Result<()> {
    let lab = Lab::two_network(2)?;
    let file = lab.directory().join("xlvs.toml");
    std::fs::write(&file, at_hook(&lab, "xdp")).context("write the file")?;
    let (_names, _files) = (NameServer::on_all(&lab, ASK)?, HttpServer::on_all(&lab, HTTP)?);
    ruled_by(&lab, &file, |lab, director| {
        is_at(director, "native")?;
        let streams = vips(lab).into_iter().map(|vip| lab.client().connect_to(SocketAddr::new(vip, ASK)));
        let mut streams = streams.collect::<Result<Vec<_>>>()?;
        let names = streams.iter_mut().map(ask_again).collect::<Result<Vec<_>>>()?;
        for (hook, mode) in [("tc", "tc"), ("xdp", "native")] {
            std::fs::write(&file, at_hook(lab, hook)).context("write the file")?;
            let told = director.shell("xlvs reload")?.out;
            ensure!(told.contains("next start"), "nothing is said of the next start: {told}");
            director.stop()?;
            director.restart()?;
            is_at(director, mode)?;
            let has_tc = pins(&director.bpffs())?.iter().any(|pin| pin.ends_with("TC_STAGES"));
            ensure!(has_tc == (hook == "tc"), "{hook}: are programs at tc? {has_tc}");
            let again = streams.iter_mut().map(ask_again).collect::<Result<Vec<_>>>()?;
            ensure!(again == names, "{hook}: {again:?}, and before {names:?}");
        }
        Ok(())
    })
}

#[test]
fn the_modes_of_xdp_are_refused_at_the_tc_hook() -> Result<()> {
    let lab = Lab::two_network(0)?;
    let director = prepared(&lab, &["l0"])?.with_options(&["--hook", "tc", "--xdp-mode", "native"]);
    let reply = director.refused(&["l0"])?;
    ensure!(reply.code != Some(0) && reply.err.contains("--xdp-mode"), "{}", reply.err);
    Ok(())
}

fn is_at(director: &Director, mode: &str) -> Result<()> {
    let status = director.command("status", &[])?.out;
    ensure!(status.contains(&format!("l0 {mode}, l1 {mode}")), "{mode}: {status}");
    Ok(())
}

/// A VIP for each method.
const METHODS: [(u8, &str); 3] = [(0, "nat"), (1, "dr"), (2, "tun")];

/// Both families' VIPs of each of them, in this order.
fn vips(lab: &Lab) -> Vec<IpAddr> {
    METHODS.map(|(number, _)| [lab.vip(number).into(), lab.layout().vip6(number).into()]).concat()
}

/// By each method and family a service of files and one of names, on all servers. NAT's servers of files are looked after.
fn at_hook(lab: &Lab, hook: &str) -> String {
    let mut text = format!("interfaces = [\"l0\", \"l1\"]\nhook = \"{hook}\"\n");
    for ((_, method), vips) in METHODS.iter().zip(vips(lab).chunks(2)) {
        for (vip, port) in vips.iter().flat_map(|vip| [(vip, ASK), (vip, HTTP)]) {
            let servers = lab.servers.iter().map(|server| {
                let addr = if vip.is_ipv6() { server.address6.into() } else { server.address.into() };
                format!("\"{}\"", SocketAddr::new(addr, port))
            });
            let (vip, servers) = (SocketAddr::new(*vip, port), servers.collect::<Vec<_>>().join(", "));
            text += &format!(
                "[[service]]\ntcp = \"{vip}\"\nscheduler = \"rr\"\nmethod = \"{method}\"\nservers = [{servers}]\n"
            );
            if *method == "nat" && port == HTTP {
                text +=
                    "check = { type = \"http\", body = \"rs\", interval = \"500ms\", timeout = \"5s\" }\n";
            }
        }
    }
    text
}
