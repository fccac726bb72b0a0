//! What cannot work ends with a clear sentence and a non-zero exit, and nothing half-applied.

mod common;

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use common::{Method, all, eventually, pins, serve, with_director};
use xlvs_lab::{Director, Lab, Layout, NameServer, Reply};

const ASK: u16 = 7000;

#[test]
fn not_root_is_refused() -> Result<()> {
    let lab = Lab::two_network(0)?;
    let director = prepared(&lab)?;
    says(&director.refused_to_nobody()?, &["root"])
}

#[test]
fn an_interface_that_does_not_exist_is_named() -> Result<()> {
    let lab = Lab::two_network(0)?;
    let director = prepared(&lab)?;
    says(&director.refused(&["l0", "eth9"])?, &["eth9"])?;
    is_untouched(&lab, &["l0", "l1"])
}

#[test]
fn an_interface_with_another_xdp_program_is_left_alone() -> Result<()> {
    let mut lab = Lab::two_network(0)?;
    lab.occupy("l1")?;
    let director = prepared(&lab)?;
    says(&director.refused(&["l0", "l1"])?, &["l1", "XDP"])?;
    ensure!(has_xdp(&lab, "l1")?, "the other program is gone");
    is_untouched(&lab, &["l0"])
}

#[test]
fn an_interface_that_vanishes_does_not_end_the_daemon() -> Result<()> {
    with_director(Layout::TwoNetwork, 1, |lab, director| {
        lab.director.ip(&["link del l1"])?;
        eventually("the daemon says that l1 is gone", || Ok(director.log().contains("l1")))?;
        director.must("-Ln")?;
        lab.client().ping(lab.layout().director().into())
    })
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() -> Result<()> {
    with_director(Layout::TwoNetwork, 1, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        serve(lab, director, ("-t", vip), "rr", &all(lab, Method::Nat))?;
        says(&director.refused(&["l0", "l1"])?, &["run"])?;
        ensure!(lab.client().ask(vip)? == "rs1");
        director.must("-Ln").map(drop)
    })
}

#[test]
fn a_bpffs_that_is_not_mounted_is_mounted() -> Result<()> {
    let lab = Lab::two_network(0)?;
    let mut director = prepared(&lab)?;
    nix::mount::umount(&director.bpffs())?;
    director.restart()?;
    let kind = nix::sys::statfs::statfs(&director.bpffs())?.filesystem_type();
    ensure!(kind == nix::sys::statfs::BPF_FS_MAGIC, "no bpffs at {}", director.bpffs().display());
    Ok(())
}

#[test]
fn half_made_pins_are_refused_and_unload_removes_them() -> Result<()> {
    let lab = Lab::two_network(0)?;
    let mut director = prepared(&lab)?;
    director.restart()?;
    director.kill9()?;
    let lost = pins(&director.bpffs())?.pop().context("nothing is pinned")?;
    std::fs::remove_file(&lost)?;
    let reply = director.refused(&["l0", "l1"])?;
    says(&reply, &["unload"])?;
    ensure!(director.unload()?.code == Some(0), "xlvs unload fails on half-made pins");
    director.restart()
}

#[test]
fn a_state_file_of_another_version_or_damaged_is_refused_and_unload_removes_it() -> Result<()> {
    let lab = Lab::two_network(0)?;
    let mut director = prepared(&lab)?;
    director.restart()?;
    // A last line that is damaged is one that was never finished; the first of two is not.
    director.must("-A -t 192.0.2.9:80")?;
    director.must("-A -t 192.0.2.9:81")?;
    director.kill9()?;
    let path = director.run_dir().join("state.jsonl");
    let state = std::fs::read_to_string(&path)?;
    let (head, rest) = state.split_once('\n').context("a state file of one line")?;
    let mut other: serde_json::Value = serde_json::from_str(head)?;
    other["abi"] = 1.into();
    let damaged = state.replacen("192", "!", 1);
    for (content, words) in [(format!("{other}\n{rest}"), "another version"), (damaged, "damaged at line 3")]
    {
        std::fs::write(&path, content)?;
        says(&director.refused(&["l0", "l1"])?, &[words, "xlvs unload"])?;
        ensure!(std::fs::exists(&path)?, "the refused state file is gone");
    }
    std::fs::write(&path, &state)?;
    director.restart()?;
    ensure!(director.must("-Ln")?.contains("192.0.2.9:80"), "the service did not come back");
    director.stop()?;
    std::fs::write(&path, "nonsense\n")?;
    says(&director.refused(&["l0", "l1"])?, &["damaged at line 1", "xlvs unload"])?;
    ensure!(director.unload()?.code == Some(0), "xlvs unload fails on a damaged state file");
    director.restart()
}

#[test]
fn commands_without_a_daemon_say_so() -> Result<()> {
    let lab = Lab::two_network(0)?;
    let director = prepared(&lab)?;
    says(&director.ipvsadm(&["-Ln"])?, &["is `xlvs run` running?"])?;
    says(&director.ipvsadm(&["-A", "-t", "10.0.0.100:80"])?, &["is `xlvs run` running?"])?;
    says(&director.command("check", &[])?, &["is `xlvs run` running?"])
}

fn prepared(lab: &Lab) -> Result<Director<'_>> {
    Director::prepare(lab, &xlvs_lab::director::binary()?)
}

/// A refusal: a non-zero exit, and a sentence with these words that is not a panic.
fn says(reply: &Reply, words: &[&str]) -> Result<()> {
    ensure!(reply.code.is_some_and(|code| code != 0), "it ended with {:?}: {}", reply.code, reply.err);
    for word in words {
        ensure!(reply.err.contains(word), "no word of {word:?} in: {}", reply.err);
    }
    ensure!(
        !reply.err.contains("panicked") && !reply.err.contains("RUST_BACKTRACE"),
        "a panic: {}",
        reply.err
    );
    Ok(())
}

fn is_untouched(lab: &Lab, devices: &[&str]) -> Result<()> {
    for device in devices {
        ensure!(!has_xdp(lab, device)?, "{device} was left with an XDP program");
    }
    ensure!(pins(&lab.directory().join("bpf"))?.is_empty(), "pins were left behind");
    Ok(())
}

fn has_xdp(lab: &Lab, device: &str) -> Result<bool> {
    let link = lab.director.output(Command::new("ip").args(["link", "show", device]))?;
    Ok(String::from_utf8_lossy(&link.stdout).contains("xdp"))
}
