//! `/metrics`: the director's numbers by Prometheus's rules.

mod exposition;

use std::collections::HashMap;
use std::time::SystemTime;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde::Deserialize;
use utoipa::IntoParams;
use xlvs_core::verdict::{DropReason, PassReason};
use xlvs_health::{Health, Place, Standing};
use xlvs_model::view::{ServerView, ServiceView, Stats};

use super::api::{App, Asked, Refusals};
use super::problem::Problem;
use super::sight::Sight;
use crate::named;
use crate::overview::{InterfaceState, Overview, Reason};
use crate::plan;
use exposition::Kind::{Counter, Gauge};
use exposition::{CONTENT_TYPE, Exposition};

/// What is wanted besides.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Metrics of each server too, whatever the setting says.
    #[serde(default)]
    per_server: bool,
}

/// The metrics, in Prometheus's text format.
#[utoipa::path(get, path = "/metrics", tag = "status", params(Wanted), responses((status = OK, body = String, content_type = "text/plain"), Refusals))]
pub async fn metrics(
    State(app): State<App>,
    Asked(wanted): Asked<Wanted>,
) -> Result<impl IntoResponse, Problem> {
    let sight = app.sights.now().await?;
    let text = text(&sight, app.began, app.per_server || wanted.per_server);
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text))
}

/// All metrics of a director whose daemon began then.
fn text(sight: &Sight, began: SystemTime, per_server: bool) -> String {
    let mut out = Exposition::default();
    daemon(&mut out, &sight.overview, began);
    packets(&mut out, &sight.overview);
    tables(&mut out, &sight.overview);
    work(&mut out, &sight.overview);
    let named: Vec<Named<'_>> = sight.services.iter().map(Named::of).collect();
    services(&mut out, &named);
    standings(&mut out, &named, &sight.standings);
    if per_server {
        servers(&mut out, &named, &sight.standings);
    }
    out.into_text()
}

fn daemon(out: &mut Exposition, overview: &Overview, began: SystemTime) {
    let version = [("version", overview.version.as_str())];
    out.family("xlvs_build_info", Gauge, "The daemon's version; always 1.").sample(&version, 1);
    let began = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    out.one("xlvs_start_time_seconds", Gauge, "When the daemon was started, in seconds since 1970.", began);
    out.one(
        "xlvs_revision",
        Gauge,
        "Number of the newest revision of the configuration; 0: none yet.",
        overview.revision,
    );
    let mut attached =
        out.family("xlvs_interface_attached", Gauge, "Whether the director is on this interface.");
    for interface in &overview.interfaces {
        let (mode, is_on) = match interface.state {
            InterfaceState::Native => ("native", 1),
            InterfaceState::Generic => ("generic", 1),
            InterfaceState::Tc => ("tc", 1),
            InterfaceState::Gone | InterfaceState::Detached => ("none", 0),
        };
        attached.sample(&[("interface", &interface.name), ("mode", mode)], is_on);
    }
}

fn packets(out: &mut Exposition, overview: &Overview) {
    out.one(
        "xlvs_packets_forwarded_total",
        Counter,
        "Packets sent on, to servers and to clients.",
        overview.forwarded,
    );
    out.one(
        "xlvs_packets_answered_total",
        Counter,
        "Packets answered with an ICMP error.",
        overview.answered,
    );
    let mut family = out.family("xlvs_packets_dropped_total", Counter, "Packets dropped, by reason.");
    let packets = |reasons: &[Reason], label: &str| {
        reasons.iter().find(|reason| reason.label == label).map_or(0, |reason| reason.packets)
    };
    // Also those that never occurred: a rate begins at nothing.
    for reason in DropReason::ALL {
        family.sample(&[("reason", reason.label())], packets(&overview.drops, reason.label()));
    }
    let help = "Packets left to the director's own stack, by reason.";
    let mut family = out.family("xlvs_packets_passed_total", Counter, help);
    for reason in PassReason::ALL {
        family.sample(&[("reason", reason.label())], packets(&overview.passes, reason.label()));
    }
    let fragments = &overview.fragments;
    let numbers = [
        ("xlvs_fragments_received_total", "Fragments that came.", fragments.came),
        ("xlvs_fragments_without_room_total", "Fragments that there was no memory for.", fragments.no_room),
        ("xlvs_packets_reassembled_total", "Packets put together of fragments.", fragments.whole),
        (
            "xlvs_packets_unassembled_total",
            "Packets whose fragments did not all come, or fit.",
            fragments.failed,
        ),
        ("xlvs_packets_cut_total", "Packets cut into fragments.", fragments.cut),
    ];
    numbers.into_iter().for_each(|(name, help, number)| out.one(name, Counter, help, number));
}

