//! `xlvs drain`: takes a server out of service without ending a connection.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use xlvs_model::view::{ServerView, ServiceView};
use xlvs_model::{Change, ServerSpec, ServiceKey};

use crate::client::Client;
use crate::named;
use crate::paths::Paths;
use crate::plan;
use crate::protocol::{Answer, Request};

/// Which server, and how long to wait.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The service: 192.0.2.10:80, tcp/192.0.2.10:80 or mark/1.
    service: String,
    /// The server: 10.0.0.11:8080 or 10.0.0.11.
    server: String,
    /// Stop waiting after so long: seconds, or with s, m or h. The server stays at weight 0 all the same.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    deadline: Option<Duration>,
    /// The director's places.
    #[command(flatten)]
    paths: Paths,
}

/// Looks so often.
const EVERY: Duration = Duration::from_millis(500);
/// Tells so often where nobody watches.
const TELL_EVERY: u32 = 20;

/// Sets the weight to 0, and waits until the server's last connection has ended. Exit code 1: the deadline came first.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut client = Client::connected(&options.paths)?;
    let (service, server) = find(&mut client, options)?;
    let name = format!("{} of {}", plan::server(&server.spec.key), plan::service(&service));
    if server.spec.weight != 0 {
        quiesce(&mut client, service, server.spec)?;
        println!("{name}: weight {} -> 0; it gets no new connections", server.spec.weight);
    }
    wait(&mut client, options, &name)
}

fn quiesce(client: &mut Client, service: ServiceKey, spec: ServerSpec) -> anyhow::Result<()> {
    let quiesced = ServerSpec { weight: 0, ..spec };
    match client.ask(&Request::Apply(vec![Change::EditServer(service, quiesced)]))? {
        Answer::Done => Ok(()),
        Answer::Refused(_, why) => bail!("the server's weight cannot be set to 0: {why}"),
        other => Err(other.unexpected().into()),
    }
}

fn wait(client: &mut Client, options: &Options, name: &str) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    for look in 0.. {
        let (_, server) = find(client, options)?;
        if server.spec.weight != 0 {
            bail!("{name} was given weight {} meanwhile; it is not drained any more", server.spec.weight);
        }
        if is_empty(&server) {
            end_line();
            println!("{name} is empty after {} s", began.elapsed().as_secs());
            return Ok(ExitCode::SUCCESS);
        }
        tell(&server, look);
        if options.deadline.is_some_and(|deadline| began.elapsed() >= deadline) {
            end_line();
            println!("{name} still has {}; it stays at weight 0", held(&server));
            return Ok(ExitCode::FAILURE);
        }
        thread::sleep(EVERY);
    }
    unreachable!("the loop has no end")
}

fn find(client: &mut Client, options: &Options) -> anyhow::Result<(ServiceKey, ServerView)> {
    let services = match client.ask(&Request::Services(None))? {
        Answer::Services(services) => services,
        other => return Err(other.unexpected().into()),
    };
    let service: &ServiceView = named::service(&options.service, &services)?;
    Ok((service.spec.key, named::server(&options.server, service)?.clone()))
}

fn is_empty(server: &ServerView) -> bool {
    server.active == 0 && server.inactive == 0 && server.persistent == 0
}

fn held(server: &ServerView) -> String {
    let ServerView { active, inactive, persistent, .. } = server;
    let mut text = format!("{active} active and {inactive} inactive connections");
    if *persistent != 0 {
        text += &format!(
            ", and {persistent} clients who are to come back to it (expire_quiescent_template=1 sends them elsewhere)"
        );
    }
    text
}

/// On a terminal one line that changes; else a line now and then.
fn tell(server: &ServerView, look: u32) {
    if io::stdout().is_terminal() {
        print!("\r\x1b[K{}", held(server));
        // Who cannot be shown progress is told the end.
        let _shown = io::stdout().flush();
    } else if look.is_multiple_of(TELL_EVERY) {
        println!("{}", held(server));
    }
}

fn end_line() {
    if io::stdout().is_terminal() {
        print!("\r\x1b[K");
    }
}

/// `90`, `90s`, `15m`, `2h`.
pub fn duration(text: &str) -> anyhow::Result<Duration> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => bail!("a time is a number of seconds, or ends in s, m or h"),
    };
    let number: u64 = number.parse().context("a time begins with a number")?;
    Ok(Duration::from_secs(number.saturating_mul(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let reads =
            |text: &str, seconds| assert_eq!(duration(text).expect(text), Duration::from_secs(seconds));
        reads("90", 90);
        reads("90s", 90);
        reads("15m", 900);
        reads("2h", 7200);
        assert!(duration("soon").is_err() && duration("5 days").is_err() && duration("").is_err());
    }
}
