//! Path MTU discovery works through the director: a router at the client's end tells the VIP that a packet was too big, and the server
//! that sent it hears of it.

mod common;

use std::net::IpAddr;

use anyhow::{Context, Result};
use common::{Method, all, directed, serve};
use xlvs_lab::{HttpServer, Lab};

const HTTP: u16 = 80;

#[test]
fn fifty_megabytes_come_down_a_narrow_way_by_nat() -> Result<()> {
    comes_down(Method::Nat)
}

#[test]
fn fifty_megabytes_come_down_a_narrow_way_by_dr() -> Result<()> {
    comes_down(Method::Dr)
}

#[test]
fn fifty_megabytes_come_down_a_narrow_way_by_tun() -> Result<()> {
    comes_down(Method::Tun)
}

fn comes_down(method: Method) -> Result<()> {
    let mut lab = Lab::two_network(1)?;
    lab.add_far_client(1300)?;
    directed(&lab, |lab, director| {
        let _files = HttpServer::on_all(lab, HTTP)?;
        let vip = IpAddr::from(lab.vip(0));
        serve(lab, director, ("-t", (vip, HTTP).into()), "rr", &all(lab, method))?;
        let download = lab.far_client()?.download(vip, HTTP, 50_000_000, None)?;
        download.finish().context("50 MB over a link of 1300 bytes")
    })
}
