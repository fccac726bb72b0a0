//! Rules of marks from the output of `iptables-save` or `ip6tables-save`: a site that marks packets for LVS with netfilter
//! brings its rules along.
//!
//! Taken are the rules of table `mangle` that jump to MARK from PREROUTING or INPUT, which is where packets to a VIP pass. Of several
//! that fit a packet the last counts, there as here. What cannot be said as a [`MarkRule`] is named; it is never left out silently.

use thiserror::Error;

use crate::marks::{MarkRule, Parts};
use crate::spec::Family;

/// A line that is no rule of ours, and would change what packets are marked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {why}")]
pub struct Untaken {
    /// From 1 on.
    pub line: usize,
    /// What is in the way, and what to do.
    pub why: String,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// In the order of the file.
    pub rules: Vec<MarkRule>,
    /// In the order of the file. A caller applies nothing while there are any.
    pub untaken: Vec<Untaken>,
}

/// How rules are read that the file does not fully decide.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Whose tables they are: `iptables-save` is IPv4's, `ip6tables-save` IPv6's.
    pub family: Family,
    /// Takes rules of one interface (`-i`) for all interfaces of the director.
    pub any_interface: bool,
}

/// Chains that a packet to a VIP goes through before it is balanced.
const CHAINS: [&str; 2] = ["PREROUTING", "INPUT"];

/// Targets that neither end a packet's way through the chain nor touch its mark.
const HARMLESS: [&str; 13] = [
    "CHECKSUM",
    "CLASSIFY",
    "DSCP",
    "ECN",
    "HL",
    "HMARK",
    "LOG",
    "NFLOG",
    "TCPMSS",
    "TCPOPTSTRIP",
    "TOS",
    "TRACE",
    "TTL",
];

/// Reads the text of a whole file.
pub fn read(text: &str, reading: Reading) -> Imported {
    let mut imported = Imported::default();
    let mut in_mangle = true;
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if let Some(table) = line.strip_prefix('*') {
            in_mangle = table == "mangle";
        }
        let Some(rule) = line.strip_prefix("-A ").filter(|_| in_mangle) else { continue };
        match read_rule(rule, reading) {
            Ok(rules) => imported.rules.extend(rules),
            Err(why) => imported.untaken.push(Untaken { line: number, why }),
        }
    }
    imported
}

/// The rules that one line stands for: none if it marks nothing, several if it names several ranges of ports.
fn read_rule(line: &str, reading: Reading) -> Result<Vec<MarkRule>, String> {
    let Some(words) = shlex::split(line) else { return Err("its quotes do not close".to_owned()) };
    let mut words = words.iter().map(String::as_str);
    let chain = words.next().unwrap_or_default();
    let mut matches = Matches::default();
    while let Some(word) = words.next() {
        matches.take(word, &mut words, reading)?;
    }
    match (matches.target.as_deref(), CHAINS.contains(&chain)) {
        (Some("MARK"), true) => matches.rules(reading.family),
        (Some("MARK"), false) if chain == "OUTPUT" || chain == "POSTROUTING" || chain == "FORWARD" => {
            Ok(Vec::new())
        }
        (Some("MARK"), false) => Err(format!(
            "it marks in a chain of its own, {chain}; say its rules in PREROUTING, or with `xlvs mark add`"
        )),
        (Some(target), true) if !HARMLESS.contains(&target) => Err(format!(
            "it sends packets to {target} before later rules may mark them; say what is meant with `xlvs mark add`"
        )),
        _ => Ok(Vec::new()),
    }
}

/// What a rule asks of a packet, and what it does with it.
#[derive(Debug, Default)]
struct Matches {
    to: Option<String>,
    protocol: Option<String>,
    ports: Vec<String>,
    target: Option<String>,
    mark: Option<u32>,
    /// The first that no rule of ours can ask for. It matters only of a rule that marks.
    unsaid: Option<String>,
}

impl Matches {
    fn take<'w>(
        &mut self,
        word: &str,
        words: &mut impl Iterator<Item = &'w str>,
        reading: Reading,
    ) -> Result<(), String> {
        let mut value = || words.next().unwrap_or_default();
        match word {
            "-d" | "--destination" => self.to = Some(value().to_owned()),
            "-p" | "--protocol" => self.protocol = Some(value().to_owned()),
            "--dport" | "--destination-port" | "--dports" | "--destination-ports" => {
                self.ports = value().split(',').map(|range| range.replace(':', "-")).collect();
            }
            "-m" | "--match" => {
                let name = value();
                if !["tcp", "udp", "sctp", "multiport", "comment"].contains(&name) {
                    self.cannot(&format!("-m {name}"));
                }
            }
            "--comment" => drop(value()),
            "-i" | "--in-interface" => {
                let name = value();
                if !reading.any_interface {
                    self.cannot(&format!("-i {name} (--any-interface takes it for all interfaces)"));
                }
            }
            "-j" | "--jump" | "-g" | "--goto" => self.target = Some(value().to_owned()),
            "--set-mark" | "--set-xmark" => self.mark = Some(whole_mark(value())?),
            other => self.cannot(other),
        }
        Ok(())
    }

    fn cannot(&mut self, what: &str) {
        self.unsaid.get_or_insert_with(|| what.to_owned());
    }

    fn rules(self, family: Family) -> Result<Vec<MarkRule>, String> {
        if let Some(what) = self.unsaid {
            return Err(format!(
                "a rule of the director cannot ask for {what}; change the rule, or leave it out"
            ));
        }
        let mark = self.mark.ok_or("it sets no mark that is known beforehand; use --set-mark")?;
        let parts = Parts {
            to: self.to.as_deref(),
            ports: None,
            protocol: self.protocol.as_deref(),
            ipv6: family == Family::Inet6,
        };
        let rule = |ports| Parts { ports, ..parts }.rule(mark).map_err(|why| why.to_string());
        if self.ports.is_empty() {
            return rule(None).map(|rule| vec![rule]);
        }
        self.ports.iter().map(|ports| rule(Some(ports))).collect()
    }
}

