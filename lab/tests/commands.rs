//! The commands with a daemon behind them: rules saved and restored, files applied, scripts as administrators have them.

mod common;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use common::{ensure_spread, spread, with_director};
use serde_json::Value;
use xlvs_lab::{Director, Lab, Layout, NameServer, Reply};

const ASK: u16 = 7000;

// ---------------------------------------------------------------------------------------------------- many services

const SERVICES: u32 = 10_000;
const SERVERS: u32 = 10;

#[test]
fn ten_thousand_services_are_restored_and_saved_as_they_were() -> Result<()> {
    let lab = Lab::two_network(1)?;
    let room = ["--max-conns", "10000", "--max-servers", "131072"];
    let mut director = Director::prepare(&lab, &xlvs_lab::director::binary()?)?.with_options(&room);
    director.restart()?;
    let mut rules = String::new();
    for service in 0..SERVICES {
        let vip = vip(service);
        writeln!(rules, "-A -t {vip}:80 -s wlc")?;
        for server in 0..SERVERS {
            writeln!(rules, "-a -t {vip}:80 -r {}:80 -m -w {}", rip(service, server), server % 4 + 1)?;
        }
    }
    std::fs::write(lab.directory().join("rules"), &rules)?;
    timed("restore", || run(&director, "ipvsadm -R < rules"))?;
    let saved = timed("save", || run(&director, "ipvsadm-save -n"))?;
    ensure!(sorted(&saved) == sorted(&rules), "what was saved is not what was restored");
    timed("change a weight", || {
        let (vip, rip) = (vip(SERVICES / 2), rip(SERVICES / 2, 3));
        director.must(&format!("-e -t {vip}:80 -r {rip}:80 -m -w 77")).map(drop)
    })?;
    let changed = run(&director, "ipvsadm-save -n")?;
    let differing = changed.lines().zip(saved.lines()).filter(|(now, before)| now != before).count();
    ensure!(differing == 1, "{differing} lines changed with one weight");
    Ok(())
}

fn vip(service: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a40_0001 + service)
}

fn rip(service: u32, server: u32) -> Ipv4Addr {
    Ipv4Addr::from(0xac10_0001 + service * SERVERS + server)
}

/// How long something took, for who reads the output; nothing depends on it.
fn timed<T>(what: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    let outcome = act()?;
    println!("{what}: {:?}", began.elapsed());
    Ok(outcome)
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

// --------------------------------------------------------------------------------------------------- save and restore

#[test]
fn the_recorded_rack_comes_back_as_it_was_saved() -> Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/oracle/listing.json");
    let recording: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let commands = recording["commands"].as_array().context("commands are recorded")?;
    let saved = commands.iter().find(|c| c["cmd"] == "ipvsadm -Sn" && c["out"] != "");
    let saved = saved.and_then(|c| c["out"].as_str()).context("the rack was saved")?;
    with_director(Layout::TwoNetwork, 1, |_lab, director| {
        let mut kept = String::new();
        for line in saved.lines() {
            let reply = director.ipvsadm(&line.split(' ').collect::<Vec<_>>())?;
            // What the data plane cannot do is refused with a sentence, and then its servers have no service.
            let cannot = reply.err.trim_end().ends_with("yet.") || reply.err.contains("Service not defined");
            ensure!(reply.code == Some(0) || cannot, "{line}: {reply:?}");
            if reply.code == Some(0) {
                writeln!(kept, "{line}")?;
            }
        }
        ensure!(kept.lines().count() >= 4, "only this was taken:\n{kept}");
        ensure!(director.must("-Sn")? == kept, "saved otherwise than recorded:\n{}", director.must("-Sn")?);
        let after =
            run(director, "ipvsadm-save -n > saved; ipvsadm -C; ipvsadm-restore < saved; ipvsadm -Sn")?;
        ensure!(after == kept, "after save and restore:\n{after}");
        Ok(())
    })
}

