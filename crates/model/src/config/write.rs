//! A configuration as a file that reads back equal.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::globals::HOOKS;
use super::words::{quoted, time};
use super::{Config, Http};
use crate::marks::MarkRule;
use crate::spec::{
    Family, Method, Mss, Protocol, SchedFlags, ServerSpec, ServiceKey, ServiceSpec, Timeouts, Tunnel,
    TunnelChecksum, TunnelType,
};
use crate::state::Service;
use crate::tunables::Tunable;
use crate::watch::{
    AgentSpec, CheckKind, CheckSpec, Command, HttpSpec, HttpVersion, OnFailure, Pool, Timing, TlsSpec, Watch,
};

impl Config {
    /// The file. What has its default is left out.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        if !self.interfaces.is_empty() {
            line(&mut text, "interfaces", list(self.interfaces.iter().map(|name| quoted(name))));
        }
        let hook = HOOKS.iter().find(|(_, hook)| self.hook == Some(*hook));
        hook.into_iter().for_each(|(name, _)| line(&mut text, "hook", quoted(name)));
        self.write_globals(&mut text);
        self.model.marks().iter().for_each(|rule| write_mark(&mut text, rule));
        let none = Pool::default();
        for service in self.model.services() {
            write_service(&mut text, service, self.pools.get(&service.spec.key).unwrap_or(&none));
        }
        text
    }

    fn write_globals(&self, text: &mut String) {
        let sizes = [
            ("max_conns", self.sizes.max_conns),
            ("max_conns_v6", self.sizes.max_conns_v6),
            ("max_services", self.sizes.max_services),
            ("max_servers", self.sizes.max_servers),
        ];
        table(text, "tables", sizes.into_iter().filter_map(|(key, size)| Some((key, size?))));
        write_http(text, &self.http);
        let Timeouts { tcp, tcp_fin, udp } = self.model.timeouts();
        let usual = Timeouts::default();
        let timeouts =
            [("tcp", tcp, usual.tcp), ("tcp_fin", tcp_fin, usual.tcp_fin), ("udp", udp, usual.udp)];
        let differing = timeouts.into_iter().filter(|(_, seconds, usual)| seconds != usual);
        table(text, "timeouts", differing.map(|(key, seconds, _)| (key, seconds)));
        let tunables = Tunable::all().map(|tunable| (tunable, self.model.tunables().get(tunable)));
        let changed = tunables.filter(|(tunable, value)| *value != tunable.default_value());
        table(text, "tunables", changed.map(|(tunable, value)| (tunable.name(), value)));
    }
}

fn write_http(text: &mut String, http: &Http) {
    let file = |path: &Path| quoted(&path.to_string_lossy());
    let Http { listen, tls, tokens, group, per_server } = http;
    let lines = [
        ("listen", listen.map(|at| quoted(&at.to_string()))),
        ("cert", tls.as_ref().map(|(cert, _)| file(cert))),
        ("key", tls.as_ref().map(|(_, key)| file(key))),
        ("tokens", tokens.as_deref().map(file)),
        ("group", group.as_deref().map(quoted)),
        ("per_server", per_server.then(|| "true".to_owned())),
    ];
    table(text, "http", lines.into_iter().filter_map(|(key, value)| Some((key, value?))));
}

fn table<'k>(text: &mut String, name: &str, lines: impl Iterator<Item = (&'k str, impl std::fmt::Display)>) {
    let mut head = Some(format!("\n[{name}]\n"));
    for (key, value) in lines {
        text.extend(head.take());
        line(text, key, value);
    }
}

fn line(text: &mut String, key: &str, value: impl std::fmt::Display) {
    // Writing to a string cannot fail.
    _ = writeln!(text, "{key} = {value}");
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(", "))
}

