//! Closed loops: servers break and mend, and the director follows.

mod common;

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use common::{counts, eventually, hold, ruled_by, spread, still_there};
use xlvs_lab::{Director, HttpServer, Lab, Layout, NameServer};

const ASK: u16 = 7000;
const HTTP: u16 = 80;
/// Of the checks.
const INTERVAL: Duration = Duration::from_millis(500);
const FALL: u32 = 2;

/// A lab whose director is ruled by a file with one service of names, checked over HTTP, with these words more.
/// What answers the checks stands before the first is made.
fn watched(
    more: impl FnOnce(&Lab) -> String,
    test: impl FnOnce(&Lab, &mut Director, SocketAddr, &mut Vec<HttpServer>) -> Result<()>,
) -> Result<()> {
    let lab = Lab::lay_out(Layout::TwoNetwork, 3)?;
    let _names = NameServer::on_all(&lab, ASK)?;
    let mut files = HttpServer::on_all(&lab, HTTP)?;
    let file = lab.directory().join("xlvs.toml");
    write(&lab, &file, &more(&lab))?;
    let vip = SocketAddr::new(lab.vip(0).into(), ASK);
    ruled_by(&lab, &file, |lab, director| test(lab, director, vip, &mut files))
}

fn write(lab: &Lab, file: &Path, more: &str) -> Result<()> {
    let vip = SocketAddr::new(lab.vip(0).into(), ASK);
    let servers: Vec<String> = lab.servers.iter().map(|server| format!("\"{}\"", server.address)).collect();
    let text = format!(
        "interfaces = [\"l0\", \"l1\"]\n[[service]]\ntcp = \"{vip}\"\nscheduler = \"rr\"\nmethod = \"nat\"\n\
         servers = [{}]\n\
         check = {{ type = \"http\", port = {HTTP}, body = \"rs\", interval = \"{}ms\", timeout = \"{}ms\", rise = 2, fall = {FALL} }}\n\
         {more}",
        servers.join(", "),
        INTERVAL.as_millis(),
        INTERVAL.as_millis() / 2,
    );
    std::fs::write(file, text).context("write the file")
}

fn run(director: &Director, line: &str) -> Result<String> {
    let reply = director.shell(line)?;
    ensure!(reply.code == Some(0), "{line}: {reply:?}");
    Ok(reply.out)
}

/// Servers of the listing that may get new connections.
fn serving(director: &Director) -> Result<Vec<String>> {
    let listing = director.must("-Ln")?;
    let lines = listing.lines().filter_map(|line| line.trim_start().strip_prefix("-> "));
    let words = lines.filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [address, _, weight, _, _] = words[..] else { return None };
        (weight.parse::<u32>().ok()? != 0).then(|| address.to_owned())
    });
    let mut serving: Vec<String> = words.collect();
    serving.sort();
    Ok(serving)
}

fn at(lab: &Lab, indices: &[usize]) -> Vec<String> {
    indices.iter().map(|index| format!("{}:{ASK}", lab.servers[*index].address)).collect()
}

/// Who answers new connections.
fn answering(lab: &Lab, vip: SocketAddr) -> Result<Vec<String>> {
    Ok(spread(&lab.client().ask_times(vip, 30)?).into_keys().collect())
}

#[test]
fn a_server_that_breaks_gets_no_new_connection_and_comes_back() -> Result<()> {
    let notify = |lab: &Lab| {
        let command = format!("echo \"$XLVS_SERVER $XLVS_STATE\" >> {}/notices", lab.directory().display());
        format!("notify_down = '{command}'\nnotify_up = '{command}'\n")
    };
    watched(notify, |lab, director, vip, files| {
        eventually("all are up", || Ok(serving(director)? == at(lab, &[0, 1, 2])))?;
        eventually("all are known", || Ok(run(director, "xlvs servers")?.matches(", up").count() == 3))?;
        let mut held = hold(lab, vip, 9)?;

        drop(files.remove(1));
        let broke = Instant::now();
        eventually("it is out", || Ok(serving(director)? == at(lab, &[0, 2])))?;
        println!("out after {:?}; interval × fall is {:?}", broke.elapsed(), INTERVAL * FALL);
        ensure!(answering(lab, vip)? == ["rs1", "rs3"]);
        let shown = run(director, "xlvs servers")?;
        ensure!(
            shown.contains("out, weight 1 when back, down: a check failed: connection refused"),
            "{shown}"
        );
        ensure!(
            run(director, "xlvs diff")? == "The director is what the file says.\n",
            "a failure is no difference"
        );
        ensure!(run(director, "xlvs reload")? == "There is nothing to change.\n");

        files.push(HttpServer::start(&lab.servers[1].netns, "rs2", HTTP)?);
        eventually("it is back", || Ok(serving(director)? == at(lab, &[0, 1, 2])))?;
        ensure!(answering(lab, vip)? == ["rs1", "rs2", "rs3"]);
        let second = lab.servers[1].address;
        let told = format!("{second}:{ASK} down\n{second}:{ASK} up\n");
        let notices = lab.directory().join("notices");
        eventually("both were told", || Ok(std::fs::read_to_string(&notices)? == told))?;
        still_there(&mut held)
    })
}

