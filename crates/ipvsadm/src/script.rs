//! A director's whole state as a file of commands: written so that nothing is forgotten, and read to its end before
//! anything is done.
//!
//! The file is what `-R` takes, and more of it: thresholds, timeouts and daemons, masks without persistence, every
//! scheduler flag, servers in the order in which schedulers walk them; and `tune NAME=VALUE` and `mark RULE`, for which the
//! original has no commands. Lines that begin with `#` are comments.

use std::fmt::Write as _;

use thiserror::Error;
use xlvs_model::change::{SyncDaemon, SyncRole};
use xlvs_model::spec::{Method, Protocol};
use xlvs_model::state::Service;
use xlvs_model::{
    Change, Family, MarkError, MarkRule, Model, Refusal, SchedFlags, ServerSpec, ServiceKey, ServiceSpec,
    Timeouts, Tunable, TunableError,
};

use crate::failure::{Failure, refusal_text};
use crate::layout;
use crate::meant::{self, Meant};
use crate::names::{Printer, Resolver};
use crate::restore;
use crate::table::Command;
use crate::typed::CommandLine;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its number, from 1.
    pub line: usize,
    /// What it says.
    pub change: Change,
    /// `None`: `tune` or `mark`, which no refusal of a kernel's is about.
    command: Option<Command>,
}

impl Rule {
    /// The mistake of a line that was refused.
    pub fn refused(&self, why: &Refusal) -> Mistake {
        let why = self.command.map_or_else(|| why.to_string(), |command| refusal_text(command, why));
        Mistake { line: self.line, why }
    }
}

/// A line that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {why}")]
pub struct Mistake {
    /// Its number, from 1.
    pub line: usize,
    /// In a sentence.
    pub why: String,
}

/// Reads a whole file, or finds its first mistake.
pub fn read_script(text: &[u8], names: &dyn Resolver) -> Result<Vec<Rule>, Mistake> {
    let lines = text.split(|byte| *byte == b'\n').enumerate();
    lines.filter_map(|(at, line)| read_line(at + 1, line, names).transpose()).collect()
}

fn read_line(line: usize, text: &[u8], names: &dyn Resolver) -> Result<Option<Rule>, Mistake> {
    let words: Vec<_> = restore::words(text).filter(|word| !word.is_empty() && word != b"ipvsadm").collect();
    if words.first().is_none_or(|word| word.starts_with(b"#")) {
        return Ok(None);
    }
    let mistake = |why: String| Mistake { line, why };
    if let [b"tune", setting] = words.iter().map(Vec::as_slice).collect::<Vec<_>>()[..] {
        let change = tuning(&String::from_utf8_lossy(setting)).map_err(mistake)?;
        return Ok(Some(Rule { line, change, command: None }));
    }
    if words.first().is_some_and(|word| word == b"mark") {
        let rule = String::from_utf8_lossy(text).trim().trim_start_matches("mark").to_owned();
        let rule: MarkRule = rule.parse().map_err(|why: MarkError| mistake(why.to_string()))?;
        return Ok(Some(Rule { line, change: Change::AddMark(rule), command: None }));
    }
    let meant = meant::understand(&CommandLine::read(&words), "ipvsadm", names);
    match meant.map_err(|failure| mistake(said(&failure)))? {
        Meant::Change(Command::Zero, _) => Err(mistake("-Z changes counters, not what there is".to_owned())),
        Meant::Change(command, change) => Ok(Some(Rule { line, change, command: Some(command) })),
        Meant::UnknownScheduler(command, _) => Err(mistake(refusal_text(command, &Refusal::NotFound))),
        _ => Err(mistake("a file holds commands that change something, and no others".to_owned())),
    }
}

/// `NAME=VALUE`.
fn tuning(setting: &str) -> Result<Change, String> {
    let (name, value) = setting.split_once('=').ok_or("tune takes NAME=VALUE")?;
    let tunable: Tunable = name.parse().map_err(|why: TunableError| why.to_string())?;
    let value = tunable.parse(value).map_err(|why| why.to_string())?;
    Ok(Change::Tune(tunable, value))
}

fn said(failure: &Failure) -> String {
    let text = String::from_utf8_lossy(&failure.text);
    let text = text.trim();
    if text.starts_with("Try `") {
        "this is no command; lines begin with -A or -a".to_owned()
    } else {
        text.to_owned()
    }
}

/// The file that makes this model, of an empty one.
pub fn script(model: &Model) -> String {
    let Timeouts { tcp, tcp_fin, udp } = model.timeouts();
    let mut text = format!("--set {tcp} {tcp_fin} {udp}\n");
    for tunable in Tunable::all().filter(|tunable| tunable.fixed().is_none()) {
        _ = writeln!(text, "tune {}={}", tunable.name(), model.tunables().get(tunable));
    }
    for rule in model.marks() {
        _ = writeln!(text, "mark {rule}");
    }
    for service in model.services() {
        write_service(service, &mut text);
    }
    for daemon in model.daemons() {
        text += &daemon_line(daemon);
    }
    text
}

fn write_service(service: &Service, text: &mut String) {
    let mut printer = Printer::numeric();
    let name = service_name(&service.spec.key, &mut printer);
    // Writing to a string cannot fail.
    _ = writeln!(text, "-A {name} -s {}{}", service.spec.scheduler.name(), service_options(&service.spec));
    for server in &service.servers {
        let addr = printer.address(server.key.addr, server.key.port, None);
        _ = writeln!(text, "-a {name} -r {addr}{}", server_options(server));
    }
}

