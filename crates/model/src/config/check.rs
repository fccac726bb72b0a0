//! Checks and agents, and those that have a name of their own in the file.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use regex_lite::Regex;

use super::address;
use super::entry::Entry;
use super::pool;
use super::section::{Layers, Section};
use super::server;
use super::words;
use crate::spec::{Protocol, ServerSpec, ServiceKey};
use crate::watch::{
    AgentSpec, CheckKind, CheckSpec, DnsSpec, GrpcSpec, HttpSpec, HttpVersion, Record, SmtpSpec, Timing,
    TlsSpec, UdpSpec, Via,
};

/// Keys of every check.
const COMMON: [&str; 11] = [
    "type",
    "address",
    "port",
    "via",
    "interval",
    "timeout",
    "rise",
    "fall",
    "retry",
    "delay_before_retry",
    "warmup",
];
/// Keys of checks over HTTP too.
const HTTP: [&str; 5] = ["path", "version", "status", "body", "digest"];
/// Keys of checks over gRPC too.
const GRPC: [&str; 1] = ["service"];
/// Keys of both.
const HOST: [&str; 1] = ["host"];
/// Keys of both over TLS too.
const TLS: [&str; 3] = ["sni", "verify", "warn_expiry"];
/// Keys of checks by datagram too.
const UDP: [&str; 2] = ["send", "answer"];
/// Keys of questions to name servers too.
const DNS: [&str; 2] = ["name", "record"];
/// Keys of checks of mail servers too.
const SMTP: [&str; 1] = ["helo"];
/// Keys of files too.
const FILE: [&str; 1] = ["file"];
/// Keys of scripts too.
const SCRIPT: [&str; 1] = ["command"];
/// All of them.
#[cfg(test)]
pub(super) const ALL_KEYS: &[&str] =
    &["type", "address", "port", "interval", "timeout", "path", "host", "status", "sni", "command"];

const AGENT_KEYS: &[&str] =
    &["port", "address", "interval", "timeout", "send", "most", "smoothing", "step", "slow_start"];

/// From one check to the next.
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(86_400);
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3600);
const DELAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
/// Before the end of a certificate.
const EXPIRY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3650 * 86_400);
const TIMES: RangeInclusive<u32> = 1..=1000;

/// The largest share of its weight that an agent may be let ask for, in percent.
const MOST_SHARE: u32 = 1000;

/// What a check asks, by its `type`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Tcp,
    Http,
    Https,
    Grpc,
    Grpcs,
    Udp,
    Dns,
    Smtp,
    Ping,
    File,
    Script,
}

const TYPES: [(&str, Type); 11] = [
    ("tcp", Type::Tcp),
    ("http", Type::Http),
    ("https", Type::Https),
    ("grpc", Type::Grpc),
    ("grpcs", Type::Grpcs),
    ("udp", Type::Udp),
    ("dns", Type::Dns),
    ("smtp", Type::Smtp),
    ("ping", Type::Ping),
    ("file", Type::File),
    ("script", Type::Script),
];

/// Checks and agents with names: `[check.web]`, `[agent.load]`.
pub(super) struct Named<'d> {
    checks: Vec<(&'d str, Entry<'d>)>,
    agents: Vec<(&'d str, Entry<'d>)>,
}

impl<'d> Named<'d> {
    pub(super) fn read(file: &Section<'d>) -> Self {
        let tables = |key: &str| -> Vec<(&'d str, Entry<'d>)> {
            let Some(entry) = file.get(key) else { return Vec::new() };
            let Some(table) = entry.value.get_ref().as_table() else {
                entry.wrong(format!("`{key}` is a table of tables with names, such as [{key}.web]"));
                return Vec::new();
            };
            let names: Vec<&str> = table.keys().map(|name| name.get_ref().as_ref()).collect();
            let Some(section) = Section::of(&entry, key, &names) else { return Vec::new() };
            section.entries().map(|entry| (entry.key, entry)).collect()
        };
        let named = Self { checks: tables("check"), agents: tables("agent") };
        // Also those that no service uses must be right.
        named.checks.iter().for_each(|(name, entry)| {
            if TYPES.iter().any(|(own, _)| own == name) || *name == "none" {
                entry.misplaced(format!("\"{name}\" is a check's type already; give this one another name"));
            }
            drop(table(entry));
        });
        named.agents.iter().for_each(|(_, entry)| drop(agent(entry)));
        named
    }

