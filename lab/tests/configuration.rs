//! A file rules the director: at its start, at a reload under traffic, and back to what was before.

mod common;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use common::{counts, ensure_spread, eventually, hold, pins, ruled_by, spread, still_there, under_load};
use xlvs_lab::{Director, Lab, Layout, NameServer};

const ASK: u16 = 7000;

/// A lab whose director is ruled by a file with these services.
fn ruled(
    services: impl FnOnce(&Lab) -> String,
    test: impl FnOnce(&Lab, &mut Director, &Ruling) -> Result<()>,
) -> Result<()> {
    let lab = Lab::lay_out(Layout::TwoNetwork, 3)?;
    let ruling = Ruling { path: lab.directory().join("xlvs.toml") };
    ruling.say(&services(&lab))?;
    ruled_by(&lab, &ruling.path, |lab, director| test(lab, director, &ruling))
}

/// The file.
struct Ruling {
    path: PathBuf,
}

impl Ruling {
    fn say(&self, services: &str) -> Result<()> {
        std::fs::write(&self.path, format!("interfaces = [\"l0\", \"l1\"]\n{services}"))
            .context("write the file")
    }
}

/// A service that asks for names, with these servers.
fn asking(lab: &Lab, servers: &[(usize, u32)]) -> String {
    let vip = SocketAddr::new(lab.vip(0).into(), ASK);
    let mut text =
        format!("\n[[service]]\ntcp = \"{vip}\"\nscheduler = \"wrr\"\nmethod = \"nat\"\nservers = [\n");
    for (index, weight) in servers {
        let address = lab.servers[*index].address;
        text += &format!("    {{ address = \"{address}\", weight = {weight} }},\n");
    }
    text + "]\n"
}

fn run(director: &Director, line: &str) -> Result<String> {
    let reply = director.shell(line)?;
    ensure!(reply.code == Some(0), "{line}: {reply:?}");
    Ok(reply.out)
}

/// Traffic under the present state, for a while.
fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(500));
}

fn servers_listed(director: &Director) -> Result<usize> {
    Ok(counts(&director.must("-Ln")?).len())
}

#[test]
fn an_edited_file_is_followed_at_sighup_under_traffic_and_no_connection_is_disturbed() -> Result<()> {
    let two = |lab: &Lab| asking(lab, &[(0, 1), (1, 1)]);
    ruled(two, |lab, director, ruling| {
        let (two, three) = (two(lab), asking(lab, &[(0, 1), (1, 2), (2, 3)]));
        let _names = NameServer::on_all(lab, ASK)?;
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        let mut held = hold(lab, vip, 20)?;
        under_load(lab, vip, || {
            for (text, servers) in [(&three, 3), (&two, 2), (&three, 3), (&two, 2), (&three, 3)] {
                // A server that goes gets no new connections before, as an operator would have it.
                if servers == 2 {
                    ruling.say(&asking(lab, &[(0, 1), (1, 2), (2, 0)]))?;
                    director.hang_up()?;
                    eventually("its weight is 0", || Ok(director.must("-Ln")?.contains("Masq    0 ")))?;
                    pause();
                }
                ruling.say(text)?;
                director.hang_up()?;
                eventually("the file is followed", || Ok(servers_listed(director)? == servers))?;
                pause();
                still_there(&mut held)?;
            }
            Ok(())
        })?;
        let names = lab.client().ask_times(vip, 60)?;
        ensure_spread(&spread(&names), &[("rs1", 10), ("rs2", 20), ("rs3", 30)], 1)?;
        ruling.say("[[service]]\n")?;
        director.hang_up()?;
        eventually("the mistake is told", || Ok(director.log().contains("a service says where it is")))?;
        ensure!(servers_listed(director)? == 3, "a file with a mistake changed something");
        still_there(&mut held)
    })
}

#[test]
fn what_ipvsadm_changed_is_shown_and_a_reload_takes_it_back() -> Result<()> {
    ruled(
        |lab| asking(lab, &[(0, 1), (1, 1)]),
        |lab, director, _| {
            let (first, second) = (lab.servers[0].address, lab.servers[1].address);
            let vip = SocketAddr::new(lab.vip(0).into(), ASK);
            ensure!(run(director, "xlvs diff")? == "The director is what the file says.\n");
            ensure!(run(director, "xlvs reload")? == "There is nothing to change.\n");
            director.must(&format!("-e -t {vip} -r {first}:{ASK} -m -w 9"))?;
            director.must(&format!("-d -t {vip} -r {second}:{ASK}"))?;
            let shown = director.shell("xlvs diff")?;
            ensure!(shown.code == Some(1), "{shown:?}");
            for line in [
                format!("change server {first}:{ASK} of TCP {vip}: NAT, weight 1 -> NAT, weight 9"),
                format!("delete server {second}:{ASK} of TCP {vip}"),
            ] {
                ensure!(shown.out.contains(&line), "{line} is not in\n{}", shown.out);
            }
            let saved = run(director, "xlvs save | tee changed.toml")?;
            ensure!(run(director, "xlvs apply changed.toml")? == "There is nothing to change.\n");
            ensure!(run(director, "xlvs reload")?.ends_with("2 changes made.\n"));
            ensure!(run(director, "xlvs diff")? == "The director is what the file says.\n");
            // What ipvsadm had changed is a revision of its own: 1 the start, 2 by commands, 3 the reload.
            let history = run(director, "xlvs history")?;
            let by: Vec<_> = history.lines().filter_map(|line| line.rsplit("  ").next()).collect();
            ensure!(by.len() == 3 && by[1] == "commands" && by[2].starts_with("reload "), "{history}");
            ensure!(run(director, "xlvs rollback 2 --plan")?.ends_with("2 changes planned, none made.\n"));
            ensure!(run(director, "xlvs rollback 2")?.ends_with("2 changes made.\n"));
            ensure!(run(director, "xlvs save")? == saved, "a rollback restores");

            director.stop()?;
            director.restart()?;
            ensure!(
                run(director, "xlvs diff")? == "The director is what the file says.\n",
                "a start follows the file"
            );
            let after = run(director, "xlvs history")?;
            ensure!(after.starts_with(&history) && after.lines().count() == 5, "{after}");
            let none = director.shell("xlvs rollback 77")?;
            ensure!(
                none.code == Some(1) && none.err.contains("there is no revision 77; there are 1 to 5"),
                "{none:?}"
            );
            Ok(())
        },
    )
}