#[test]
fn save_forgets_nothing_and_apply_makes_it_again() -> Result<()> {
    with_director(Layout::TwoNetwork, 1, |_lab, director| {
        director.must("--set 100 20 30")?;
        director.must("-A -t 10.0.0.100:80 -s sh -b sh-port")?;
        director.must("-a -t 10.0.0.100:80 -r 10.1.0.12:80 -m -w 2 -x 100 -y 50")?;
        director.must("-a -t 10.0.0.100:80 -r 10.1.0.11:80 -i")?;
        let saved = run(director, "xlvs save | tee all")?;
        ensure!(
            ["tcp = 100", "upper = 100, lower = 50"].iter().all(|words| saved.contains(words)),
            "{saved}"
        );
        let rules = run(director, "xlvs save --rules | tee rules")?;
        ensure!(["--set 100 20 30", "-x 100 -y 50"].iter().all(|words| rules.contains(words)), "{rules}");
        let listing = director.must("-Ln --nosort")?;
        for file in ["all", "rules"] {
            ensure!(run(director, &format!("xlvs apply {file}"))?.ends_with("There is nothing to change.\n"));
        }

        director.must("-C")?;
        director.must("--set 900 120 300")?;
        let plan = run(director, "xlvs apply all --plan")?;
        ensure!(
            plan.contains("add service TCP 10.0.0.100:80") && plan.ends_with("planned, none made.\n"),
            "{plan}"
        );
        ensure!(!director.must("-Ln")?.contains("10.0.0.100"), "a plan changed something");
        for file in ["all", "rules"] {
            run(director, &format!("xlvs apply {file}"))?;
            ensure!(
                run(director, "xlvs save")? == saved && director.must("-Ln --nosort")? == listing,
                "{file}"
            );
            director.must("-C")?;
        }
        Ok(())
    })
}

#[test]
fn a_file_is_applied_as_a_whole_or_not_at_all() -> Result<()> {
    with_director(Layout::TwoNetwork, 1, |lab, director| {
        director.must("-A -t 10.0.0.100:80 -s rr")?;
        let before = run(director, "xlvs save")?;
        for (mistake, named) in [
            ("-A -t 10.0.0.102:80 -s xyz", "line 2: Scheduler"),
            ("-a -t 10.0.0.103:80 -r 10.1.0.11", "line 2: "),
        ] {
            std::fs::write(lab.directory().join("bad"), format!("-A -t 10.0.0.101:80 -s rr\n{mistake}\n"))?;
            let reply = director.shell("xlvs apply bad")?;
            ensure!(reply.code == Some(1) && reply.err.contains("nothing was changed"), "{reply:?}");
            ensure!(reply.err.contains(named), "the mistake is not named: {reply:?}");
            ensure!(run(director, "xlvs save")? == before, "something was changed");
        }
        std::fs::write(lab.directory().join("good"), "-A -t 10.0.0.101:80 -s rr\n")?;
        let said = run(director, "xlvs apply good")?;
        ensure!(said.contains("delete service TCP 10.0.0.100:80"), "{said}");
        ensure!(director.must("-Sn")? == "-A -t 10.0.0.101:80 -s rr\n");
        Ok(())
    })
}