    /// The checks of a server: a name, a table, or a list of these. `at` is where the server is.
    pub(super) fn checks(
        &self,
        entry: &Entry<'d>,
        at: &Entry<'_>,
        service: ServiceKey,
        server: &ServerSpec,
    ) -> Vec<CheckSpec> {
        let items = entry.items();
        let drafts = items.iter().filter(|item| !is_none(item)).filter_map(|item| self.draft(item));
        drafts.filter_map(|draft| draft.of_server(at, service, server)).collect()
    }

    /// Checks of no server must be right too.
    pub(super) fn check_unused(&self, entry: &Entry<'d>) {
        entry.items().iter().filter(|item| !is_none(item)).for_each(|item| _ = self.draft(item));
    }

    fn draft(&self, item: &Entry<'d>) -> Option<Draft> {
        let Some(name) = item.value.get_ref().as_str() else { return table(item) };
        if let Some((_, entry)) = self.checks.iter().find(|(known, _)| *known == name) {
            return table(entry);
        }
        if let Some((_, kind)) = TYPES.iter().find(|(known, _)| *known == name) {
            return Draft::with_defaults(*kind, item);
        }
        let names: Vec<&str> =
            self.checks.iter().map(|(name, _)| *name).chain(TYPES.map(|(name, _)| name)).collect();
        item.wrong(words::unknown_word("check", name, &names));
        None
    }

    /// The agent of a server: a name, a table, or its port.
    pub(super) fn agent(&self, entry: &Entry<'d>) -> Option<AgentSpec> {
        if is_none(entry) {
            return None;
        }
        if entry.integer().is_some() {
            return entry.port().map(AgentSpec::at);
        }
        let Some(name) = entry.value.get_ref().as_str() else { return agent(entry) };
        let Some((_, entry)) = self.agents.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = self.agents.iter().map(|(name, _)| *name).collect();
            entry.wrong(words::unknown_word("agent", name, &names));
            return None;
        };
        agent(entry)
    }
}

/// `"none"`: not what is inherited.
fn is_none(entry: &Entry<'_>) -> bool {
    entry.value.get_ref().as_str() == Some("none")
}

/// Is `check = "none"` said, so that what is inherited besides has nothing that it could be about?
pub(super) fn is_said_not_to_be(layers: &Layers<'_>) -> bool {
    ["check", "agent"].iter().any(|key| layers.get(key).is_some_and(|entry| is_none(&entry)))
}

/// A check of any server.
struct Draft {
    kind: CheckKind,
    address: Option<IpAddr>,
    port: Option<u16>,
    via: Option<Via>,
    timing: Timing,
}

impl Draft {
    fn with_defaults(kind: Type, item: &Entry<'_>) -> Option<Self> {
        let complain = |message: &str| item.wrong(message);
        let kind = kind_of(kind, None, &complain)?;
        Some(Self { kind, address: None, port: None, via: None, timing: Timing::default() })
    }

    /// The check of this server, if it can be made.
    fn of_server(self, at: &Entry<'_>, service: ServiceKey, server: &ServerSpec) -> Option<CheckSpec> {
        let port = self.port_at(at, service, server)?;
        let Self { kind, address, via, timing, .. } = self;
        if via == Some(Via::Path) && matches!(service, ServiceKey::Mark { .. }) {
            at.wrong(
                "the service is one of a mark and has no address that a check could carry: say via = \"server\"",
            );
            return None;
        }
        let via = via.unwrap_or_else(|| Via::usual(&kind, address, port, &service, &server.key));
        Some(CheckSpec { kind, address, port, via, timing })
    }

    /// The port that is asked.
    fn port_at(&self, at: &Entry<'_>, service: ServiceKey, server: &ServerSpec) -> Option<u16> {
        let name = || server::name(&server.key);
        if let Some(port) = self.port.or(Some(server.key.port).filter(|_| self.kind.needs_no_port())) {
            return Some(port);
        }
        if let ServiceKey::Address { protocol: protocol @ (Protocol::Udp | Protocol::Sctp), .. } = service
            && self.kind.speaks_tcp()
        {
            let protocol = protocol.listed();
            at.wrong(format!(
                "the service is {protocol}, and this check of {} speaks TCP: say its `port`",
                name()
            ));
            return None;
        }
        if server.key.port == 0 {
            at.wrong(format!("server {} has no port of its own: the check needs a `port`", name()));
            return None;
        }
        Some(server.key.port)
    }
}

