//! How the program is attached: in the driver where it can be, else after it, or as `--xdp-mode` says.

mod common;

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use common::{Method, all, directed_by, serve};
use xlvs_lab::{Director, Lab, NameServer};

const ASK: u16 = 7000;

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
