//! `xlvs server` and `xlvs servers`: an operator's word about a server, and how all of them fare.

use std::collections::HashMap;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use xlvs_health::{Effective, Health, OperatorWord, Place, Reason, Standing};
use xlvs_model::state::Service;
use xlvs_model::view::ServiceView;
use xlvs_model::{Model, ServerKey, ServerSpec, ServiceKey};

use crate::client::Client;
use crate::listings::{self, json, print};
use crate::named;
use crate::paint::Paint;
use crate::paths::Paths;
use crate::plan;
use crate::protocol::{Answer, Request};

/// What to say.
#[derive(Subcommand, Clone, Debug)]
pub enum Word {
    /// Take a server out of its service, whatever its checks and agent say: packets of its connections find it removed.
    Disable(Which),
    /// Give a server no new connections, whatever its checks and agent say; those that it has go on.
    Drain(Which),
    /// Leave a server to its checks and agent again.
    Enable(Which),
}

/// Of which server.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// The service: 192.0.2.10:80, tcp/192.0.2.10:80 or mark/1.
    service: String,
    /// The server: 10.0.0.11:8080 or 10.0.0.11.
    server: String,
    /// The director's places.
    #[command(flatten)]
    paths: Paths,
}

/// Says it. The word holds until another is said, also over a reload and for the next daemon.
pub fn say(word: &Word) -> anyhow::Result<ExitCode> {
    let (which, word, done) = match word {
        Word::Disable(which) => (which, OperatorWord::Disabled, "is disabled"),
        Word::Drain(which) => (which, OperatorWord::Drained, "gets no new connections"),
        Word::Enable(which) => (which, OperatorWord::Enabled, "is left to its checks and agent"),
    };
    let mut client = Client::connected(&which.paths)?;
    let services: Vec<ServiceView> = model(&mut client)?.services().iter().map(ServiceView::from).collect();
    let service = named::service(&which.service, &services)?;
    let (key, server) = (service.spec.key, named::server(&which.server, service)?.spec.key);
    match client.ask(&Request::Say(key, server, word))? {
        Answer::Done => println!("{} of {} {done}", plan::server(&server), plan::service(&key)),
        other => return Err(other.unexpected().into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn model(client: &mut Client) -> anyhow::Result<Model> {
    match client.ask(&Request::Model)? {
        Answer::Model(model) => Ok(*model),
        other => Err(other.unexpected().into()),
    }
}

/// Shows every server: weight as stated and in force, what checks say, and why.
pub fn list(options: &listings::Options) -> anyhow::Result<ExitCode> {
    let mut client = Client::connected(&options.paths)?;
    let model = model(&mut client)?;
    let standings = match client.ask(&Request::Standings)? {
        Answer::Standings(standings) => standings,
        other => return Err(other.unexpected().into()),
    };
    let standings = all(&model, standings);
    print(|out| {
        if options.json {
            return json(out, &standings.iter().map(Shown::of).collect::<Vec<_>>());
        }
        let paint = Paint::of_stdout();
        let mut service = None;
        for standing in &standings {
            if service.replace(standing.service) != Some(standing.service) {
                writeln!(out, "{}", paint.bold(&plan::service(&standing.service)))?;
            }
            writeln!(out, "{}", line(standing, paint))?;
        }
        Ok(())
    })
}

/// As JSON for programs.
#[derive(Serialize)]
struct Shown<'s> {
    /// As people read it.
    service_name: String,
    server_name: String,
    weight: u32,
    reason: String,
    #[serde(flatten)]
    standing: &'s Standing,
}

impl<'s> Shown<'s> {
    fn of(standing: &'s Standing) -> Self {
        Self {
            service_name: plan::service(&standing.service),
            server_name: plan::server(&standing.stated.key),
            weight: standing.effective.place.weight(),
            reason: reason(standing),
            standing,
        }
    }
}

/// Also those that nobody looks after, in the order of services.
fn all(model: &Model, standings: Vec<Standing>) -> Vec<Standing> {
    let mut known: HashMap<(ServiceKey, ServerKey), Standing> =
        standings.into_iter().map(|standing| ((standing.service, standing.stated.key), standing)).collect();
    let mut of = |service: &Service, spec: &ServerSpec| {
        let key = service.spec.key;
        known.remove(&(key, spec.key)).unwrap_or_else(|| as_stated(key, *spec))
    };
    let services = model.services().iter();
    services
        .flat_map(|service| service.servers.iter().map(|spec| of(service, spec)).collect::<Vec<_>>())
        .collect()
}

fn as_stated(service: ServiceKey, stated: ServerSpec) -> Standing {
    Standing {
        service,
        stated,
        effective: Effective { place: Place::In(stated.weight), reason: Reason::AsConfigured },
        health: Health::Unchecked,
        operator: OperatorWord::Enabled,
        agent: None,
        detail: None,
        warning: None,
    }
}

fn line(standing: &Standing, paint: Paint) -> String {
    let Standing { stated, effective, health, .. } = standing;
    let weight = match effective.place {
        Place::In(weight) if weight == stated.weight => format!("weight {weight}"),
        Place::In(weight) => format!("weight {weight} of {}", stated.weight),
        Place::Out => format!("out, weight {} when back", stated.weight),
    };
    let health = match health {
        Health::Unchecked => "unchecked".to_owned(),
        Health::Unknown => paint.yellow("unknown"),
        Health::Up => paint.green("up"),
        Health::Down => paint.red("down"),
    };
    let mut line = format!("  -> {:<24} {weight}, {health}", plan::server(&stated.key));
    if effective.reason != Reason::AsConfigured || standing.detail.is_some() {
        line += &format!(": {}", reason(standing));
    }
    if let Some(warning) = &standing.warning {
        line += &paint.yellow(&format!("; {warning}"));
    }
    line
}

fn reason(standing: &Standing) -> String {
    match (&standing.effective.reason, &standing.detail) {
        (Reason::AsConfigured, Some(detail)) => format!("last check: {detail}"),
        (reason, Some(detail)) => format!("{reason}: {detail}"),
        (reason, None) => reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use xlvs_model::Config;

    use super::*;

    #[test]
    fn every_server_has_its_line_with_what_holds_and_why() {
        let config = Config::read(
            "[[service]]\ntcp = \"192.0.2.1:80\"\nweight = 4\nservers = [\"10.0.0.1\", \"10.0.0.2\", \"10.0.0.3\", \"10.0.0.4\"]\n",
        );
        let model = config.expect("no mistake").model;
        let service = &model.services()[0];
        let standing = |at: usize, place, reason, health, detail: Option<&str>| Standing {
            effective: Effective { place, reason },
            health,
            detail: detail.map(str::to_owned),
            ..as_stated(service.spec.key, service.servers[at])
        };
        let mut ending =
            standing(3, Place::In(4), Reason::AsConfigured, Health::Up, Some("connection refused"));
        ending.warning = Some("its certificate expires on 2024-10-04T00:00:00Z".to_owned());
        let known = vec![
            standing(1, Place::Out, Reason::CheckFailed, Health::Down, Some("status 503")),
            standing(2, Place::In(2), Reason::AgentShare(50), Health::Up, None),
            ending,
        ];
        let lines: Vec<String> =
            all(&model, known).iter().map(|standing| line(standing, Paint::of_nothing())).collect();
        let told = [
            "  -> 10.0.0.1:80              weight 4, unchecked",
            "  -> 10.0.0.2:80              out, weight 4 when back, down: a check failed: status 503",
            "  -> 10.0.0.3:80              weight 2 of 4, up: its agent says 50 %",
            "  -> 10.0.0.4:80              weight 4, up: last check: connection refused; its certificate expires on 2024-10-04T00:00:00Z",
        ];
        assert_eq!(lines, told);
    }
}