fn table(entry: &Entry<'_>) -> Option<Draft> {
    let all: Vec<&str> = [&COMMON[..], &HTTP, &GRPC, &HOST, &TLS, &UDP, &DNS, &SMTP, &FILE, &SCRIPT].concat();
    let section = Section::of(entry, "a check", &all)?;
    let Some(kind) = section.get("type") else {
        let names = TYPES.map(|(name, _)| name);
        section.wrong(format!("a check has a `type`: {}", words::list(&names)));
        return None;
    };
    let kind = kind.word("type of check", &TYPES)?;
    let is_http = matches!(kind, Type::Http | Type::Https);
    let is_grpc = matches!(kind, Type::Grpc | Type::Grpcs);
    for (keys, is_for, types) in [
        (&HTTP[..], is_http, "http and https"),
        (&GRPC[..], is_grpc, "grpc and grpcs"),
        (&HOST[..], is_http || is_grpc, "http, https, grpc and grpcs"),
        (&TLS[..], matches!(kind, Type::Https | Type::Grpcs), "https and grpcs"),
        (&UDP[..], kind == Type::Udp, "udp"),
        (&DNS[..], kind == Type::Dns, "dns"),
        (&SMTP[..], kind == Type::Smtp, "smtp"),
        (&FILE[..], kind == Type::File, "file"),
        (&SCRIPT[..], kind == Type::Script, "script"),
    ] {
        let misplaced = keys.iter().filter(|_| !is_for).filter_map(|key| section.get(key));
        misplaced.for_each(|entry| entry.misplaced(format!("`{}` is for checks of type {types}", entry.key)));
    }
    let address = match section.get("address") {
        Some(entry) => Some(address::alone(&entry)?),
        None => None,
    };
    let port = match section.get("port") {
        Some(entry) => Some(entry.port()?),
        None => None,
    };
    let via = section.get("via").map(|entry| Some((entry.word("way of a check", &Via::ALL)?, entry)));
    if let Some(Some((Via::Path, entry))) = &via {
        if matches!(kind, Type::Ping | Type::File | Type::Script) {
            entry.misplaced("only checks that speak TCP or UDP go a client's way; leave `via` out");
        } else if address.is_some() {
            entry.misplaced("a client's packet goes to the service's address: a check with an `address` of its own goes via = \"server\"");
        }
    }
    let via = match via {
        Some(said) => Some(said?.0),
        None => None,
    };
    let timing = timing(&section);
    let complain = |message: &str| section.wrong(message);
    Some(Draft { kind: kind_of(kind, Some(&section), &complain)?, address, port, via, timing })
}

/// What a check of a type asks, by the table's other keys; `None`: one that it cannot do without is missing or wrong.
fn kind_of(kind: Type, section: Option<&Section<'_>>, complain: &dyn Fn(&str)) -> Option<CheckKind> {
    let get = |key: &str| section.and_then(|section| section.get(key));
    Some(match kind {
        Type::Tcp => CheckKind::Tcp,
        Type::Http | Type::Https => http(kind == Type::Https, section),
        Type::Grpc | Type::Grpcs => CheckKind::Grpc(GrpcSpec {
            tls: (kind == Type::Grpcs).then(|| tls(section)),
            host: get("host").and_then(|entry| host(&entry)),
            service: get("service").and_then(|entry| grpc_service(&entry)).unwrap_or_default(),
        }),
        Type::Udp => CheckKind::Udp(UdpSpec {
            send: get("send")
                .map_or(Some(String::new()), |entry| Some(entry.string("a text")?.to_owned()))?,
            answer: get("answer").and_then(|entry| pattern(&entry)),
        }),
        Type::Dns => CheckKind::Dns(dns(section)),
        Type::Smtp => CheckKind::Smtp(SmtpSpec { helo: get("helo").and_then(|entry| greeting(&entry)) }),
        Type::Ping => CheckKind::Ping,
        Type::File => {
            let Some(entry) = get("file") else {
                complain(
                    "a check of a file has its `file`: check = { type = \"file\", file = \"/run/down\" }",
                );
                return None;
            };
            CheckKind::File(whole_path(&entry)?)
        }
        Type::Script => {
            let Some(entry) = get("command") else {
                complain("a script has its `command`: a line for the shell, or a program and its arguments");
                return None;
            };
            CheckKind::Script(pool::command(&entry)?)
        }
    })
}