fn tables(out: &mut Exposition, overview: &Overview) {
    let connections = &overview.connections;
    let mut family = out.family("xlvs_connections", Gauge, "Entries of the connection table, by kind.");
    family.sample(&[("state", "active")], connections.active);
    family.sample(&[("state", "inactive")], connections.inactive);
    family.sample(&[("state", "template")], connections.persistent);
    let numbers = [
        ("xlvs_connection_slots", "Entries that the connection table has room for.", connections.slots),
        ("xlvs_services", "Virtual services.", overview.services.used),
        ("xlvs_service_slots", "Virtual services that there is room for.", overview.services.limit),
        (
            "xlvs_servers",
            "Real servers, with those removed that still have connections.",
            overview.servers.used,
        ),
        ("xlvs_server_slots", "Real servers that there is room for.", overview.servers.limit),
        ("xlvs_servers_unreached", "Real servers without a next hop.", overview.unreached.len() as u64),
    ];
    numbers.into_iter().for_each(|(name, help, number)| out.one(name, Gauge, help, number));
}

fn work(out: &mut Exposition, overview: &Overview) {
    let work = overview.work;
    out.one("xlvs_sweeps_total", Counter, "Sweeps through the connection table.", work.sweeps);
    let mut family = out.family(
        "xlvs_connections_expired_total",
        Counter,
        "Connections removed after their time, by whom.",
    );
    family.sample(&[("by", "sweep")], work.swept);
    family.sample(&[("by", "packet")], overview.connections.expired_by_packets);
    let seconds = work.sweeping_us as f64 / 1e6;
    out.one("xlvs_sweep_seconds_total", Counter, "Time that sweeps took.", seconds);
    let mut family = out.family("xlvs_checks_total", Counter, "Checks of servers made, by outcome.");
    family.sample(&[("outcome", "success")], work.checks_succeeded);
    family.sample(&[("outcome", "failure")], work.checks_failed);
    let mut family =
        out.family("xlvs_agent_questions_total", Counter, "Questions to servers' agents, by outcome.");
    family.sample(&[("outcome", "success")], work.agents_answered);
    family.sample(&[("outcome", "failure")], work.agents_silent);
}

/// A service with its label.
struct Named<'s> {
    name: String,
    view: &'s ServiceView,
}

impl<'s> Named<'s> {
    fn of(view: &'s ServiceView) -> Self {
        Self { name: named::of(&view.spec.key), view }
    }

    fn sum(&self, of: impl Fn(&ServerView) -> u32) -> u64 {
        self.view.servers.iter().map(|server| u64::from(of(server))).sum()
    }

    fn count(&self, is: impl Fn(&ServerView) -> bool) -> usize {
        self.view.servers.iter().filter(|server| is(server)).count()
    }
}

const CONNECTIONS: &str = "Connections scheduled.";
const PACKETS: &str =
    "Packets balanced, by direction: in from clients, out to clients by way of the director.";
const BYTES: &str = "Bytes of layer 3 balanced, by direction.";

fn services(out: &mut Exposition, services: &[Named<'_>]) {
    let all =
        || services.iter().map(|service| (vec![("service", service.name.as_str())], &service.view.stats));
    counters(out, "service", all);
    let mut family =
        out.family("xlvs_service_connections", Gauge, "Entries of a service's connections, by kind.");
    for service in services {
        let label = ("service", service.name.as_str());
        family.sample(&[label, ("state", "active")], service.sum(|server| server.active));
        family.sample(&[label, ("state", "inactive")], service.sum(|server| server.inactive));
        family.sample(&[label, ("state", "template")], service.sum(|server| server.persistent));
    }
}

/// Counters of services or servers, with these labels each.
fn counters<'s, I: Iterator<Item = (Vec<(&'s str, &'s str)>, &'s Stats)>>(
    out: &mut Exposition,
    what: &str,
    all: impl Fn() -> I,
) {
    let name = format!("xlvs_{what}_connections_total");
    let mut family = out.family(&name, Counter, CONNECTIONS);
    all().for_each(|(labels, stats)| family.sample(&labels, stats.conns));
    let mut by_direction = |unit: &str, help: &str, of: fn(&Stats) -> [u64; 2]| {
        let name = format!("xlvs_{what}_{unit}_total");
        let mut family = out.family(&name, Counter, help);
        for (labels, stats) in all() {
            for (direction, number) in ["in", "out"].into_iter().zip(of(stats)) {
                family.sample(&[&labels[..], &[("direction", direction)]].concat(), number);
            }
        }
    };
    by_direction("packets", PACKETS, |stats| [stats.in_packets, stats.out_packets]);
    by_direction("bytes", BYTES, |stats| [stats.in_bytes, stats.out_bytes]);
}

