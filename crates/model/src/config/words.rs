//! Words of messages, and the words that other programs have for ours.

use std::time::Duration;

use crate::nearest::nearest;

/// What keepalived, ipvsadm and HAProxy call it, and what it is called here.
const ELSEWHERE: &[(&str, &str)] = &[
    ("addr", "address"),
    ("agent_check", "agent"),
    ("agent_port", "agent"),
    ("connect_ip", "address"),
    ("connect_port", "port"),
    ("connect_timeout", "timeout"),
    ("delay_loop", "interval"),
    ("forward", "method"),
    ("fwmark", "mark"),
    ("health_check", "check"),
    ("inter", "interval"),
    ("ip", "address"),
    ("kind", "type"),
    ("l_threshold", "lower"),
    ("lb_algo", "scheduler"),
    ("lb_kind", "method"),
    ("lthreshold", "lower"),
    ("lvs_method", "method"),
    ("lvs_sched", "scheduler"),
    ("lvs_timeouts", "timeouts"),
    ("misc_path", "command"),
    ("misc_timeout", "timeout"),
    ("one_packet", "ops"),
    ("persistence", "persistent"),
    ("persistence_granularity", "netmask"),
    ("persistence_timeout", "persistent"),
    ("real_server", "servers"),
    ("sched_flags", "flags"),
    ("sni_name", "sni"),
    ("sorry_server", "sorry"),
    ("status_code", "status"),
    ("sysctl", "tunables"),
    ("u_threshold", "upper"),
    ("url", "path"),
    ("uthreshold", "upper"),
    ("virtual_server", "service"),
    ("virtualhost", "host"),
];

/// The same of values.
const VALUES_ELSEWHERE: &[(&str, &str)] = &[
    ("direct", "dr"),
    ("dns_check", "dns"),
    ("droute", "dr"),
    ("file_check", "file"),
    ("gatewaying", "dr"),
    ("gate", "dr"),
    ("http_get", "http"),
    ("ipip", "tun"),
    ("ipv4", "inet"),
    ("ipv6", "inet6"),
    ("masq", "nat"),
    ("masquerade", "nat"),
    ("masquerading", "nat"),
    ("misc_check", "script"),
    ("icmp", "ping"),
    ("ping_check", "ping"),
    ("smtp_check", "smtp"),
    ("ssl_get", "https"),
    ("tcp_check", "tcp"),
    ("tunnel", "tun"),
    ("udp_check", "udp"),
];

/// The complaint about a key that a table does not have.
pub(super) fn unknown_key(what: &str, key: &str, keys: &[&str]) -> String {
    let said = format!("{what} has no key `{key}`");
    let plain = key.to_ascii_lowercase().replace('-', "_");
    let elsewhere = ELSEWHERE.iter().find(|(other, own)| *other == plain && keys.contains(own));
    if let Some((_, own)) = elsewhere {
        return format!("{said}; here it is `{own}`");
    }
    match nearest(&plain, keys.iter().copied()) {
        Some(near) => format!("{said}; do you mean `{near}`?"),
        None => format!("{said}; it has {}", list(keys)),
    }
}

/// The complaint about a word that is none of those that are possible.
pub(super) fn unknown_word(kind: &str, said: &str, names: &[&str]) -> String {
    let complaint = format!("there is no {kind} \"{said}\"");
    if names.is_empty() {
        return format!("{complaint}; no [{kind}.{said}] is in this file");
    }
    let plain = said.to_ascii_lowercase();
    let elsewhere = VALUES_ELSEWHERE.iter().find(|(other, own)| *other == plain && names.contains(own));
    if let Some((_, own)) = elsewhere {
        return format!("{complaint}; here it is \"{own}\"");
    }
    match nearest(said, names.iter().copied()) {
        Some(near) => format!("{complaint}; do you mean \"{near}\"?"),
        None => format!("{complaint}; there is {}", list(names)),
    }
}

/// `a, b and c`.
pub(super) fn list(words: &[&str]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// In quotes, with what a TOML string cannot hold written out.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted += &format!("\\u{:04X}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// `500ms`, `2s`, `5m`, `1h`, `7d`, or seconds.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = if unit.is_empty() { "s" } else { unit.trim_start() };
    let (_, ms) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*ms).map(Duration::from_millis)
}

/// A time as [`duration`] reads it, in the greatest unit in which it is whole.
pub(super) fn time(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let whole = UNITS.iter().rev().find(|(_, unit)| ms % unit == 0 && ms >= *unit);
    let (name, unit) = whole.copied().unwrap_or(("s", 1000));
    format!("{}{name}", ms / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_is_written() {
        for text in ["0s", "1ms", "1500ms", "2s", "90s", "5m", "1h", "31d"] {
            assert_eq!(time(duration(text).expect(text)), text);
        }
        assert_eq!(duration("90"), Some(Duration::from_secs(90)));
        assert_eq!(duration("2 s"), Some(Duration::from_secs(2)));
        for wrong in ["", "s", "soon", "1.5s", "-1s", "5 weeks", "99999999999999999999s"] {
            assert_eq!(duration(wrong).filter(|_| !wrong.is_empty()), None, "{wrong}");
        }
    }

    #[test]
    fn every_word_of_others_leads_to_one_of_ours() {
        assert!(ELSEWHERE.is_sorted());
        let keys: Vec<&str> = [
            super::super::KEYS,
            super::super::service::KEYS,
            super::super::server::KEYS,
            super::super::check::ALL_KEYS,
        ]
        .concat();
        assert!(ELSEWHERE.iter().all(|(_, own)| keys.contains(own)));
    }
}
