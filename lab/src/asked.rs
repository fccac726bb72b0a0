//! Cases that were not played yet: `ops` in place of `steps`, as one asks a kernel. Here they get the form of a recorded case,
//! with nothing seen.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

/// Virtual port of the first case that names none, less one.
const PORTS: u16 = 2000;
/// Source port of a client's first connection, less one.
const SOURCE_PORTS: u16 = 9999;
/// Listings at the end unless a case names others.
const LISTINGS: [&str; 7] = ["Ln", "stats", "conn", "save", "rate", "thresholds", "persistent_conn"];

/// Gives every asked case of a file the form of a recorded one. Recorded ones stay as they are. What makes no sense in an
/// operation makes none in its step, and is for the player to refuse.
pub fn recorded_form(cases: &mut [Value]) {
    let mut ports = Ports { last_virtual: PORTS, last_source: HashMap::new() };
    for case in cases.iter_mut().filter(|case| case["ops"].is_array() && case["steps"].is_null()) {
        *case = Asked::new(case, &mut ports).recorded(&mut ports);
    }
}

/// Ports count up over a file.
struct Ports {
    last_virtual: u16,
    last_source: HashMap<u64, u16>,
}

impl Ports {
    fn virtual_port(&mut self) -> u16 {
        self.last_virtual += 1;
        self.last_virtual
    }

    fn source(&mut self, client: u64) -> u16 {
        let last = self.last_source.entry(client).or_insert(SOURCE_PORTS);
        *last += 1;
        *last
    }
}

/// A case with what its lines may name.
struct Asked<'a> {
    case: &'a Value,
    is_v6: bool,
    port: u16,
    vip: String,
    /// Words of ipvsadm that name the service.
    service: String,
}

impl<'a> Asked<'a> {
    fn new(case: &'a Value, ports: &mut Ports) -> Self {
        let is_v6 = case["ipv6"] == true;
        let vip = if is_v6 { "fd00::100" } else { "10.0.0.100" }.to_owned();
        let port = case["vport"].as_u64().map_or_else(|| ports.virtual_port(), |port| port as u16);
        let service = match case["fwmark"].as_u64() {
            Some(mark) if is_v6 => format!("-f {mark} -6"),
            Some(mark) => format!("-f {mark}"),
            None if case["proto"] == "udp" => format!("-u {}", at(&vip, port)),
            None => format!("-t {}", at(&vip, port)),
        };
        Self { case, is_v6, port, vip, service }
    }

    fn recorded(&self, ports: &mut Ports) -> Value {
        let mut recorded = self.case.clone();
        recorded["steps"] = list(self.case, "ops").iter().map(|op| self.step(op, ports)).collect();
        let lines = self.lines().into_iter().map(|line| json!({ "cmd": format!("ipvsadm {line}") }));
        recorded["setup"] = lines.collect();
        let listings = list(self.case, "listings").iter().filter_map(Value::as_str);
        recorded["after"] = match listings.collect::<Vec<_>>() {
            none if none.is_empty() => named(LISTINGS),
            listings => named(listings),
        };
        for (field, value) in [
            ("name", self.case["name"].as_str().unwrap_or("asked").into()),
            ("proto", self.case["proto"].as_str().unwrap_or("tcp").into()),
            ("vip", self.vip.as_str().into()),
            ("vport", self.port.into()),
        ] {
            recorded[field] = value;
        }
        recorded
    }

    /// The lines that set the case up: its own, or those that its scheduler, weights and flags make.
    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            list(self.case, "commands").iter().map(|line| self.filled(line)).collect();
        if self.case["setup"].is_array() {
            lines.extend(list(self.case, "setup").iter().map(|line| self.filled(line)));
            return lines;
        }
        let scheduler =
            self.case["scheduler"].as_str().map_or_else(String::new, |name| format!(" -s {name}"));
        lines.push(format!("-A {}{scheduler}{}", self.service, words(&self.case["service_flags"])));
        let method = match self.case["forward"].as_str() {
            Some("dr") => "-g",
            Some("tun") => "-i",
            _ => "-m",
        };
        let flags = words(&self.case["dest_flags"]);
        for (number, weight) in self.servers() {
            let server =
                if self.case["fwmark"].is_null() { self.server(number) } else { self.address(number) };
            lines.push(format!("-a {} -r {server} {method} -w {weight}{flags}", self.service));
        }
        lines
    }

    /// Numbers and weights of the servers, in the order in which they are added.
    fn servers(&self) -> Vec<(u64, u64)> {
        if let Some(order) = self.case["order"].as_array() {
            return order.iter().filter_map(|pair| Some((pair[0].as_u64()?, pair[1].as_u64()?))).collect();
        }
        (1..).zip(list(self.case, "weights").iter().filter_map(Value::as_u64)).collect()
    }

    fn address(&self, number: u64) -> String {
        if self.is_v6 { format!("fd01::{:x}", 0x10 + number) } else { format!("10.1.0.{}", 10 + number) }
    }

    fn server(&self, number: u64) -> String {
        at(&self.address(number), self.port)
    }

    /// A line of ipvsadm with its names filled in.
    fn filled(&self, line: &Value) -> String {
        let line = line["cmd"].as_str().or(line.as_str()).unwrap_or_default();
        let mut line = line.strip_prefix("ipvsadm ").unwrap_or(line).to_owned();
        for number in 1..=9 {
            line = line.replace(&format!("{{r{number}}}"), &self.server(number));
        }
        let port = self.port.to_string();
        [("{vip}", &self.vip), ("{port}", &port), ("{svc}", &self.service)]
            .iter()
            .fold(line, |line, (name, value)| line.replace(name, value))
    }

    fn step(&self, op: &Value, ports: &mut Ports) -> Value {
        let what = &op[0];
        match what.as_str().unwrap_or_default() {
            "open" | "short" => self.connection(op, ports),
            "close" | "rst" => json!({ "op": what, "closed": op[1] }),
            "dgram" => json!({ "op": what, "conn": op[1] }),
            "sleep" => json!({ "op": what, "s": op[1] }),
            "adm" => {
                let line: Vec<String> = rest(op).map(|word| self.filled(word)).collect();
                json!({ "op": what, "cmd": format!("ipvsadm {}", line.join(" ")) })
            }
            "snap" => {
                let names: Vec<&str> = rest(op).filter_map(Value::as_str).collect();
                let mut step = named(if names.is_empty() { vec!["Ln", "conn"] } else { names });
                step["op"] = what.clone();
                step
            }
            _ => json!({ "op": what, "cmd": op[1] }),
        }
    }

    fn connection(&self, op: &Value, ports: &mut Ports) -> Value {
        let Some(client) = op[1].as_u64() else { return json!({ "op": op[0] }) };
        let address = if self.is_v6 { format!("fd00::{client:x}") } else { format!("10.0.0.{client}") };
        let port = op[3].as_u64().unwrap_or_else(|| ports.source(client).into());
        json!({ "op": op[0], "client": address, "sport": port, "vip": op[2].as_str().unwrap_or(&self.vip) })
    }
}

