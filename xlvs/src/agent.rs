//! `xlvs agent`: which servers' agents are asked for the share of their weight that they want.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use humantime::Duration;
use xlvs_model::view::ServiceView;
use xlvs_model::watch::AgentSpec;

use crate::client::Client;
use crate::named;
use crate::paths::Paths;
use crate::protocol::{Answer, Request};

/// What to do.
#[derive(Subcommand, Clone, Debug)]
pub enum Action {
    /// From now on, ask an agent of this server, or of each of the service's.
    Set(Set),
    /// Ask none any more; the weight is the configured one again.
    Remove(Which),
}

/// Whose agents.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// The service: 192.0.2.10:80, tcp/192.0.2.10:80 or mark/1.
    service: String,
    /// The server: 10.0.0.11:8080 or 10.0.0.11; all of the service's unless named.
    server: Option<String>,
    /// The director's places.
    #[command(flatten)]
    paths: Paths,
}

/// Whom to ask, and how to follow what he says.
#[derive(Args, Clone, Debug)]
pub struct Set {
    #[command(flatten)]
    which: Which,
    /// TCP port of the agent; 8282 is that of `xlvs rs agent`.
    #[arg(long, default_value_t = 8282, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// From one question to the next.
    #[arg(long, default_value_t = AgentSpec::at(1).interval.into(), value_name = "TIME")]
    interval: Duration,
    /// An agent that takes longer has said nothing.
    #[arg(long, default_value_t = AgentSpec::at(1).timeout.into(), value_name = "TIME")]
    timeout: Duration,
    /// A text that is sent to the agent first.
    #[arg(long, value_name = "TEXT")]
    send: Option<String>,
    /// The largest share of its weight that it may ask for, in percent.
    #[arg(long, default_value_t = AgentSpec::at(1).most, value_name = "PERCENT")]
    most: u16,
    /// Of each new figure so many percent count, and the rest of the average that was.
    #[arg(long, default_value_t = AgentSpec::at(1).smoothing, value_name = "PERCENT")]
    smoothing: u16,
    /// The share in force moves when the average is so many percent points away from it.
    #[arg(long, default_value_t = AgentSpec::at(1).step, value_name = "POINTS")]
    step: u16,
    /// A server that was away and returns gets its share within this.
    #[arg(long, default_value_t = AgentSpec::at(1).slow_start.into(), value_name = "TIME")]
    slow_start: Duration,
}

impl Set {
    fn spec(&self) -> AgentSpec {
        let Self { port, interval, timeout, send, most, smoothing, step, slow_start, .. } = self.clone();
        AgentSpec {
            interval: interval.into(),
            timeout: timeout.into(),
            send,
            most,
            smoothing,
            step,
            slow_start: slow_start.into(),
            ..AgentSpec::at(port)
        }
    }
}

/// Does it. Like a change of the file, it is a revision, and holds for the next daemon too.
pub fn run(action: &Action) -> anyhow::Result<ExitCode> {
    let (which, agent) = match action {
        Action::Set(set) => (&set.which, Some(set.spec())),
        Action::Remove(which) => (which, None),
    };
    let mut client = Client::connected(&which.paths)?;
    let model = match client.ask(&Request::Model)? {
        Answer::Model(model) => model,
        other => return Err(other.unexpected().into()),
    };
    let services: Vec<ServiceView> = model.services().iter().map(ServiceView::from).collect();
    let service = named::service(&which.service, &services)?;
    let server = which.server.as_ref().map(|text| named::server(text, service)).transpose()?;
    let (service, server) = (service.spec.key, server.map(|server| server.spec.key));
    match client.ask(&Request::Agent { service, server, agent })? {
        Answer::Plan(sentences) if sentences.is_empty() => println!("There is nothing to change."),
        Answer::Plan(sentences) => sentences.iter().for_each(|sentence| println!("{sentence}")),
        Answer::Failed(why) => bail!("{why}"),
        other => return Err(other.unexpected().into()),
    }
    Ok(ExitCode::SUCCESS)
}