#[test]
fn all_down_calls_the_sorry_server_and_one_back_sends_it_home() -> Result<()> {
    let lab = Lab::lay_out(Layout::TwoNetwork, 3)?;
    let sorry = lab.servers[2].address;
    let file = lab.directory().join("xlvs.toml");
    write(&lab, &file, "")?;
    let text = std::fs::read_to_string(&file)?;
    let two = text.replace(&format!(", \"{sorry}\"]"), &format!("]\nsorry = \"{sorry}\""));
    ensure!(two != text, "the third server is the sorry one: {two}");
    std::fs::write(&file, two)?;
    let vip = SocketAddr::new(lab.vip(0).into(), ASK);
    ruled_by(&lab, &file, |lab, director| {
        let _names = NameServer::on_all(lab, ASK)?;
        let mut files = HttpServer::on_all(lab, HTTP)?;
        eventually("both are up", || Ok(run(director, "xlvs servers")?.matches(", up").count() == 2))?;
        let before = run(director, "xlvs save")?;
        drop(files.split_off(0));
        eventually("the sorry server serves", || Ok(serving(director)? == at(lab, &[2])))?;
        ensure!(answering(lab, vip)? == ["rs3"]);
        ensure!(run(director, "xlvs save")? == before, "what is stated is not what is in force");
        director.kill9()?;
        director.restart()?;
        ensure!(serving(director)? == at(lab, &[2]), "the next daemon knows");
        files.push(HttpServer::start(&lab.servers[0].netns, "rs1", HTTP)?);
        eventually("one is back", || Ok(serving(director)? == at(lab, &[0])))?;
        ensure!(answering(lab, vip)? == ["rs1"]);
        Ok(())
    })
}

#[test]
fn with_inhibit_connections_of_a_failed_server_go_on() -> Result<()> {
    watched(
        |_| "inhibit_on_failure = true\n".to_owned(),
        |lab, director, vip, files| {
            eventually("all are known", || Ok(run(director, "xlvs servers")?.matches(", up").count() == 3))?;
            let mut held = hold(lab, vip, 9)?;
            drop(files.remove(0));
            eventually("it gets nothing new", || Ok(serving(director)? == at(lab, &[1, 2])))?;
            ensure!(counts(&director.must("-Ln")?).len() == 3, "it is still there");
            ensure!(answering(lab, vip)? == ["rs2", "rs3"]);
            still_there(&mut held)
        },
    )
}

#[test]
fn with_reset_a_client_that_waits_is_told_that_its_server_failed() -> Result<()> {
    watched(
        |_| "on_failure = \"reset\"\n".to_owned(),
        |lab, director, vip, files| {
            eventually("all are known", || Ok(run(director, "xlvs servers")?.matches(", up").count() == 3))?;
            let held = hold(lab, vip, 9)?;
            drop(files.remove(1));
            eventually("it is out", || Ok(serving(director)? == at(lab, &[0, 2])))?;
            let (of_failed, mut others): (Vec<_>, Vec<_>) =
                held.into_iter().partition(|(_, name)| name == "rs2");
            ensure!(of_failed.len() == 3, "{} connections were its", of_failed.len());
            for (mut stream, _) in of_failed {
                // It says nothing, as one that waits for an answer.
                stream.set_read_timeout(Some(Duration::from_secs(10)))?;
                let heard = stream.read(&mut [0]);
                ensure!(
                    heard.as_ref().is_err_and(|why| why.kind() == ErrorKind::ConnectionReset),
                    "a client of the failed server heard {heard:?}"
                );
            }
            let left = director.must("-Lnc")?;
            let failed = format!("{}:{ASK}", lab.servers[1].address);
            ensure!(!left.contains(&failed), "its connections are still there:\n{left}");
            still_there(&mut others)
        },
    )
}

#[test]
fn a_server_that_flaps_is_held_out_until_an_operator_lets_it_go() -> Result<()> {
    watched(
        |_| "damping = \"5m\"\n".to_owned(),
        |lab, director, vip, files| {
            let up = || Ok(run(director, "xlvs servers")?.matches(", up").count() == 3);
            eventually("all are known", up)?;
            for flap in 1..=3 {
                drop(files.remove(1));
                eventually("it is out", || Ok(serving(director)? == at(lab, &[0, 2])))?;
                files.insert(1, HttpServer::start(&lab.servers[1].netns, "rs2", HTTP)?);
                eventually("its checks succeed", up)?;
                if flap < 3 {
                    eventually("it is back", || Ok(serving(director)? == at(lab, &[0, 1, 2])))?;
                }
            }
            ensure!(serving(director)? == at(lab, &[0, 2]), "it is back though it flaps");
            ensure!(answering(lab, vip)? == ["rs1", "rs3"]);
            let shown = run(director, "xlvs servers")?;
            let words = "out, weight 1 when back, up: it fails too often and is held out: for ";
            ensure!(shown.contains(words), "{shown}");
            let told = run(director, "xlvs watch --no-follow")?;
            ensure!(told.contains("stays out: it fails too often and is held out: for "), "{told}");
            run(director, &format!("xlvs server enable {vip} {}", lab.servers[1].address))?;
            eventually("it is back", || Ok(serving(director)? == at(lab, &[0, 1, 2])))?;
            ensure!(answering(lab, vip)? == ["rs1", "rs2", "rs3"]);
            Ok(())
        },
    )
}

