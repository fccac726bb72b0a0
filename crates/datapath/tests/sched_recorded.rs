//! What a kernel's IPVS chose, case by case, and what we choose with the same connections in the same order.
//!
//! Packets are left out here: a connection is made active or inactive as the recorded step would make it. The recordings
//! are in `tests/oracle/sched`; lines and steps are those of `ipvsadm` and of the recorder.

mod pool;

use std::collections::HashMap;

use pool::Pool;
use serde_json::Value;
use xlvs_core::sched::Scheduler;
use xlvs_core::sched::choices::Listed;
use xlvs_core::service::flag;

fn cases(file: &str) -> Vec<Value> {
    let path = format!("{}/../../tests/oracle/sched/{file}.json", env!("CARGO_MANIFEST_DIR"));
    let mut value: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let Value::Array(cases) = value["cases"].take() else { panic!("a list of cases") };
    cases
}

/// A case being played.
struct Play {
    pool: Pool,
    udp: bool,
    one_packet: bool,
    scheduler: Scheduler,
    /// Does the kernel have the rule of before mid-2026?
    old: bool,
    /// By number of the connection: its server and whether it is open, and by whom it was made.
    connections: Vec<Connection>,
    sequence: Vec<String>,
}

#[derive(Clone)]
struct Connection {
    server: Option<u32>,
    open: bool,
    step: Value,
}

impl Play {
    fn new(case: &Value) -> Self {
        Self::with_rule(case, false)
    }

    fn with_rule(case: &Value, old: bool) -> Self {
        let udp = case["proto"] == "udp";
        let mut play = Self {
            pool: Pool::new(Scheduler::Wlc),
            udp,
            one_packet: false,
            scheduler: Scheduler::Wlc,
            old,
            connections: Vec::new(),
            sequence: Vec::new(),
        };
        case["setup"].as_array().unwrap().iter().for_each(|line| play.command(line));
        case["steps"].as_array().unwrap().iter().for_each(|step| play.step(step));
        play
    }

    fn command(&mut self, line: &Value) {
        assert_eq!(line["rc"], 0, "{line}");
        let words: Vec<&str> = line["cmd"].as_str().unwrap().split(' ').collect();
        let after = |name: &str| words.iter().position(|w| *w == name).map(|i| words[i + 1]);
        self.one_packet |= words.contains(&"-o");
        match words[1] {
            "-A" | "-E" => self.service(after("-s"), after("-b")),
            "-a" => {
                let (addr, port) = server(after("-r").unwrap());
                self.pool.add(addr, port, weight(after("-w")));
            }
            "-e" => {
                let id = self.id(after("-r").unwrap());
                self.pool.edit(id, weight(after("-w")));
            }
            "-d" => {
                let id = self.id(after("-r").unwrap());
                self.pool.remove(id);
            }
            other => panic!("{other}"),
        }
    }

    fn service(&mut self, scheduler: Option<&str>, flags: Option<&str>) {
        self.scheduler = Scheduler::from_name(scheduler.unwrap_or("wlc")).unwrap();
        self.pool.set_scheduler(self.scheduler);
        let flag_of = |name: &str| match name {
            "sh-fallback" | "mh-fallback" => flag::FALLBACK,
            "sh-port" | "mh-port" => flag::PORT,
            other => panic!("{other}"),
        };
        self.pool.set_flags(flags.map_or(0, |flags| flags.split(',').map(flag_of).sum()));
    }

    fn id(&self, name: &str) -> u32 {
        let (addr, port) = server(name);
        self.pool.members.iter().find(|m| m.addr == addr && m.port == port).unwrap().id
    }

    fn step(&mut self, step: &Value) {
        match step["op"].as_str().unwrap() {
            "open" => self.open(step),
            "short" => {
                self.open(step);
                self.end(self.connections.len() - 1);
            }
            "dgram" => {
                let connection = self.connections[step["conn"].as_u64().unwrap() as usize].clone();
                let server = if self.one_packet { self.ask(&connection.step) } else { connection.server };
                self.note(server);
            }
            "close" | "rst" => self.end(step["closed"].as_u64().unwrap() as usize),
            "adm" => self.command(step),
            "snap" => {}
            other => panic!("{other}"),
        }
    }

    fn ask(&self, step: &Value) -> Option<u32> {
        if self.old && matches!(self.scheduler, Scheduler::Wlc | Scheduler::Lc) {
            return least_by_the_old_rule(&self.pool, self.scheduler == Scheduler::Wlc);
        }
        let addr = |name: &str| address(step[name].as_str().unwrap());
        self.pool.pick_for(addr("client"), step["sport"].as_u64().unwrap() as u16, addr("vip"))
    }