#[test]
fn the_overview_is_for_people_and_for_programs() -> Result<()> {
    with_director(Layout::TwoNetwork, 1, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        director.must(&format!("-A -t {vip} -s rr"))?;
        director.must(&format!("-a -t {vip} -r {} -m", lab.servers[0].address))?;
        ensure!(lab.client().ask(vip)? == "rs1");
        let json = |command: &str| -> Result<Value> { Ok(serde_json::from_str(&run(director, command)?)?) };
        let status = json("xlvs status --json")?;
        ensure!(status["connections"]["inactive"] == 1 && status["services"]["used"] == 1, "{status:#}");
        ensure!(status["forwarded"].as_u64().is_some_and(|packets| packets >= 8), "{status:#}");
        ensure!(status["timeouts"]["udp"] == 300, "{status:#}");
        ensure!(json("xlvs services --json")?[0]["servers"][0]["inactive"] == 1);
        ensure!(json("xlvs connections --json")?[0]["virt"] == vip.to_string());
        run(director, "xlvs tune drop_entry=2; xlvs mark add 7 --port 80")?;
        let tunables = json("xlvs tune --json")?;
        let tunable = tunables.as_array().and_then(|all| all.iter().find(|one| one["name"] == "drop_entry"));
        ensure!(tunable.is_some_and(|one| one["value"] == 2 && one["default"] == 0), "{tunables:#}");
        ensure!(json("xlvs tune --json amemthresh")?[0]["value"] == 1024);
        ensure!(json("xlvs mark list --json")?[0]["mark"] == 7);
        let status = run(director, "xlvs status")?;
        for words in
            ["l0 native, l1 native", &format!("TCP {vip}  rr: 1 of 1 servers in use, 0 active, 1 inactive")]
        {
            ensure!(status.contains(words), "{words:?} is not in\n{status}");
        }
        // Colour is for terminals.
        ensure!(!status.contains('\x1b'), "{status}");
        let on_terminal = run(director, "script -qec 'xlvs status' /dev/null </dev/null")?;
        ensure!(on_terminal.contains('\x1b'), "{on_terminal}");
        ensure!(run(director, "xlvs connections")?.contains(&format!("-> {vip} -> ")));
        Ok(())
    })
}

// ------------------------------------------------------------------------------------------------ how-to documents

/// A VIP that the lab has not set up.
const VIP: &str = "10.0.0.200";

#[test]
fn the_how_to_of_direct_routing_works_as_it_stands() -> Result<()> {
    how_to("-g", "ip addr add $VIP/32 dev l0 label l0:110", true)
}

#[test]
fn the_how_to_of_nat_works_as_it_stands() -> Result<()> {
    how_to("-m", "echo 1 > /proc/sys/net/ipv4/ip_forward\nip addr add $VIP/24 dev l0", false)
}

#[test]
fn the_how_to_of_tunnels_works_as_it_stands() -> Result<()> {
    how_to("-i", "ip addr add $VIP/32 dev l0", true)
}

/// The director's script from the LVS documents; only addresses, port and interface are this lab's.
fn how_to(method: &str, director_address: &str, vip_on_servers: bool) -> Result<()> {
    with_director(Layout::TwoNetwork, 3, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        if vip_on_servers {
            for server in &lab.servers {
                server.must(&format!("up --mode dr,tun --vip {VIP}"))?;
            }
        }
        let script = format!(
            "#!/bin/sh
             VIP={VIP}
             RIP1={} RIP2={} RIP3={}
             {director_address}
             ipvsadm -C
             ipvsadm -A -t $VIP:{ASK} -s wlc
             ipvsadm -a -t $VIP:{ASK} -r $RIP1 {method}
             ipvsadm -a -t $VIP:{ASK} -r $RIP2 {method}
             ipvsadm -a -t $VIP:{ASK} -r $RIP3 {method}
             ipvsadm-save > ipvsadm.rules
             ipvsadm",
            lab.servers[0].address, lab.servers[1].address, lab.servers[2].address,
        );
        let listing = run(director, &script)?;
        ensure!(listing.lines().count() == 7, "{listing}");
        let vip = SocketAddr::new(VIP.parse()?, ASK);
        let all = [("rs1", 3), ("rs2", 3), ("rs3", 3)];
        ensure_spread(&spread(&lab.client().ask_times(vip, 9)?), &all, 0)?;
        let again = run(director, "ipvsadm --clear\nipvsadm-restore < ipvsadm.rules\nipvsadm -L -n")?;
        ensure!(again.contains(&format!("TCP  {vip} wlc")), "{again}");
        lab.client().ask_times(vip, 9).map(drop)
    })
}

// ------------------------------------------------------------------------------------------------------------ helpers

/// Runs a script that must go well; what it printed.
fn run(director: &Director, script: &str) -> Result<String> {
    let Reply { code, out, err } = director.shell(script)?;
    ensure!(code == Some(0) && err.is_empty(), "{script}: {code:?}\n{err}");
    Ok(out)
}