/// `0x1/0xffffffff`, as iptables-save writes it, or a number alone. Of a part of the mark nothing is known: the rest is what rules
/// before left there.
fn whole_mark(text: &str) -> Result<u32, String> {
    let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    match (number(value), number(mask)) {
        (Some(0), Some(_)) => Err("it takes the mark away; the director's rules only set marks".to_owned()),
        (Some(value), Some(u32::MAX)) => Ok(value),
        (Some(_), Some(_)) => Err(format!("{text} sets a part of the mark; set all of it (mask 0xffffffff)")),
        _ => Err(format!("{text} is no mark")),
    }
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Reading = Reading { family: Family::Inet, any_interface: false };

    fn rules(imported: &Imported) -> Vec<String> {
        imported.rules.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_rules_of_an_lvs_site_are_taken() {
        let text = r#"# Generated by iptables-save v1.8.9 on Thu Nov 26 10:00:00 2026
*nat
-A PREROUTING -d 192.0.2.1/32 -p tcp -m tcp --dport 25 -j DNAT --to-destination 10.0.0.9
COMMIT
*mangle
:PREROUTING ACCEPT [12:720]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -d 192.0.2.10/32 -p tcp -m tcp --dport 80 -m comment --comment "the \"shop\"" -j MARK --set-xmark 0x1/0xffffffff
-A PREROUTING -d 192.0.2.10/32 -p tcp -m multiport --dports 443,8000:8009 -j MARK --set-mark 1
-A PREROUTING -d 192.0.2.64/26 -j MARK --set-xmark 0x2a/0xffffffff
-A PREROUTING -p tcp -j TCPMSS --clamp-mss-to-pmtu
-A INPUT -p udp -m udp --dport 53 -j MARK --set-xmark 0x3/0xffffffff
-A OUTPUT -d 192.0.2.10/32 -j MARK --set-xmark 0x1/0xffffffff
COMMIT
"#;
        let imported = read(text, V4);
        assert_eq!(imported.untaken, []);
        assert_eq!(
            rules(&imported),
            [
                "1 --to 192.0.2.10/32 --port 80 --protocol tcp",
                "1 --to 192.0.2.10/32 --port 443 --protocol tcp",
                "1 --to 192.0.2.10/32 --port 8000-8009 --protocol tcp",
                "42 --to 192.0.2.64/26",
                "3 --port 53 --protocol udp",
            ]
        );
    }

    #[test]
    fn ipv6_rules_are_those_of_ip6tables() {
        let text = "-A PREROUTING -d 2001:db8::10/128 -p tcp --dport 80 -j MARK --set-mark 7\n-A PREROUTING -p udp -j MARK --set-mark 8";
        let imported = read(text, Reading { family: Family::Inet6, any_interface: false });
        assert_eq!(
            rules(&imported),
            ["7 --to 2001:db8::10/128 --port 80 --protocol tcp", "8 --ipv6 --protocol udp"]
        );
    }

    #[test]
    fn what_cannot_be_taken_is_named_with_its_line() {
        let cases = [
            ("-A PREROUTING -s 10.0.0.0/8 -j MARK --set-mark 1", "-s"),
            ("-A PREROUTING ! -d 192.0.2.1/32 -j MARK --set-mark 1", "!"),
            ("-A PREROUTING -i eth0 -j MARK --set-mark 1", "--any-interface"),
            ("-A PREROUTING -m state --state NEW -j MARK --set-mark 1", "-m state"),
            ("-A PREROUTING -j MARK --set-xmark 0x1/0x1", "part of the mark"),
            ("-A PREROUTING -j MARK --set-mark 0", "takes the mark away"),
            ("-A PREROUTING -j MARK --set-mark one", "no mark"),
            ("-A PREROUTING -j MARK --or-mark 1", "--or-mark"),
            ("-A PREROUTING -d 192.0.2.1/32 -j RETURN", "RETURN"),
            ("-A PREROUTING -j lvs", "lvs"),
            ("-A PREROUTING -j CONNMARK --restore-mark", "CONNMARK"),
            ("-A lvs -d 192.0.2.1/32 -j MARK --set-mark 1", "chain of its own"),
            ("-A PREROUTING -p icmp -j MARK --set-mark 1", "no protocol that is marked"),
            ("-A PREROUTING -p tcp --dport http -j MARK --set-mark 1", "no port"),
            ("-A PREROUTING -m comment --comment \"open -j MARK --set-mark 1", "quotes"),
        ];
        for (line, word) in cases {
            let imported = read(&format!("*mangle\n{line}\n"), V4);
            assert_eq!(imported.rules, [], "{line}");
            let [untaken] = &imported.untaken[..] else { panic!("{line}: {:?}", imported.untaken) };
            assert!(
                untaken.to_string().starts_with("line 2: ") && untaken.why.contains(word),
                "{line}: {untaken}"
            );
        }
    }

    #[test]
    fn an_interface_may_be_taken_for_all() {
        let line = "-A PREROUTING -i eth0 -d 192.0.2.1/32 -j MARK --set-mark 1";
        let imported = read(line, Reading { any_interface: true, ..V4 });
        assert_eq!(rules(&imported), ["1 --to 192.0.2.1/32"]);
    }
}