fn dns(section: Option<&Section<'_>>) -> DnsSpec {
    let get = |key: &str| section.and_then(|section| section.get(key));
    let usual = DnsSpec::default();
    DnsSpec {
        name: get("name").and_then(|entry| domain(&entry)).unwrap_or(usual.name),
        record: get("record").and_then(|entry| entry.word("record", &Record::ALL)).unwrap_or(usual.record),
    }
}

/// A name of the DNS (RFC 1035 2.3.4: labels of 63 bytes at the most, 255 in all).
fn domain(entry: &Entry<'_>) -> Option<String> {
    let name = entry.string("a name such as \"www.example.com\"")?;
    let labels = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let is_name = name == "." || labels.len() < 254 && labels.split('.').all(is_label);
    if !is_name {
        entry.wrong(format!("\"{name}\" is no name of the DNS"));
    }
    is_name.then(|| name.to_owned())
}

fn whole_path(entry: &Entry<'_>) -> Option<String> {
    let path = entry.string("the path of a file")?;
    if path.starts_with('/') {
        return Some(path.to_owned());
    }
    entry.wrong(format!("\"{path}\" is no whole path: it begins with /"));
    None
}

fn http(over_tls: bool, section: Option<&Section<'_>>) -> CheckKind {
    let get = |key: &str| section.and_then(|section| section.get(key));
    let text = |key: &str, what: &str| get(key).and_then(|entry| Some(entry.string(what)?.to_owned()));
    let tls = over_tls.then(|| tls(section));
    let path = text("path", "a path such as \"/health\"").unwrap_or_else(|| "/".to_owned());
    if let Some(entry) = get("path").filter(|_| !is_path(&path)) {
        entry.wrong(format!("\"{path}\" is no path: it begins with / and has no spaces"));
    }
    CheckKind::Http(HttpSpec {
        tls,
        version: get("version")
            .and_then(|entry| entry.word("version of HTTP", &HttpVersion::ALL))
            .unwrap_or_default(),
        path,
        host: get("host").and_then(|entry| host(&entry)),
        status: get("status").map_or_else(|| vec![(200, 299)], |entry| statuses(&entry)),
        body: get("body").and_then(|entry| pattern(&entry)),
        digest: get("digest").and_then(|entry| digest(&entry)),
    })
}

/// A name in protobuf's words, such as `shop.v1.Cart`; servers may call what they serve otherwise.
fn grpc_service(entry: &Entry<'_>) -> Option<String> {
    let name = entry.string("the name of a gRPC service, such as \"shop.v1.Cart\"")?;
    if name.len() > 255 || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        entry.wrong(format!("\"{name}\" is no name of a gRPC service"));
        return None;
    }
    Some(name.to_owned())
}

fn tls(section: Option<&Section<'_>>) -> TlsSpec {
    let get = |key: &str| section.and_then(|section| section.get(key));
    let (sni, verify) = (get("sni"), get("verify").and_then(|entry| Some((entry.flag()?, entry))));
    if let (Some((true, entry)), None) = (&verify, &sni) {
        entry.misplaced("`verify` needs an `sni`: the name that the certificate is for");
    }
    let warn_expiry = get("warn_expiry").and_then(|entry| entry.duration(EXPIRY));
    TlsSpec {
        sni: sni.and_then(|entry| host_alone(&entry, |name| name.parse::<IpAddr>().is_ok())),
        verify: verify.is_some_and(|(on, _)| on),
        warn_expiry: warn_expiry.unwrap_or(TlsSpec::default().warn_expiry),
    }
}

/// As `sha256sum` prints it.
fn digest(entry: &Entry<'_>) -> Option<String> {
    let text = entry.string("a SHA-256 digest")?;
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        entry.wrong(format!(
            "\"{text}\" is no SHA-256 digest: 64 hexadecimal digits, as `sha256sum` prints them"
        ));
        return None;
    }
    Some(text.to_ascii_lowercase())
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn host(entry: &Entry<'_>) -> Option<String> {
    let name = entry.string("a name such as \"www.example.com\"")?;
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b)) {
        entry.wrong(format!("\"{name}\" is no name of a host"));
        return None;
    }
    Some(name.to_owned())
}

