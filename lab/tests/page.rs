//! The daemon's page in a browser: what it shows, also on a phone and in the dark.

mod common;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use common::browser::Browser;
use common::{Method, directed_by, serve, within};
use xlvs_lab::{Director, Lab, Layout, NameServer};

const ASK: u16 = 7000;
const HTTP: &str = "127.0.0.1:9110";
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Everything that is seen.
const TEXT: &str = "return document.body.innerText";
/// How far the page is wider than its window.
const OVERFLOW: &str = "return document.documentElement.scrollWidth - window.innerWidth";
const GROUND: &str = "return getComputedStyle(document.body).backgroundColor";
/// Errors of the page, and what it took from elsewhere.
const FOREIGN: &str = "return performance.getEntriesByType('resource').map(r => r.name).filter(n => !n.startsWith(location.origin))";

/// Writes the pictures of `docs/`, for who has `XLVS_PICTURES` set to that directory.
fn pictures() -> Option<PathBuf> {
    std::env::var_os("XLVS_PICTURES").map(PathBuf::from)
}

#[test]
fn the_page_shows_services_and_servers_as_they_fare_also_on_a_phone_and_in_the_dark() -> Result<()> {
    let lab = Lab::lay_out(Layout::TwoNetwork, 3)?;
    let director = Director::prepare(&lab, &xlvs_lab::director::binary()?)?.with_options(&["--http", HTTP]);
    directed_by(director, &lab, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        let servers = [(0, Method::Nat, 3), (1, Method::Nat, 1), (2, Method::Nat, 0)];
        serve(lab, director, ("-t", vip), "wrr", &servers)?;
        director.must(&format!("-A -u {vip} -s sh"))?;
        let out = format!("xlvs server disable tcp/{vip} {}", lab.servers[1].address);
        ensure!(director.shell(&out)?.code == Some(0));
        let browser = Browser::start(&lab.director, lab.directory())?;
        browser.shape((1280, 900), false)?;
        browser.open(&format!("http://{HTTP}/"))?;
        let seen = || -> Result<String> { Ok(browser.run(TEXT)?.as_str().unwrap_or_default().to_owned()) };
        within(PATIENCE, "the services are shown", || Ok(seen()?.contains(&format!("tcp/{vip}"))))?;
        let first = format!("{}:{ASK}", lab.servers[0].address);
        let text = seen()?;
        for part in
            [&*first, "wrr", "out, 1 when back", "No server.", "l0 (", "3 servers", "disabled by an operator"]
        {
            ensure!(text.contains(part), "{part} is not in\n{text}");
        }
        // It lives: what comes is shown without a reload.
        let load = lab.client().ask_times(vip, 200)?;
        ensure!(load.len() == 200);
        within(PATIENCE, "connections are shown", || {
            lab.client().ask_times(vip, 50)?;
            let rate = "return [...document.querySelectorAll('.service .sum')].some(s => !s.innerText.startsWith('0 new/s'))";
            Ok(browser.run(rate)? == true)
        })?;
        within(PATIENCE, "packets are drawn", || {
            lab.client().ask_times(vip, 50)?;
            Ok(browser.run("return document.querySelectorAll('.chart path.line').length")? == 3)
        })?;
        ensure!(browser.run(FOREIGN)? == serde_json::json!([]), "nothing comes from elsewhere");
        ensure!(browser.run(OVERFLOW)?.as_i64() <= Some(0), "it is wider than the window");
        let light = browser.run(GROUND)?;
        if let Some(directory) = pictures() {
            browser.picture(&directory.join("page.png"))?;
        }

        browser.shape((390, 844), true)?;
        within(PATIENCE, "it is dark", || Ok(browser.run(GROUND)? != light))?;
        ensure!(browser.run(OVERFLOW)?.as_i64() <= Some(0), "it is wider than a phone");
        let small = "return [...document.querySelectorAll('td, th, p, span')].filter(e => e.offsetParent && parseFloat(getComputedStyle(e).fontSize) < 12).length";
        ensure!(browser.run(small)? == 0, "something is too small to be read");
        if let Some(directory) = pictures() {
            browser.picture(&directory.join("page-phone.png"))?;
        }

        let filter = "const f = document.getElementById('filter'); f.value = 'udp/'; return 1";
        browser.run(filter)?;
        within(PATIENCE, "the filter is followed", || Ok(!seen()?.contains(&first)))?;
        director.stop()?;
        within(PATIENCE, "that nobody answers is told", || Ok(seen()?.contains("does not answer")))?;
        director.restart()?;
        within(PATIENCE, "it goes on by itself", || Ok(!seen()?.contains("does not answer")))
    })
}