/// The words that name a service.
pub(crate) fn service_name(key: &ServiceKey, printer: &mut Printer<'_>) -> String {
    match *key {
        ServiceKey::Address { protocol, addr, port } => {
            let option = match protocol {
                Protocol::Tcp => "-t",
                Protocol::Udp => "-u",
                Protocol::Sctp => "--sctp-service",
            };
            format!("{option} {}", printer.address(addr, port, None))
        }
        ServiceKey::Mark { mark, family: Family::Inet } => format!("-f {mark}"),
        ServiceKey::Mark { mark, family: Family::Inet6 } => format!("-f {mark} -6"),
    }
}

fn service_options(spec: &ServiceSpec) -> String {
    let mut text = String::new();
    if let Some(persistence) = spec.persistence {
        text += &format!(" -p {}", persistence.timeout);
    }
    text += &layout::netmask(spec, " -M ");
    text += &layout::engine(spec, " --pe ");
    if spec.one_packet {
        text += " -o";
    }
    text += &flags(spec.flags);
    text
}

fn flags(flags: SchedFlags) -> String {
    let set = [(flags.fallback, "flag-1"), (flags.port, "flag-2"), (flags.third, "flag-3")];
    let names: Vec<_> = set.into_iter().filter_map(|(on, name)| on.then_some(name)).collect();
    if names.is_empty() { String::new() } else { format!(" -b {}", names.join(",")) }
}

fn server_options(server: &ServerSpec) -> String {
    let method = match server.method {
        Method::Masquerade => "-m",
        Method::Tunnel => "-i",
        Method::Direct | Method::Local => "-g",
    };
    let mut text = format!(" {method} -w {}", server.weight);
    for (option, threshold) in [("-x", server.upper), ("-y", server.lower)] {
        if threshold != 0 {
            text += &format!(" {option} {threshold}");
        }
    }
    text + &layout::rule_tunnel(server.method, server.tunnel)
}

fn daemon_line(daemon: &SyncDaemon) -> String {
    let SyncDaemon { role, interface, syncid, maxlen, group, port, ttl } = daemon;
    let role = match role {
        SyncRole::Master => "master",
        SyncRole::Backup => "backup",
    };
    let group = group.map_or_else(String::new, |group| format!(" --mcast-group {group}"));
    format!(
        "--start-daemon {role} --mcast-interface {interface} --syncid {syncid} --sync-maxlen {maxlen}{group} \
         --mcast-port {port} --mcast-ttl {ttl}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::System;

    fn model(text: &str) -> Model {
        let mut model = Model::default();
        for rule in read_script(text.as_bytes(), &System::default()).expect("no mistake") {
            model.apply(&rule.change).expect("no refusal");
        }
        model
    }

    #[test]
    fn nothing_is_forgotten() {
        let text = "--set 1000 20 30\n\
                    tune drop_entry=3\n\
                    tune conn_reuse_mode=0\n\
                    mark 7 --to 192.0.2.0/24 --port 80 --protocol tcp\n\
                    -A -t 10.0.0.1:80 -s sh -p 60 -M 255.255.255.0 -b flag-1,flag-3\n\
                    -a -t 10.0.0.1:80 -r 10.1.0.9:80 -g -w 0 -x 100 -y 50\n\
                    -a -t 10.0.0.1:80 -r 10.1.0.1:80 -i -w 7 --tun-type gue --tun-port 6080 --tun-remcsum\n\
                    -A -u 10.0.0.1:53 -s wlc -M 255.255.0.0 -o\n\
                    -A -f 4000000000 -6 -s mh -b flag-2\n\
                    -a -f 4000000000 -6 -r [fd00::1]:0 -m -w 2147483647\n\
                    -A --sctp-service [fd00::2]:9 -s rr -p 5 -M 64\n\
                    --start-daemon backup --mcast-interface eth1 --syncid 7 --sync-maxlen 1400 --mcast-group 224.0.0.9 \
                    --mcast-port 9000 --mcast-ttl 3\n";
        let is_default = |line: &&str| match line.strip_prefix("tune ").and_then(|line| line.split_once('='))
        {
            Some((name, value)) => {
                name.parse::<Tunable>().is_ok_and(|t| t.default_value().to_string() == value)
            }
            None => false,
        };
        let sorted = |text: &str| {
            let mut lines: Vec<_> =
                text.lines().filter(|line| !is_default(line)).map(str::to_owned).collect();
            lines[1..3].sort();
            lines
        };
        let saved = script(&model(text));
        assert_eq!(sorted(&saved), sorted(text));
        assert_eq!(model(&saved), model(text));
    }

    #[test]
    fn comments_and_the_programs_name_are_passed_over() {
        assert_eq!(model("# before\n\n  # more\nipvsadm -A -t 10.0.0.1:80\r\n").services().len(), 1);
    }

    #[test]
    fn mistakes_name_their_line() {
        let first = |text: &str| read_script(text.as_bytes(), &System::default()).unwrap_err().to_string();
        assert_eq!(first("\n-A -t 10.0.0.1:80 -s no"), "line 2: Scheduler or persistence engine not found");
        assert_eq!(
            first("-A -t 10.0.0.1:80 -w 1"),
            "line 1: Illegal 'weight' option with the 'add-service' command"
        );
        assert_eq!(first("tune drop_entry=7"), "line 1: drop_entry takes 0 to 3, not 7");
        assert_eq!(first("tune drop_entry"), "line 1: tune takes NAME=VALUE");
        assert_eq!(first("hello"), "line 1: this is no command; lines begin with -A or -a");
        assert_eq!(first("-L"), "line 1: a file holds commands that change something, and no others");
        assert_eq!(first("-Z"), "line 1: -Z changes counters, not what there is");
    }
}