/// How many servers of each service there are in each place.
fn standings(out: &mut Exposition, services: &[Named<'_>], standings: &[Standing]) {
    let mut by_service: HashMap<_, Vec<&Standing>> = HashMap::new();
    for standing in standings {
        by_service.entry(standing.service).or_default().push(standing);
    }
    let of = |service: &Named<'_>, is: &dyn Fn(&Standing) -> bool| {
        let known = by_service.get(&service.view.spec.key).map(Vec::as_slice).unwrap_or_default();
        known.iter().filter(|standing| is(standing)).count()
    };
    let help =
        "Servers of a service: used, quiesced (weight 0), or out of it by a check, an agent or an operator.";
    let mut family = out.family("xlvs_service_servers", Gauge, help);
    for service in services {
        let label = ("service", service.name.as_str());
        family.sample(&[label, ("state", "used")], service.count(|server| server.spec.weight != 0));
        family.sample(&[label, ("state", "quiesced")], service.count(|server| server.spec.weight == 0));
        family.sample(
            &[label, ("state", "out")],
            of(service, &|standing| standing.effective.place == Place::Out),
        );
    }
    let mut family = out.family(
        "xlvs_service_checked_servers",
        Gauge,
        "Servers of a service that are checked, by what checks say.",
    );
    for service in services {
        let label = ("service", service.name.as_str());
        for (word, health) in [("up", Health::Up), ("down", Health::Down), ("unknown", Health::Unknown)] {
            family.sample(&[label, ("health", word)], of(service, &|standing| standing.health == health));
        }
    }
    let help = "Servers of a service of which a check warns, as of the end of a certificate.";
    let mut family = out.family("xlvs_service_warned_servers", Gauge, help);
    for service in services {
        let warned = of(service, &|standing| standing.warning.is_some());
        family.sample(&[("service", service.name.as_str())], warned);
    }
}

