//! What is said of the director as a whole.

use std::ops::RangeInclusive;

use xlvs_core::protocol::Protocol;

use super::address;
use super::entry::Entry;
use super::section::Section;
use crate::change::Change;
use crate::check::MAX_TIMEOUT;
use crate::marks::MarkRule;
use crate::spec::{Family, Timeouts};
use crate::state::Model;
use crate::tunables::Tunable;

/// Where on its interfaces a director is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hook {
    /// Where frames come out of the driver.
    #[default]
    Xdp,
    /// Behind that, on socket buffers: the better place where the driver has no native XDP.
    Tc,
}

pub(super) const HOOKS: [(&str, Hook); 2] = [("xdp", Hook::Xdp), ("tc", Hook::Tc)];

pub(super) fn hook(file: &Section<'_>) -> Option<Hook> {
    file.get("hook")?.word("hook", &HOOKS)
}

/// Sizes of the tables that a director is started with; `None`: as the command line or the default says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// IPv4 connections.
    pub max_conns: Option<u32>,
    /// IPv6 connections.
    pub max_conns_v6: Option<u32>,
    /// Virtual services.
    pub max_services: Option<u32>,
    /// Real servers, all services together.
    pub max_servers: Option<u32>,
}

/// Bounds of [`Sizes::max_conns`] and [`Sizes::max_conns_v6`].
pub const CONNS: RangeInclusive<u32> = 1000..=20_000_000;
/// Bounds of [`Sizes::max_services`].
pub const SERVICES: RangeInclusive<u32> = 1..=1_000_000;
/// Bounds of [`Sizes::max_servers`].
pub const SERVERS: RangeInclusive<u32> = 1..=4_000_000;

/// What the kernel's names of interfaces hold.
const INTERFACE_NAME_MAX: usize = 15;

pub(super) fn interfaces(file: &Section<'_>) -> Vec<String> {
    let Some(entry) = file.get("interfaces") else { return Vec::new() };
    let mut names: Vec<String> = Vec::new();
    for item in entry.items() {
        let Some(name) = item.string("a list of names such as \"eth0\"") else { continue };
        if name.is_empty() || name.len() > INTERFACE_NAME_MAX || name.contains(['/', ' ']) {
            item.wrong(format!("\"{name}\" is no name of an interface; `ip link` lists them"));
        } else if names.iter().any(|known| known == name) {
            item.wrong(format!("interface {name} is named twice"));
        } else {
            names.push(name.to_owned());
        }
    }
    names
}

