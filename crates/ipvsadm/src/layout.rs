//! Services and servers as lines of text: the columns of listings, and the commands of `-S`.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use xlvs_model::spec::{Method, Protocol, Scheduler, TunnelChecksum, TunnelType};
use xlvs_model::view::{Rates, ServerView, ServiceView, Stats};
use xlvs_model::{Family, SchedFlags, ServiceKey, ServiceSpec, Tunnel};

use crate::count::{self, Counts};
use crate::legal;
use crate::meant::Columns;
use crate::names::Printer;

/// Where an IPv4 service's name is cut off; IPv6 names never are.
const SERVICE_WIDTH: usize = 33;
/// Where an IPv4 server's name is cut off.
const SERVER_WIDTH: usize = 28;
/// Where every name is cut off: the original's buffer.
const NAME_MAX: usize = 59;

/// The two lines over the columns.
pub(crate) fn title(columns: Columns) -> String {
    const LOCAL: &str = "Prot LocalAddress:Port";
    const REMOTE: &str = "  -> RemoteAddress:Port";
    let counters = |names: [&str; 5]| {
        let [a, b, c, d, e] = names;
        format!("{LOCAL:<33} {a:>8} {b:>8} {c:>8} {d:>8} {e:>8}\n{REMOTE}\n")
    };
    match columns {
        Columns::Usual => format!(
            "{LOCAL} Scheduler Flags\n  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
        ),
        Columns::TunInfo => format!(
            "{LOCAL} Scheduler Flags\n  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n"
        ),
        Columns::Stats => counters(["Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"]),
        Columns::Rate => counters(["CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"]),
        Columns::Thresholds => {
            let [a, b, c, d] = ["Uthreshold", "Lthreshold", "ActiveConn", "InActConn"];
            format!("{LOCAL:<33} {a:<10} {b:<10} {c:<10} {d:<10}\n{REMOTE}\n")
        }
        Columns::PersistentConn => {
            let [a, b, c, d] = ["Weight", "PersistConn", "ActiveConn", "InActConn"];
            format!("{LOCAL:<33} {a:<9} {b:<11} {c:<10} {d:<10}\n{REMOTE}\n")
        }
    }
}

/// The line of a service.
pub(crate) fn service_line(
    service: &ServiceView,
    columns: Columns,
    counts: Counts,
    printer: &mut Printer<'_>,
) -> String {
    let label = service_label(&service.spec.key, printer);
    match columns {
        Columns::Stats => format!("{label:<33}{}\n", stats_columns(&service.stats, counts)),
        Columns::Rate => {
            let Rates { cps, in_pps, out_pps, in_bps, out_bps } = service.rates;
            format!("{label:<33}{}\n", count_columns([cps, in_pps, out_pps, in_bps, out_bps], counts))
        }
        _ => format!("{label} {}\n", service_words(&service.spec)),
    }
}

/// The line of a server.
pub(crate) fn server_line(
    server: &ServerView,
    service: &ServiceKey,
    columns: Columns,
    counts: Counts,
    printer: &mut Printer<'_>,
) -> String {
    let key = server.spec.key;
    let name = shortened(printer.address(key.addr, key.port, protocol(service)));
    let name = if key.family() == Family::Inet { cut(name, SERVER_WIDTH) } else { name };
    let ServerView { active, inactive, persistent, .. } = server;
    let (weight, forward) = (server.spec.weight, server.spec.method.listed());
    match columns {
        Columns::Usual => format!("  -> {name:<28} {forward:<7} {weight:<6} {active:<10} {inactive:<10}\n"),
        Columns::TunInfo => {
            let info = tunnel_info(server.spec.method, server.spec.tunnel);
            format!("  -> {name:<28} {forward:<7} {info:<13} {weight:<6} {active:<10} {inactive:<10}\n")
        }
        Columns::Stats => format!("  -> {name:<28}{}\n", stats_columns(&server.stats, counts)),
        Columns::Rate => {
            let Rates { cps, in_pps, out_pps, in_bps, out_bps } = server.rates;
            let bytes = count_columns([in_bps, out_bps], counts);
            // Only the bytes are ever abbreviated here.
            format!("  -> {name:<28} {cps:>8} {in_pps:>8} {out_pps:>8}{bytes}\n")
        }
        Columns::Thresholds => {
            let (upper, lower) = (server.spec.upper, server.spec.lower);
            format!("  -> {name:<28} {upper:<10} {lower:<10} {active:<10} {inactive:<10}\n")
        }
        Columns::PersistentConn => {
            format!("  -> {name:<28} {weight:<9} {persistent:<11} {active:<10} {inactive:<10}\n")
        }
    }
}

/// The commands that make a service and its servers.
pub(crate) fn rules(service: &ServiceView, printer: &mut Printer<'_>) -> String {
    let name = rule_name(&service.spec.key, printer);
    let mut text = format!("-A {name} -s {}{}\n", service.spec.scheduler.name(), rule_options(&service.spec));
    for server in &service.servers {
        let key = server.spec.key;
        let addr = printer.address(key.addr, key.port, protocol(&service.spec.key));
        let method = match server.spec.method {
            Method::Masquerade => "-m",
            Method::Tunnel => "-i",
            Method::Direct | Method::Local => "-g",
        };
        let tunnel = rule_tunnel(server.spec.method, server.spec.tunnel);
        // Writing to a string cannot fail.
        _ = writeln!(text, "-a {name} -r {addr} {method} -w {}{tunnel}", server.spec.weight);
    }
    text
}