fn servers(out: &mut Exposition, services: &[Named<'_>], standings: &[Standing]) {
    let labelled: Vec<(&str, String, &ServerView)> = services
        .iter()
        .flat_map(|service| {
            service.view.servers.iter().map(|view| (&*service.name, plan::server(&view.spec.key), view))
        })
        .collect();
    let all = || {
        labelled
            .iter()
            .map(|(service, server, view)| (vec![("service", *service), ("server", server)], &view.stats))
    };
    counters(out, "server", all);
    let mut family =
        out.family("xlvs_server_connections", Gauge, "Entries of a server's connections, by kind.");
    for (service, server, view) in &labelled {
        let labels = [("service", *service), ("server", server.as_str())];
        for (state, number) in
            [("active", view.active), ("inactive", view.inactive), ("template", view.persistent)]
        {
            family.sample(&[labels[0], labels[1], ("state", state)], number);
        }
    }
    let mut family = out.family("xlvs_server_weight", Gauge, "A server's weight in force.");
    for (service, server, view) in &labelled {
        family.sample(&[("service", service), ("server", server)], view.spec.weight);
    }
    let mut family = out.family("xlvs_server_up", Gauge, "What a server's checks say of it: 1 up, 0 down.");
    for standing in standings.iter().filter(|standing| matches!(standing.health, Health::Up | Health::Down)) {
        let (service, server) = (named::of(&standing.service), plan::server(&standing.stated.key));
        let up = u8::from(standing.health == Health::Up);
        family.sample(&[("service", &service), ("server", &server)], up);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use prometheus_parse::{Sample, Scrape, Value};
    use serde_json::Value as Json;

    use super::*;
    use crate::daemon::http::sight::tests::example;

    fn example_text(per_server: bool) -> String {
        text(&example(), SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000), per_server)
    }

    fn read(text: &str) -> Scrape {
        Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).expect("Prometheus's text format")
    }

    fn value(scrape: &Scrape, name: &str, labels: &[(&str, &str)]) -> f64 {
        let is_it = |sample: &&Sample| {
            sample.metric == name
                && labels.iter().all(|(label, value)| sample.labels.get(label) == Some(value))
        };
        let mut found = scrape.samples.iter().filter(is_it);
        let sample = found.next().unwrap_or_else(|| panic!("no {name} {labels:?}"));
        assert!(found.next().is_none(), "more than one {name} {labels:?}");
        match sample.value {
            Value::Counter(number) | Value::Gauge(number) => number,
            ref other => panic!("{name} is {other:?}"),
        }
    }

    #[test]
    fn a_parser_of_others_reads_what_the_director_counts() {
        let scrape = read(&example_text(true));
        let web = ("service", "tcp/192.0.2.10:80");
        assert_eq!(value(&scrape, "xlvs_build_info", &[("version", "0.1.0")]), 1.0);
        assert_eq!(value(&scrape, "xlvs_start_time_seconds", &[]), 1000.0);
        assert_eq!(value(&scrape, "xlvs_sweep_seconds_total", &[]), 0.0015);
        assert_eq!(
            value(&scrape, "xlvs_packets_dropped_total", &[("reason", DropReason::ALL[0].label())]),
            9.0
        );
        assert_eq!(value(&scrape, "xlvs_service_connections_total", &[web]), 41.0);
        assert_eq!(value(&scrape, "xlvs_service_bytes_total", &[web, ("direction", "out")]), 90_000.0);
        assert_eq!(value(&scrape, "xlvs_service_connections", &[web, ("state", "active")]), 2.0);
        for (state, servers) in [("used", 1.0), ("quiesced", 1.0), ("out", 1.0)] {
            assert_eq!(value(&scrape, "xlvs_service_servers", &[web, ("state", state)]), servers, "{state}");
        }
        assert_eq!(value(&scrape, "xlvs_service_checked_servers", &[web, ("health", "down")]), 1.0);
        assert_eq!(value(&scrape, "xlvs_service_warned_servers", &[web]), 1.0);
        assert_eq!(value(&scrape, "xlvs_interface_attached", &[("interface", "eth1")]), 0.0);
        assert_eq!(value(&scrape, "xlvs_server_up", &[web, ("server", "10.0.0.13:80")]), 0.0);
        assert_eq!(value(&scrape, "xlvs_server_weight", &[web, ("server", "10.0.0.12:80")]), 0.0);
        assert_eq!(value(&scrape, "xlvs_service_connections_total", &[("service", "mark6/7")]), 0.0);
    }

    #[test]
    fn every_reason_is_there_and_servers_only_on_request() {
        let scrape = read(&example_text(false));
        let of = |name: &str| scrape.samples.iter().filter(|sample| sample.metric == name).count();
        assert_eq!(of("xlvs_packets_dropped_total"), DropReason::ALL.len());
        assert_eq!(of("xlvs_packets_passed_total"), PassReason::ALL.len());
        assert!(!scrape.samples.iter().any(|sample| sample.metric.starts_with("xlvs_server_c")));
    }

    /// Prometheus's rules of names, as `promtool check metrics` has them too.
    #[test]
    fn names_and_heads_are_as_prometheus_wants_them() {
        let text = example_text(true);
        let mut families = BTreeMap::new();
        let mut family = "";
        for line in text.lines() {
            if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
                assert!(help.ends_with('.'), "{line}");
                family = name;
            } else if let Some((name, kind)) =
                line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
            {
                assert_eq!(name, family, "a type follows its help");
                assert!(families.insert(name, kind).is_none(), "{name} has two heads");
            } else {
                assert!(line.starts_with(family), "{line} is not below its head");
            }
        }
        for (name, kind) in families {
            assert!(
                name.starts_with("xlvs_") && name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'),
                "{name}"
            );
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            let wrong_ends = ["_count", "_sum", "_bucket", "_ms", "_us", "_kb", "_milliseconds"];
            assert!(!wrong_ends.iter().any(|end| name.trim_end_matches("_total").ends_with(end)), "{name}");
        }
    }

    #[test]
    fn a_line_is_a_sample_only_once() {
        let text = example_text(true);
        let samples: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| Some(line.rsplit_once(' ')?.0))
            .collect();
        assert_eq!(samples.iter().collect::<BTreeSet<_>>().len(), samples.len());
    }

    fn queries(json: &Json, found: &mut Vec<String>) {
        match json {
            Json::Object(entries) => entries.iter().for_each(|(key, value)| match value {
                Json::String(query) if key == "expr" || key == "query" && query.contains("xlvs_") => {
                    found.push(query.clone());
                }
                value => queries(value, found),
            }),
            Json::Array(items) => items.iter().for_each(|item| queries(item, found)),
            _ => {}
        }
    }

    #[test]
    fn the_dashboard_asks_for_metrics_that_are_served() {
        let scrape = read(&example_text(true));
        let served: BTreeSet<&str> = scrape.samples.iter().map(|sample| sample.metric.as_str()).collect();
        let dashboard: Json =
            serde_json::from_str(include_str!("../../../../../docs/grafana.json")).expect("JSON");
        let mut asked = Vec::new();
        queries(&dashboard, &mut asked);
        assert!(asked.len() > 10, "only {} queries", asked.len());
        for query in asked {
            let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let metrics: Vec<&str> = words.filter(|word| word.starts_with("xlvs_")).collect();
            assert!(!metrics.is_empty(), "{query}");
            metrics.iter().for_each(|name| assert!(served.contains(name), "{name} of {query} is not served"));
        }
    }
}