/// Keys and values of one table, in the order in which they are written.
type Pairs = Vec<(&'static str, String)>;

fn inline(pairs: &Pairs) -> String {
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    format!("{{ {} }}", pairs.join(", "))
}

fn write_mark(text: &mut String, rule: &MarkRule) {
    *text += "\n[[mark]]\n";
    line(text, "mark", rule.mark);
    match rule.to {
        Some((addr, prefix)) => line(text, "to", quoted(&format!("{addr}/{prefix}"))),
        None if rule.family == Family::Inet6 => line(text, "family", "\"inet6\""),
        None => {}
    }
    match rule.ports {
        (0, u16::MAX) => {}
        (first, last) if first == last => line(text, "port", first),
        (first, last) => line(text, "port", quoted(&format!("{first}-{last}"))),
    }
    if let Some(protocol) = rule.protocol.and_then(Protocol::from_u8) {
        line(text, "protocol", quoted(&protocol.listed().to_lowercase()));
    }
}

fn write_service(text: &mut String, service: &Service, pool: &Pool) {
    *text += "\n[[service]]\n";
    let Service { spec, servers } = service;
    let shared = Shared::of(servers, pool);
    let pairs = [identity(&spec.key), specification(spec), shared.pairs(), pool_pairs(pool)].concat();
    pairs.iter().for_each(|(key, value)| line(text, key, value));
    if let Some(sorry) = &pool.sorry {
        line(text, "sorry", server(sorry, &spec.key, shared.method, &Pairs::new()));
    }
    if servers.is_empty() {
        return;
    }
    *text += "servers = [\n";
    for spec in servers {
        let watch = pool.servers.get(&spec.key).filter(|watch| **watch != shared.watch);
        let own = watch.map(watch_pairs).unwrap_or_default();
        _ = writeln!(text, "    {},", server(spec, &service.spec.key, shared.method, &own));
    }
    *text += "]\n";
}

fn identity(key: &ServiceKey) -> Pairs {
    match *key {
        ServiceKey::Address { protocol, addr, port } => {
            let key = match protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
                Protocol::Sctp => "sctp",
            };
            vec![(key, quoted(&SocketAddr::new(addr, port).to_string()))]
        }
        ServiceKey::Mark { mark, family: Family::Inet } => vec![("mark", mark.to_string())],
        ServiceKey::Mark { mark, family: Family::Inet6 } => {
            vec![("mark", mark.to_string()), ("family", quoted("inet6"))]
        }
    }
}

fn specification(spec: &ServiceSpec) -> Pairs {
    let mut pairs = vec![("scheduler", quoted(spec.scheduler.name()))];
    let SchedFlags { fallback, port, third } = spec.flags;
    let flags = [(fallback, "flag-1"), (port, "flag-2"), (third, "flag-3")];
    let flags: Vec<_> = flags.into_iter().filter(|(on, _)| *on).map(|(_, name)| quoted(name)).collect();
    if !flags.is_empty() {
        pairs.push(("flags", list(flags)));
    }
    if let Some(persistence) = spec.persistence {
        pairs.push(("persistent", persistence.timeout.to_string()));
    }
    if spec.netmask != spec.key.family().whole_netmask() {
        let mask = match spec.key.family() {
            Family::Inet => quoted(&Ipv4Addr::from(spec.netmask).to_string()),
            Family::Inet6 => spec.netmask.to_string(),
        };
        pairs.push(("netmask", mask));
    }
    if spec.one_packet {
        pairs.push(("ops", "true".to_owned()));
    }
    pairs.extend(spec.mss.map(|mss| ("mss", mss_word(mss))));
    pairs
}

fn mss_word(mss: Mss) -> String {
    match mss {
        Mss::Auto => quoted("auto"),
        Mss::Most(bytes) => bytes.to_string(),
    }
}

fn pool_pairs(pool: &Pool) -> Pairs {
    let mut pairs = Pairs::new();
    if pool.quorum != 1 {
        pairs.push(("quorum", pool.quorum.to_string()));
    }
    if pool.hysteresis != 0 {
        pairs.push(("hysteresis", pool.hysteresis.to_string()));
    }
    if pool.panic != 0 {
        pairs.push(("panic", pool.panic.to_string()));
    }
    pairs.extend(pool.quorum_up.as_ref().map(|command| ("quorum_up", words(command))));
    pairs.extend(pool.quorum_down.as_ref().map(|command| ("quorum_down", words(command))));
    pairs
}

fn words(command: &Command) -> String {
    list(command.iter().map(|word| quoted(word)))
}

impl std::fmt::Display for Watch {
    /// In the file's words.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&said(&watch_pairs(self)))
    }
}

impl Pool {
    /// What is said of the service as a whole, in the file's words.
    pub fn words(&self) -> String {
        let sorry = self.sorry.map(|sorry| {
            let any_port = ServiceKey::Mark { mark: 1, family: Family::Inet };
            ("sorry", server(&sorry, &any_port, Method::Direct, &Pairs::new()))
        });
        said(&pool_pairs(self).into_iter().chain(sorry).collect())
    }
}

fn said(pairs: &Pairs) -> String {
    if pairs.is_empty() {
        return "nothing".to_owned();
    }
    pairs.iter().map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join(", ")
}

/// What is written once for all servers of a service.
struct Shared {
    method: Method,
    watch: Watch,
}