pub(super) fn sizes(file: &Section<'_>) -> Sizes {
    let keys = ["max_conns", "max_conns_v6", "max_services", "max_servers"];
    let Some(tables) = file.section("tables", "`tables`", &keys) else { return Sizes::default() };
    let number = |key, range| tables.get(key).and_then(|entry: Entry<'_>| entry.number(range));
    Sizes {
        max_conns: number("max_conns", CONNS),
        max_conns_v6: number("max_conns_v6", CONNS),
        max_services: number("max_services", SERVICES),
        max_servers: number("max_servers", SERVERS),
    }
}

pub(super) fn timeouts(file: &Section<'_>, model: &mut Model) {
    let Some(section) = file.section("timeouts", "`timeouts`", &["tcp", "tcp_fin", "udp"]) else { return };
    let seconds = |key| section.get(key).and_then(|entry| entry.seconds(1..=MAX_TIMEOUT)).unwrap_or(0);
    let timeouts = Timeouts { tcp: seconds("tcp"), tcp_fin: seconds("tcp_fin"), udp: seconds("udp") };
    if let Err(why) = model.apply(&Change::SetTimeouts(timeouts)) {
        section.wrong(why.to_string());
    }
}

pub(super) fn tunables(file: &Section<'_>, model: &mut Model) {
    let Some(entry) = file.get("tunables") else { return };
    let Some(table) = entry.value.get_ref().as_table() else {
        return entry.wrong("`tunables` is a table such as { drop_entry = 3 }");
    };
    // Every name is a key as far as the table is concerned: LVS's tunables have suggestions of their own.
    let names: Vec<&str> = table.keys().map(|key| key.get_ref().as_ref()).collect();
    let Some(section) = Section::of(&entry, "`tunables`", &names) else { return };
    for entry in section.entries() {
        let tunable = match entry.key.parse::<Tunable>() {
            Ok(tunable) => tunable,
            Err(why) => {
                entry.misplaced(why.to_string());
                continue;
            }
        };
        let value = match entry.value.get_ref().as_bool() {
            Some(on) => Ok(u32::from(on)),
            None => tunable.parse(&entry.described()),
        };
        let tuned = value
            .map_err(|why| why.to_string())
            .and_then(|value| model.apply(&Change::Tune(tunable, value)).map_err(|why| why.to_string()));
        if let Err(why) = tuned {
            entry.wrong(why);
        }
    }
}

const MARK_KEYS: &[&str] = &["mark", "to", "port", "protocol", "family"];

pub(super) fn marks(file: &Section<'_>, model: &mut Model) {
    for section in file.sections("mark", "a rule of marks", MARK_KEYS) {
        let Some(rule) = mark(&section) else { continue };
        if let Err(why) = model.apply(&Change::AddMark(rule)) {
            section.wrong(format!("rule {rule}: {why}"));
        }
    }
}

fn mark(section: &Section<'_>) -> Option<MarkRule> {
    let Some(number) = section.get("mark") else {
        section.wrong("a rule says which `mark` packets get");
        return None;
    };
    let mark = number.number(1..=u32::MAX)?;
    let to = match section.get("to") {
        Some(entry) => Some(prefix(&entry)?),
        None => None,
    };
    let ports = section.get("port").map_or(Some((0, u16::MAX)), |entry| ports(&entry))?;
    let protocol = match section.get("protocol") {
        Some(entry) => Some(entry.word("protocol", &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)])? as u8),
        None => None,
    };
    let said = match section.get("family") {
        Some(entry) => Some(family(&entry)?),
        None => None,
    };
    let family = to.map(|(addr, _)| Family::of(addr)).or(said).unwrap_or(Family::Inet);
    if said.is_some_and(|said| said != family) {
        section.wrong("`family` and `to` are of different families");
        return None;
    }
    Some(MarkRule { mark, family, to, ports, protocol })
}

/// An address family by its name.
pub(super) fn family(entry: &Entry<'_>) -> Option<Family> {
    entry.word("family", &[("inet", Family::Inet), ("inet6", Family::Inet6)])
}

fn prefix(entry: &Entry<'_>) -> Option<(std::net::IpAddr, u8)> {
    let text = entry.string("an address or prefix such as \"192.0.2.0/24\"")?;
    let (addr, length) = text.split_once('/').map_or((text, None), |(addr, length)| (addr, Some(length)));
    let addr = match address::parse(addr) {
        Ok((addr, None)) => addr,
        Ok(_) => {
            entry.wrong("`to` is an address or prefix; ports are said with `port`");
            return None;
        }
        Err(why) => {
            entry.wrong(why);
            return None;
        }
    };
    let whole: u8 = if addr.is_ipv4() { 32 } else { 128 };
    match length.map_or(Ok(whole), str::parse) {
        Ok(length) if length <= whole => Some((addr, length)),
        _ => {
            entry.wrong(format!("a prefix of {addr} has 0 to {whole} bits"));
            None
        }
    }
}

/// `80` or `"80-89"`.
fn ports(entry: &Entry<'_>) -> Option<(u16, u16)> {
    if let Some(range) = entry.value.get_ref().as_str() {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.trim().parse(), last.trim().parse())
            && first <= last
        {
            return Some((first, last));
        }
        entry.wrong(format!("\"{range}\" is no port or range of ports; write 80 or \"5000-5999\""));
        return None;
    }
    let port = entry.number(0..=65_535).and_then(|port| u16::try_from(port).ok())?;
    Some((port, port))
}