#[test]
fn the_operators_word_wins_and_survives_a_restart_of_the_daemon() -> Result<()> {
    watched(
        |_| String::new(),
        |lab, director, vip, _| {
            eventually("all are known", || Ok(run(director, "xlvs servers")?.matches(", up").count() == 3))?;
            let [first, second] = [0, 1].map(|index| lab.servers[index].address);
            let mut held = hold(lab, vip, 9)?;
            run(director, &format!("xlvs server drain {vip} {first}"))?;
            eventually("it is drained", || Ok(serving(director)? == at(lab, &[1, 2])))?;
            still_there(&mut held)?;
            run(director, &format!("xlvs server disable {vip} {second}"))?;
            eventually("it is out", || Ok(serving(director)? == at(lab, &[2])))?;
            director.kill9()?;
            director.restart()?;
            ensure!(serving(director)? == at(lab, &[2]), "the next daemon knows");
            let shown = run(director, "xlvs servers")?;
            for words in ["weight 0 of 1, up: drained by an operator", "up: disabled by an operator"] {
                ensure!(shown.contains(words), "{words} is not in\n{shown}");
            }
            for server in [first, second] {
                run(director, &format!("xlvs server enable {vip} {server}"))?;
            }
            eventually("all serve", || Ok(serving(director)? == at(lab, &[0, 1, 2])))?;
            let none = director.shell(&format!("xlvs server enable {vip} 10.1.0.99"))?;
            ensure!(none.code == Some(1) && none.err.contains("has no server 10.1.0.99"), "{none:?}");
            Ok(())
        },
    )
}

/// The director's daemon, in clock ticks of its own (a hundredth of a second each).
fn ticks(director: &Director) -> Result<u64> {
    let pid = director.pid().context("the daemon runs")?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

#[test]
fn five_thousand_checks_a_second_are_made_and_none_is_late() -> Result<()> {
    let lab = Lab::lay_out(Layout::TwoNetwork, 3)?;
    let _names = NameServer::on_all(&lab, ASK)?;
    let mut text = format!(
        "interfaces = [\"l0\", \"l1\"]\n[defaults]\nmethod = \"nat\"\n\
         check = {{ type = \"tcp\", port = {ASK}, interval = 1, timeout = 5 }}\n"
    );
    for service in 0..500 {
        let servers: Vec<String> =
            (0..10).map(|n| format!("\"{}:{}\"", lab.servers[n % 3].address, 8000 + n)).collect();
        let vip = std::net::Ipv4Addr::from(0x0b00_0000 + service);
        text += &format!("[[service]]\ntcp = \"{vip}:80\"\nservers = [{}]\n", servers.join(", "));
    }
    let file = lab.directory().join("xlvs.toml");
    std::fs::write(&file, text)?;
    ruled_by(&lab, &file, |_, director| {
        std::thread::sleep(Duration::from_secs(2));
        let (began, before) = (Instant::now(), ticks(director)?);
        std::thread::sleep(Duration::from_secs(4));
        let (passed, used) = (began.elapsed(), ticks(director)? - before);
        println!(
            "5000 checks a second take {} % of a processor",
            used * 100 / (passed.as_millis() as u64 / 10)
        );
        let shown = run(director, "xlvs servers | grep -c ', up$'")?;
        ensure!(shown.trim() == "5000", "{} servers are up", shown.trim());
        Ok(())
    })
}

#[test]
fn with_alpha_nothing_is_sent_to_a_server_before_its_first_check() -> Result<()> {
    let lab = Lab::lay_out(Layout::TwoNetwork, 3)?;
    let _names = NameServer::on_all(&lab, ASK)?;
    let file = lab.directory().join("xlvs.toml");
    write(&lab, &file, "alpha = true\n")?;
    ruled_by(&lab, &file, |lab, director| {
        ensure!(serving(director)?.is_empty());
        std::thread::sleep(INTERVAL * 3);
        ensure!(serving(director)?.is_empty(), "nobody answers the checks");
        let _file = HttpServer::start(&lab.servers[2].netns, "rs3", HTTP)?;
        eventually("it serves", || Ok(serving(director)? == at(lab, &[2])))?;
        ensure!(answering(lab, SocketAddr::new(lab.vip(0).into(), ASK))? == ["rs3"]);
        Ok(())
    })
}