impl Shared {
    /// The first server's method, and how the servers are looked after if that is the same for all.
    fn of(servers: &[ServerSpec], pool: &Pool) -> Self {
        let watch_of = |server: &ServerSpec| pool.servers.get(&server.key).cloned().unwrap_or_default();
        let method = servers.first().map_or(Method::Direct, |server| server.method);
        let first = servers.first().map(watch_of).unwrap_or_default();
        let is_shared = servers.iter().all(|server| watch_of(server) == first);
        Self { method, watch: if is_shared { first } else { Watch::default() } }
    }

    fn pairs(&self) -> Pairs {
        let method = ("method", quoted(method_word(self.method)));
        [method].into_iter().chain(watch_pairs(&self.watch)).collect()
    }
}

fn method_word(method: Method) -> &'static str {
    match method {
        Method::Masquerade => "nat",
        Method::Tunnel => "tun",
        Method::Direct | Method::Local => "dr",
    }
}

/// A server: its address, or a table where more is said of it.
fn server(spec: &ServerSpec, service: &ServiceKey, method: Method, watch: &Pairs) -> String {
    let ServerSpec { key, weight, upper, lower, tunnel, .. } = *spec;
    let address = match service {
        ServiceKey::Mark { .. } if key.port == 0 => key.addr.to_string(),
        _ => SocketAddr::new(key.addr, key.port).to_string(),
    };
    let mut pairs = Pairs::new();
    if spec.method != method {
        pairs.push(("method", quoted(method_word(spec.method))));
    }
    if spec.method == Method::Tunnel {
        pairs.extend(tunnel_pairs(tunnel));
    }
    for (key, value, usual) in [("weight", weight, 1), ("upper", upper, 0), ("lower", lower, 0)] {
        if value != usual {
            pairs.push((key, value.to_string()));
        }
    }
    pairs.extend(watch.iter().cloned());
    if pairs.is_empty() {
        return quoted(&address);
    }
    pairs.insert(0, ("address", quoted(&address)));
    inline(&pairs)
}

fn tunnel_pairs(tunnel: Tunnel) -> Pairs {
    let mut pairs = Pairs::new();
    match tunnel.kind {
        TunnelType::IpIp => {}
        TunnelType::Gre => pairs.push(("tun_type", quoted("gre"))),
        TunnelType::Gue => {
            pairs.push(("tun_type", quoted("gue")));
            pairs.push(("tun_port", tunnel.port.to_string()));
        }
    }
    match tunnel.checksum {
        TunnelChecksum::None => {}
        TunnelChecksum::Full => pairs.push(("tun_csum", quoted("csum"))),
        TunnelChecksum::Remote => pairs.push(("tun_csum", quoted("remcsum"))),
    }
    pairs
}

fn watch_pairs(watch: &Watch) -> Pairs {
    let mut pairs = Pairs::new();
    match &watch.checks[..] {
        [] => {}
        [one] => pairs.push(("check", inline(&check_pairs(one)))),
        more => pairs.push(("check", list(more.iter().map(|check| inline(&check_pairs(check)))))),
    }
    pairs.extend(watch.agent.as_ref().map(|agent| ("agent", inline(&agent_pairs(agent)))));
    for (key, on) in [("alpha", watch.alpha), ("inhibit_on_failure", watch.inhibit_on_failure)] {
        if on {
            pairs.push((key, "true".to_owned()));
        }
    }
    if watch.on_failure != OnFailure::default() {
        pairs.push(("on_failure", quoted(watch.on_failure.word())));
    }
    pairs.extend(watch.damping.map(|half_life| ("damping", quoted(&time(half_life)))));
    pairs.extend(watch.notify_up.as_ref().map(|command| ("notify_up", words(command))));
    pairs.extend(watch.notify_down.as_ref().map(|command| ("notify_down", words(command))));
    pairs
}