/// What an operation says besides its name.
fn rest(op: &Value) -> impl Iterator<Item = &Value> {
    op.as_array().into_iter().flatten().skip(1)
}

/// An address with a port, as ipvsadm takes it.
fn at(addr: &str, port: u16) -> String {
    if addr.contains(':') { format!("[{addr}]:{port}") } else { format!("{addr}:{port}") }
}

/// Listings by name, with nothing seen.
fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Value {
    let listings: Map<String, Value> = names.into_iter().map(|name| (name.to_owned(), "".into())).collect();
    listings.into()
}

/// Flags as words of a line, each after a blank.
fn words(flags: &Value) -> String {
    let word = |flag: &Value| flag.as_str().map_or_else(|| flag.to_string(), str::to_owned);
    flags.as_array().into_iter().flatten().map(|flag| format!(" {}", word(flag))).collect()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(asked: Value) -> Value {
        let mut cases = [asked];
        recorded_form(&mut cases);
        let [case] = cases;
        case
    }

    fn lines(case: &Value) -> Vec<&str> {
        list(case, "setup").iter().filter_map(|line| line["cmd"].as_str()).collect()
    }

    #[test]
    fn a_question_has_the_steps_of_a_recording() {
        let case = recorded(json!({
            "scheduler": "wrr", "weights": [1, 2], "ops": [
                ["open", 1], ["short", 1, "10.0.0.101"], ["snap"], ["adm", "-e {svc} -r {r2} -m -w 0"], ["close", 0]
            ]
        }));
        let setup = [
            "ipvsadm -A -t 10.0.0.100:2001 -s wrr",
            "ipvsadm -a -t 10.0.0.100:2001 -r 10.1.0.11:2001 -m -w 1",
            "ipvsadm -a -t 10.0.0.100:2001 -r 10.1.0.12:2001 -m -w 2",
        ];
        assert_eq!(lines(&case), setup);
        let steps = json!([
            { "op": "open", "client": "10.0.0.1", "sport": 10000, "vip": "10.0.0.100" },
            { "op": "short", "client": "10.0.0.1", "sport": 10001, "vip": "10.0.0.101" },
            { "op": "snap", "Ln": "", "conn": "" },
            { "op": "adm", "cmd": "ipvsadm -e -t 10.0.0.100:2001 -r 10.1.0.12:2001 -m -w 0" },
            { "op": "close", "closed": 0 },
        ]);
        assert_eq!(case["steps"], steps);
        assert_eq!(case["after"].as_object().map(Map::len), Some(LISTINGS.len()));
    }

    #[test]
    fn a_mark_names_its_servers_without_ports_and_flags_stand_at_the_end() {
        let case = recorded(json!({
            "fwmark": 7, "ipv6": true, "vport": 3000, "forward": "dr", "order": [[2, 5], [1, 1]],
            "service_flags": ["-p", 60], "dest_flags": ["-x", 3], "ops": [], "listings": ["Ln"]
        }));
        let setup = [
            "ipvsadm -A -f 7 -6 -p 60",
            "ipvsadm -a -f 7 -6 -r fd01::12 -g -w 5 -x 3",
            "ipvsadm -a -f 7 -6 -r fd01::11 -g -w 1 -x 3",
        ];
        assert_eq!(lines(&case), setup);
        assert_eq!(case["after"], json!({ "Ln": "" }));
    }

    #[test]
    fn lines_of_its_own_stand_for_those_that_are_made() {
        let case = recorded(
            json!({ "setup": ["-A {svc} -s rr"], "commands": ["-A -f 5"], "proto": "udp", "ops": [] }),
        );
        assert_eq!(lines(&case), ["ipvsadm -A -f 5", "ipvsadm -A -u 10.0.0.100:2001 -s rr"]);
    }

    #[test]
    fn what_makes_no_sense_is_left_to_the_player() {
        let case = recorded(json!({ "ops": [["dance"], ["open"], ["close"], []] }));
        let steps = list(&case, "steps");
        assert_eq!(steps[0]["op"], "dance");
        assert!(steps[1]["client"].is_null() && steps[2]["closed"].is_null() && steps[3]["op"].is_null());
    }
}