/// An address literal is in brackets there (RFC 5321, 4.1.3).
fn greeting(entry: &Entry<'_>) -> Option<String> {
    host_alone(entry, |name| name.starts_with('[') && name.ends_with(']'))
}

/// A name without a port; an address only as it is written there.
fn host_alone(entry: &Entry<'_>, is_address: fn(&str) -> bool) -> Option<String> {
    let name = host(entry)?;
    if name.contains(':') && !is_address(&name) {
        let key = entry.key;
        entry.wrong(format!(
            "`{key}` is a name alone, such as \"www.example.com\", and \"{name}\" has a port"
        ));
        return None;
    }
    Some(name)
}

fn pattern(entry: &Entry<'_>) -> Option<String> {
    let text = entry.string("a regular expression")?;
    match Regex::new(text) {
        Ok(_) => Some(text.to_owned()),
        Err(why) => {
            entry.wrong(format!("\"{text}\" is no regular expression: {why}"));
            None
        }
    }
}

/// `200`, `"200-299"`, or a list of these.
fn statuses(entry: &Entry<'_>) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = entry.items().iter().filter_map(status).collect();
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

fn status(item: &Entry<'_>) -> Option<(u16, u16)> {
    let text = match item.value.get_ref().as_str() {
        Some(text) => text.to_owned(),
        None => item.described(),
    };
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    let code = |text: &str| text.trim().parse().ok().filter(|code| (100..600).contains(code));
    match (code(first), code(last)) {
        (Some(first), Some(last)) if first <= last => Some((first, last)),
        _ => {
            item.wrong(format!(
                "{} is no status code or range of them, such as 200 or \"200-299\"",
                item.described()
            ));
            None
        }
    }
}

fn timing(section: &Section<'_>) -> Timing {
    let usual = Timing::default();
    let time = |key, range: RangeInclusive<Duration>, default| {
        section.get(key).and_then(|entry: Entry<'_>| entry.duration(range)).unwrap_or(default)
    };
    let times = |key, range: RangeInclusive<u32>, default| {
        section.get(key).and_then(|entry: Entry<'_>| entry.number(range)).unwrap_or(default)
    };
    let interval = time("interval", INTERVAL, usual.interval);
    let retry = times("retry", 0..=1000, usual.retry);
    if let Some(entry) = section.get("delay_before_retry").filter(|_| retry == 0) {
        entry.misplaced("`delay_before_retry` does nothing without `retry`");
    }
    Timing {
        interval,
        timeout: time("timeout", TIMEOUT, usual.timeout),
        rise: times("rise", TIMES, usual.rise),
        fall: times("fall", TIMES, usual.fall),
        retry,
        delay_before_retry: time("delay_before_retry", DELAY, usual.delay_before_retry),
        warmup: time("warmup", DELAY, interval),
    }
}

fn agent(entry: &Entry<'_>) -> Option<AgentSpec> {
    let section = Section::of(entry, "an agent", AGENT_KEYS)?;
    let Some(port) = section.get("port") else {
        section.wrong("an agent has a `port`");
        return None;
    };
    let mut agent = AgentSpec::at(port.port()?);
    let time = |key, range: RangeInclusive<Duration>, default| {
        section.get(key).and_then(|entry: Entry<'_>| entry.duration(range)).unwrap_or(default)
    };
    agent.interval = time("interval", INTERVAL, agent.interval);
    agent.timeout = time("timeout", TIMEOUT, agent.timeout);
    agent.slow_start = time("slow_start", DELAY, agent.slow_start);
    let percent = |key, range: RangeInclusive<u32>, default| {
        let said = section.get(key).and_then(|entry: Entry<'_>| entry.number(range));
        said.and_then(|percent| u16::try_from(percent).ok()).unwrap_or(default)
    };
    agent.most = percent("most", 1..=MOST_SHARE, agent.most);
    agent.smoothing = percent("smoothing", 1..=100, agent.smoothing);
    agent.step = percent("step", 0..=100, agent.step);
    agent.address = section.get("address").and_then(|entry| address::alone(&entry));
    agent.send = section.get("send").and_then(|entry| Some(entry.string("a text")?.to_owned()));
    Some(agent)
}