/// Port and way are written always: the server's own port may change, and with it the way that is usual.
fn check_pairs(check: &CheckSpec) -> Pairs {
    let mut pairs = Pairs::new();
    match &check.kind {
        CheckKind::Tcp => pairs.push(("type", quoted("tcp"))),
        CheckKind::Http(http) => pairs.extend(http_pairs(http)),
        CheckKind::Grpc(grpc) => {
            pairs.push(("type", quoted(if grpc.tls.is_some() { "grpcs" } else { "grpc" })));
            pairs.extend(grpc.host.as_ref().map(|host| ("host", quoted(host))));
            pairs.extend(Some(("service", quoted(&grpc.service))).filter(|_| !grpc.service.is_empty()));
            pairs.extend(grpc.tls.iter().flat_map(tls_pairs));
        }
        CheckKind::Udp(udp) => {
            pairs.push(("type", quoted("udp")));
            pairs.extend(Some(("send", quoted(&udp.send))).filter(|_| !udp.send.is_empty()));
            pairs.extend(udp.answer.as_ref().map(|answer| ("answer", quoted(answer))));
        }
        CheckKind::Dns(dns) => {
            let pair = |key, value: &str| (key, quoted(value));
            pairs.extend([pair("type", "dns"), pair("name", &dns.name), pair("record", dns.record.word())]);
        }
        CheckKind::Smtp(smtp) => {
            pairs.push(("type", quoted("smtp")));
            pairs.extend(smtp.helo.as_ref().map(|helo| ("helo", quoted(helo))));
        }
        CheckKind::Ping => pairs.push(("type", quoted("ping"))),
        CheckKind::File(path) => pairs.extend([("type", quoted("file")), ("file", quoted(path))]),
        CheckKind::Script(command) => {
            pairs.push(("type", quoted("script")));
            pairs.push(("command", words(command)));
        }
    }
    pairs.extend(check.address.map(|addr| ("address", quoted(&addr.to_string()))));
    // Some may do without.
    if check.port != 0 {
        pairs.push(("port", check.port.to_string()));
    }
    if check.kind.speaks_tcp() || check.kind.speaks_udp() {
        pairs.push(("via", quoted(check.via.word())));
    }
    pairs.extend(timing_pairs(&check.timing));
    pairs
}

fn http_pairs(http: &HttpSpec) -> Pairs {
    let mut pairs = vec![("type", quoted(if http.tls.is_some() { "https" } else { "http" }))];
    if http.path != "/" {
        pairs.push(("path", quoted(&http.path)));
    }
    if http.version != HttpVersion::default() {
        pairs.push(("version", quoted(http.version.word())));
    }
    pairs.extend(http.host.as_ref().map(|host| ("host", quoted(host))));
    if http.status != [(200, 299)] {
        let range = |(first, last): &(u16, u16)| match first == last {
            true => first.to_string(),
            false => quoted(&format!("{first}-{last}")),
        };
        pairs.push(("status", list(http.status.iter().map(range))));
    }
    pairs.extend(http.body.as_ref().map(|body| ("body", quoted(body))));
    pairs.extend(http.digest.as_ref().map(|digest| ("digest", quoted(digest))));
    pairs.extend(http.tls.iter().flat_map(tls_pairs));
    pairs
}

fn tls_pairs(tls: &TlsSpec) -> Pairs {
    let mut pairs = Pairs::new();
    pairs.extend(tls.sni.as_ref().map(|sni| ("sni", quoted(sni))));
    if tls.verify {
        pairs.push(("verify", "true".to_owned()));
    }
    if tls.warn_expiry != TlsSpec::default().warn_expiry {
        pairs.push(("warn_expiry", quoted(&time(tls.warn_expiry))));
    }
    pairs
}

fn timing_pairs(timing: &Timing) -> Pairs {
    let usual = Timing::default();
    let mut pairs = Pairs::new();
    times(
        &mut pairs,
        &[("interval", timing.interval, usual.interval), ("timeout", timing.timeout, usual.timeout)],
    );
    for (key, count, usual) in [
        ("rise", timing.rise, usual.rise),
        ("fall", timing.fall, usual.fall),
        ("retry", timing.retry, usual.retry),
    ] {
        if count != usual {
            pairs.push((key, count.to_string()));
        }
    }
    times(
        &mut pairs,
        &[
            ("delay_before_retry", timing.delay_before_retry, usual.delay_before_retry),
            ("warmup", timing.warmup, timing.interval),
        ],
    );
    pairs
}

fn agent_pairs(agent: &AgentSpec) -> Pairs {
    let usual = AgentSpec::at(agent.port);
    let mut pairs = vec![("port", agent.port.to_string())];
    pairs.extend(agent.address.map(|addr| ("address", quoted(&addr.to_string()))));
    times(
        &mut pairs,
        &[("interval", agent.interval, usual.interval), ("timeout", agent.timeout, usual.timeout)],
    );
    pairs.extend(agent.send.as_ref().map(|send| ("send", quoted(send))));
    for (key, percent, usual) in [
        ("most", agent.most, usual.most),
        ("smoothing", agent.smoothing, usual.smoothing),
        ("step", agent.step, usual.step),
    ] {
        if percent != usual {
            pairs.push((key, percent.to_string()));
        }
    }
    times(&mut pairs, &[("slow_start", agent.slow_start, usual.slow_start)]);
    pairs
}

fn times(pairs: &mut Pairs, times: &[(&'static str, Duration, Duration)]) {
    let differing = times.iter().filter(|(_, value, usual)| value != usual);
    pairs.extend(differing.map(|(key, value, _)| (*key, quoted(&time(*value)))));
}