    fn open(&mut self, step: &Value) {
        let server = self.ask(step);
        if let Some(id) = server
            && !self.one_packet
        {
            self.pool.bind(id, !self.udp);
        }
        self.connections.push(Connection { server, open: server.is_some(), step: step.clone() });
        self.note(server);
    }

    /// FIN or RST: the connection stays for a while, inactive.
    fn end(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        if std::mem::take(&mut connection.open)
            && let Some(id) = connection.server
            && !self.udp
        {
            self.pool.finish(id);
        }
    }

    fn note(&mut self, server: Option<u32>) {
        let name = |id: u32| (self.pool.members[id as usize].addr[3] - 10).to_string();
        self.sequence.push(server.map_or("-".to_owned(), name));
    }
}

fn address(text: &str) -> [u8; 4] {
    text.parse::<std::net::Ipv4Addr>().unwrap().octets()
}

fn server(name: &str) -> ([u8; 4], u16) {
    let (addr, port) = name.split_once(':').unwrap_or((name, "0"));
    (address(addr), port.parse().unwrap())
}

fn weight(word: Option<&str>) -> u32 {
    word.map_or(1, |w| w.parse().unwrap())
}

fn compare(file: &str, left_out: impl Fn(&str) -> bool) {
    let mut wrong = Vec::new();
    for case in cases(file).iter().filter(|case| !left_out(case["name"].as_str().unwrap())) {
        let ours = Play::new(case).sequence.join(" ");
        if case["sequence"] != ours {
            wrong.push(format!("{}\n  kernel {}\n  ours   {ours:?}", case["name"], case["sequence"]));
        }
    }
    assert!(wrong.is_empty(), "{} cases differ:\n{}", wrong.len(), wrong.join("\n"));
}

macro_rules! recorded {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                compare(stringify!($name), |_| false);
            }
        )*
    };
}

recorded!(rr wrr lc wlc lblc lblcr dh sh sed nq fo ovf mh);

/// The recordings of lblc and lblcr as mark services were made one after the other with one mark, so that servers came back
/// from the trash with the connections of the case before.
#[test]
fn hashes() {
    compare("hash", |name| name.starts_with("lblc") && name.contains("fwmark"));
}

/// The server with the smallest load, weighted or not, as kernels of before mid-2026 count it: 256 × active + inactive
/// connections, where the newer ones count 256 × active + all.
fn least_by_the_old_rule(pool: &Pool, weighted: bool) -> Option<u32> {
    let weight = |listed: &Listed| if weighted { listed.weight } else { 1 };
    let load = |listed: &Listed| 255 * pool.active(listed.id) + pool.total(listed.id);
    let usable = pool.listed().into_iter().filter(|listed| listed.weight != 0);
    let least = usable.reduce(|best, next| {
        let is_lighter = load(&next) * weight(&best) < load(&best) * weight(&next);
        if is_lighter { next } else { best }
    });
    least.map(|listed| listed.id)
}

/// Recorded cases in which the older kernels would choose otherwise.
const OLDER_KERNELS_DIFFER: [&str; 0] = [];

#[test]
fn where_older_kernels_choose_otherwise() {
    // One active connection weighs as much as 256 inactive ones, and the newer server wins; or a little more.
    let pool = Pool::with_weights(Scheduler::Wlc, &[1, 1]);
    pool.set_load(0, 0, 256);
    pool.set_load(1, 1, 1);
    assert_eq!((least_by_the_old_rule(&pool, true), pool.pick()), (Some(1), Some(0)));
    let mut differing = Vec::new();
    for case in ["lc", "wlc"].into_iter().flat_map(cases) {
        if case["sequence"] != Play::with_rule(&case, true).sequence.join(" ") {
            differing.push(case["name"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(differing, OLDER_KERNELS_DIFFER);
}

/// The kernel draws at random as we do: compared are the shares, over all cases with the same weights.
#[test]
fn twos_has_the_kernels_shares() {
    let mut shares: HashMap<String, [[f64; 5]; 2]> = HashMap::new();
    for case in cases("twos").iter().filter(|case| case["name"].as_str().unwrap().contains("-short-")) {
        let counts = shares.entry(case["weights"].to_string()).or_default();
        for (who, sequence) in
            [case["sequence"].as_str().unwrap().to_owned(), Play::new(case).sequence.join(" ")]
                .iter()
                .enumerate()
        {
            for digit in sequence.split(' ').filter_map(|word| word.parse::<usize>().ok()) {
                counts[who][digit] += 1.0;
            }
        }
    }
    for (weights, [kernel, ours]) in shares {
        let total: f64 = kernel.iter().sum();
        for (a, b) in kernel.iter().zip(&ours) {
            // Four standard deviations of the difference of two draws.
            let spread = 4.0 * (2.0 * total * 0.25).sqrt();
            assert!((a - b).abs() < spread, "{weights}: {kernel:?} {ours:?}");
        }
    }
}