#[test]
fn interfaces_of_the_file_are_followed_and_one_that_is_not_there_changes_nothing() -> Result<()> {
    ruled(
        |_| String::new(),
        |lab, director, ruling| {
            let attached = || -> Result<(bool, bool)> {
                let links = director.shell("ip -o link")?.out;
                let has = |name: &str| {
                    links.lines().any(|l| l.contains(&format!(": {name}@")) && l.contains("xdp"))
                };
                Ok((has("l0"), has("l1")))
            };
            ensure!(attached()? == (true, true));
            let services = asking(lab, &[(0, 1)]);
            std::fs::write(&ruling.path, format!("interfaces = [\"l0\"]\n{services}"))?;
            let told = run(director, "xlvs reload")?;
            ensure!(told.contains("let go of l1") && attached()? == (true, false), "{told}");
            std::fs::write(&ruling.path, "interfaces = [\"l0\", \"l1\", \"l9\"]\n")?;
            let refused = director.shell("xlvs reload")?;
            ensure!(refused.code == Some(1) && refused.err.contains("nothing was changed"), "{refused:?}");
            ensure!(attached()? == (true, false) && servers_listed(director)? == 1, "something was changed");
            ensure!(run(director, "xlvs history")?.lines().count() == 1, "what failed is no revision");
            ruling.say(&services)?;
            run(director, "xlvs reload")?;
            ensure!(attached()? == (true, true));
            Ok(())
        },
    )
}

#[test]
fn a_first_start_with_a_file_that_is_refused_leaves_nothing_behind() -> Result<()> {
    let lab = Lab::lay_out(Layout::TwoNetwork, 1)?;
    let file = lab.directory().join("xlvs.toml");
    let services = "[[service]]\ntcp = \"10.0.0.100:80\"\n[[service]]\ntcp = \"10.0.0.100:81\"\n";
    std::fs::write(&file, format!("interfaces = [\"l0\"]\n[tables]\nmax_services = 1\n{services}"))?;
    let director = Director::prepare_on(&lab.director, &[], lab.directory(), &xlvs_lab::director::binary()?)?
        .with_options(&["--config", &file.to_string_lossy()]);
    let refused = director.refused(&[])?;
    let why = "cannot be what its file says: add service TCP 10.0.0.100:81: wlc: no room";
    ensure!(refused.code == Some(1) && refused.err.contains(why), "{refused:?}");
    ensure!(pins(&director.bpffs())?.is_empty(), "something is still pinned");
    eventually("the devices are free of XDP", || Ok(!director.shell("ip -o link")?.out.contains("xdp")))
}

/// So many services of ten servers each, besides one with traffic.
const SERVICES: u32 = 10_000;

fn many(lab: &Lab, weight: u32) -> String {
    let mut text = "\n[tables]\nmax_conns = 20000\nmax_services = 12000\nmax_servers = 120000\n".to_owned();
    for n in 0..SERVICES {
        let vip = std::net::Ipv4Addr::from(0x0b00_0000 + n);
        _ = write!(
            text,
            "\n[[service]]\ntcp = \"{vip}:80\"\nmethod = \"nat\"\nweight = {weight}\nservers = ["
        );
        for server in 0..10 {
            _ = write!(text, "\"{}:{}\", ", lab.servers[server % 3].address, 8000 + server);
        }
        text += "]\n";
    }
    text
}

#[test]
fn ten_thousand_services_with_ten_servers_each_are_reloaded_under_traffic() -> Result<()> {
    let with = |lab: &Lab, weight| many(lab, weight) + &asking(lab, &[(0, 1), (1, 1), (2, 1)]);
    ruled(
        |lab| with(lab, 1),
        |lab, director, ruling| {
            let (before, after) = (with(lab, 1), with(lab, 2));
            let _names = NameServer::on_all(lab, ASK)?;
            let vip = SocketAddr::new(lab.vip(0).into(), ASK);
            let mut held = hold(lab, vip, 20)?;
            under_load(lab, vip, || {
                for (text, what) in
                    [(&after, "100,000 weights change"), (&after, "nothing changes"), (&before, "and back")]
                {
                    ruling.say(text)?;
                    let began = Instant::now();
                    let told = run(director, "xlvs reload | tail -n 1")?;
                    println!(
                        "reload of {SERVICES} services with 10 servers each, {what}: {:?}",
                        began.elapsed()
                    );
                    let expected =
                        if what.starts_with("nothing") { "There is nothing" } else { "100000 changes made" };
                    ensure!(told.starts_with(expected), "{told}");
                }
                Ok(())
            })?;
            still_there(&mut held)
        },
    )
}