/// The protocol that names a port; a mark has none, so its servers' ports stay numbers.
fn protocol(service: &ServiceKey) -> Option<Protocol> {
    match service {
        ServiceKey::Address { protocol, .. } => Some(*protocol),
        ServiceKey::Mark { .. } => None,
    }
}

fn service_label(key: &ServiceKey, printer: &mut Printer<'_>) -> String {
    match *key {
        ServiceKey::Address { protocol, addr, port } => {
            let name = shortened(printer.address(addr, port, Some(protocol)));
            let label = format!("{:<4} {name}", protocol.listed());
            if addr.is_ipv4() { cut(label, SERVICE_WIDTH) } else { label }
        }
        ServiceKey::Mark { mark, family } => format!("FWM  {}", mark_words(mark, family, " IPv6")),
    }
}

fn rule_name(key: &ServiceKey, printer: &mut Printer<'_>) -> String {
    match *key {
        ServiceKey::Address { protocol, addr, port } => {
            let option = match protocol {
                Protocol::Tcp => "-t",
                Protocol::Udp => "-u",
                Protocol::Sctp => "--sctp-service",
            };
            format!("{option} {}", printer.address(addr, port, Some(protocol)))
        }
        ServiceKey::Mark { mark, family } => format!("-f {}", mark_words(mark, family, " -6")),
    }
}

/// Version 1.31 shows marks as signed numbers.
fn mark_words(mark: u32, family: Family, ipv6: &str) -> String {
    format!("{}{}", mark as i32, if family == Family::Inet6 { ipv6 } else { "" })
}

fn service_words(spec: &ServiceSpec) -> String {
    let mut text = spec.scheduler.name().to_owned();
    if spec.flags != SchedFlags::default() {
        text += &format!(" ({})", flag_names(spec.scheduler, spec.flags));
    }
    if let Some(persistence) = spec.persistence {
        text += &format!(" persistent {}", persistence.timeout);
        text += &netmask(spec, " mask ");
        text += &engine(spec, " pe ");
    }
    if spec.one_packet {
        text += " ops";
    }
    text
}

fn rule_options(spec: &ServiceSpec) -> String {
    let mut text = String::new();
    if let Some(persistence) = spec.persistence {
        text += &format!(" -p {}", persistence.timeout);
        text += &netmask(spec, " -M ");
    }
    text += &engine(spec, " --pe ");
    if spec.one_packet {
        text += " -o";
    }
    if spec.flags != SchedFlags::default() {
        text += &format!(" -b {}", flag_names(spec.scheduler, spec.flags));
    }
    text
}

pub(crate) fn netmask(spec: &ServiceSpec, before: &str) -> String {
    let family = spec.key.family();
    match (spec.netmask, family) {
        (whole, family) if whole == family.whole_netmask() => String::new(),
        (mask, Family::Inet) => format!("{before}{}", Ipv4Addr::from(mask)),
        (prefix, Family::Inet6) => format!("{before}{prefix}"),
    }
}

pub(crate) fn engine(spec: &ServiceSpec, before: &str) -> String {
    spec.engine.as_deref().map_or_else(String::new, |name| format!("{before}{name}"))
}

/// For sh and mh the flags have names, and the third, which they do not have, is not shown.
fn flag_names(scheduler: Scheduler, flags: SchedFlags) -> String {
    let names = match scheduler {
        Scheduler::Sh => ["sh-fallback", "sh-port", ""],
        Scheduler::Mh => ["mh-fallback", "mh-port", ""],
        _ => ["flag-1", "flag-2", "flag-3"],
    };
    let set = [flags.fallback, flags.port, flags.third];
    let shown = names.into_iter().zip(set).filter(|(name, set)| *set && !name.is_empty());
    shown.map(|(name, _)| name).collect::<Vec<_>>().join(",")
}

fn tunnel_info(method: Method, tunnel: Tunnel) -> String {
    let checksum = match tunnel.checksum {
        TunnelChecksum::None => "-c",
        TunnelChecksum::Full => "+c",
        TunnelChecksum::Remote => "r+c",
    };
    match tunnel.kind {
        _ if method != Method::Tunnel => "n/a".to_owned(),
        TunnelType::IpIp => "ipip".to_owned(),
        TunnelType::Gue => format!("gue:{}:{checksum}", tunnel.port),
        TunnelType::Gre => format!("gre:{checksum}"),
    }
}

pub(crate) fn rule_tunnel(method: Method, tunnel: Tunnel) -> String {
    let checksum = match tunnel.checksum {
        TunnelChecksum::None => "--tun-nocsum",
        TunnelChecksum::Full => "--tun-csum",
        TunnelChecksum::Remote => "--tun-remcsum",
    };
    let kind = legal::tunnel_name(tunnel.kind);
    match tunnel.kind {
        _ if method != Method::Tunnel => String::new(),
        TunnelType::IpIp => format!(" --tun-type {kind}"),
        TunnelType::Gue => format!(" --tun-type {kind} --tun-port {} {checksum}", tunnel.port),
        TunnelType::Gre => format!(" --tun-type {kind} {checksum}"),
    }
}

fn stats_columns(stats: &Stats, counts: Counts) -> String {
    let Stats { conns, in_packets, out_packets, in_bytes, out_bytes } = *stats;
    count_columns([conns, in_packets, out_packets, in_bytes, out_bytes], counts)
}

fn count_columns<const N: usize>(values: [u64; N], counts: Counts) -> String {
    values.map(|value| count::column(value, counts)).concat()
}

/// A name as long as listings show one at all.
pub(crate) fn shortened(name: String) -> String {
    cut(name, NAME_MAX)
}

fn cut(text: String, width: usize) -> String {
    match text.char_indices().nth(width) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}
