//! The life of connections once more, slow and obvious: what the data plane is compared with.
//!
//! Written from the rules of LVS and not from the data plane: lists that are searched from the front, time in seconds,
//! states by name. It knows IPv4 TCP and UDP, NAT and direct routing, round robin, persistence, thresholds, removal.

use std::net::Ipv4Addr;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A request goes to this server, by its number in [`Site::servers`].
    To(usize),
    /// A reply goes to the client.
    Back,
    /// The client is told that nobody is there.
    Refused,
    /// Nothing is sent.
    Dropped,
    /// The director's own stack gets it.
    Passed,
}

/// An end of a connection.
pub type End = (Ipv4Addr, u16);

/// What a TCP packet says; UDP packets say nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// SYN
    Syn,
    /// SYN and ACK
    SynAck,
    /// FIN and ACK
    Fin,
    /// ACK
    Ack,
    /// RST
    Rst,
}

/// A packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// TCP's words; `None`: UDP.
    pub says: Option<Says>,
    /// From.
    pub from: End,
    /// To.
    pub to: End,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Is it of UDP?
    pub udp: bool,
    /// VIP and port; 0: all ports.
    pub at: End,
    /// Persistence: timeout and mask.
    pub persistence: Option<(u64, u32)>,
    /// One-packet scheduling.
    pub one_packet: bool,
    /// The server chosen last.
    last: Option<usize>,
}

impl Service {
    /// A service that has chosen nobody yet.
    pub const fn new(udp: bool, at: End, persistence: Option<(u64, u32)>, one_packet: bool) -> Self {
        Self { udp, at, persistence, one_packet, last: None }
    }
}

/// A server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The service's number.
    pub service: usize,
    /// Address and port; 0: the packet's.
    pub at: End,
    /// By NAT, or else by direct routing?
    pub nat: bool,
    /// Weight.
    pub weight: u32,
    /// Upper and lower threshold; 0: none, or three quarters of the upper one.
    pub thresholds: (u32, u32),
    /// Is it in the service's list? Otherwise it was removed, and its connections wait for it.
    pub listed: bool,
    /// No new connections, since it has too many.
    overloaded: bool,
}

impl Server {
    /// A server that is in its service's list.
    pub const fn new(service: usize, at: End, nat: bool, weight: u32) -> Self {
        Self { service, at, nat, weight, thresholds: (0, 0), listed: true, overloaded: false }
    }

    fn lower(&self) -> u32 {
        match self.thresholds {
            (upper, 0) => upper - upper / 4,
            (_, lower) => lower,
        }
    }
}

/// A connection or a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conn {
    /// Is it of UDP?
    pub udp: bool,
    /// The client; port 0 in a template.
    pub client: End,
    /// The VIP and port.
    pub virt: End,
    /// The server's number.
    pub server: usize,
    /// The server's port.
    pub port: u16,
    /// By NAT?
    pub nat: bool,
    /// Its state's name.
    pub state: &'static str,
    /// When it was last refreshed.
    seen: u64,
    /// How long it lives from then.
    timeout: u64,
    /// Did replies pass the director?
    replied: bool,
    /// A template: how many connections it controls, else `None`.
    pub controls: Option<u32>,
    /// A connection's template, by its number.
    template: Option<u64>,
    number: u64,
}

impl Conn {
    /// Seconds that it has left.
    pub fn left(&self, now: u64) -> u64 {
        (self.seen + self.timeout).saturating_sub(now)
    }
}

/// LVS's tunables that concern this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunables {
    /// `expire_nodest_conn`
    pub expire_nodest: bool,
    /// `expire_quiescent_template`
    pub expire_quiescent: bool,
    /// `sloppy_tcp`
    pub sloppy: bool,
    /// `conn_reuse_mode`
    pub reuse: u32,
}

/// A director as this model sees it.
#[derive(Clone, Debug)]
pub struct Site {
    /// Services.
    pub services: Vec<Service>,
    /// Servers of all services, by number, in the order in which they were last added.
    pub servers: Vec<Server>,
    /// The services' lists, newest first.
    pub lists: Vec<Vec<usize>>,
    /// Connections and templates.
    pub conns: Vec<Conn>,
    /// Tunables.
    pub tunables: Tunables,
    /// Seconds.
    pub now: u64,
    numbers: u64,
}

impl Site {
    /// A director with these services and no servers.
    pub fn new(services: Vec<Service>) -> Self {
        let lists = vec![Vec::new(); services.len()];
        let tunables = Tunables { expire_nodest: false, expire_quiescent: false, sloppy: false, reuse: 1 };
        Self { services, servers: Vec::new(), lists, conns: Vec::new(), tunables, now: 0, numbers: 0 }
    }

    // ------------------------------------------------------------------------------------------------------ commands

    /// Adds a server; one that was removed comes back with its number.
    pub fn add(&mut self, server: Server) {
        let known = self.servers.iter().position(|s| s.service == server.service && s.at == server.at);
        let number = known.unwrap_or(self.servers.len());
        let service = server.service;
        if known.is_some() {
            let overloaded = self.servers[number].overloaded;
            self.servers[number] = Server { overloaded, ..server };
        } else {
            self.servers.push(server);
        }
        self.lists[service].insert(0, number);
        self.judge(number);
    }

    /// Changes a server's weight, method and thresholds.
    pub fn edit(&mut self, number: usize, weight: u32, nat: bool, thresholds: (u32, u32)) {
        let server = &mut self.servers[number];
        (server.weight, server.nat, server.thresholds) = (weight, nat, thresholds);
        self.judge(number);
    }

    /// What is between the thresholds stays as it is.
    fn judge(&mut self, number: usize) {
        let total = self.total(number);
        let server = &mut self.servers[number];
        if server.thresholds.0 == 0 || total < server.lower() {
            server.overloaded = false;
        } else if total >= server.thresholds.0 {
            server.overloaded = true;
        }
    }

    /// Removes a server. Its predecessor becomes the one chosen last if it was.
    pub fn remove(&mut self, number: usize) {
        let service = self.servers[number].service;
        let at = self.lists[service].iter().position(|n| *n == number).expect("it is in its list");
        self.lists[service].remove(at);
        if self.services[service].last == Some(number) {
            self.services[service].last = at.checked_sub(1).map(|at| self.lists[service][at]);
        }
        self.servers[number].listed = false;
        if self.tunables.expire_nodest {
            self.expire_of_removed();
        }
    }

    /// Ends what belongs to servers that are not there.
    fn expire_of_removed(&mut self) {
        let gone: Vec<u64> = self
            .conns
            .iter()
            .filter(|conn| !self.servers[conn.server].listed && conn.controls.unwrap_or(0) == 0)
            .map(|conn| conn.number)
            .collect();
        for number in gone {
            self.end_early(number);
        }
    }

    /// Ends a connection before its time. Its template goes too if it controls nothing else.
    fn end_early(&mut self, number: u64) {
        let Some(at) = self.conns.iter().position(|conn| conn.number == number) else { return };
        let template = self.conns[at].template;
        self.end(at);
        let orphan = |conn: &Conn| Some(conn.number) == template && conn.controls == Some(0);
        if let Some(at) = self.conns.iter().position(orphan) {
            self.end(at);
        }
    }

    /// Seconds go by; what has had its time ends.
    pub fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += 1;
            self.sweep();
        }
    }

    /// A template's timer was set before that of a connection of the same age, so it goes off first.
    fn sweep(&mut self) {
        let over: Vec<u64> =
            self.conns.iter().filter(|conn| self.is_over(conn)).map(|conn| conn.number).collect();
        let is_template = |site: &Self, number: u64| {
            site.conns.iter().any(|conn| conn.number == number && conn.controls.is_some())
        };
        let (templates, others): (Vec<u64>, Vec<u64>) =
            over.into_iter().partition(|number| is_template(self, *number));
        for number in templates.into_iter().chain(others) {
            let at = self.conns.iter().position(|conn| conn.number == number).expect("it is there");
            if self.conns[at].controls.unwrap_or(0) == 0 {
                self.end(at);
            } else {
                let conn = &mut self.conns[at];
                conn.seen += conn.timeout;
                conn.timeout = 60;
            }
        }
    }

    fn is_over(&self, conn: &Conn) -> bool {
        self.now > conn.seen + conn.timeout
    }

    // ------------------------------------------------------------------------------------------------------- packets

    /// What becomes of a packet, and what it does.
    pub fn packet(&mut self, packet: &Packet) -> Fate {
        if let Some(at) = self.nat_conn_of_reply(packet) {
            self.advance(at, packet.says, true);
            return Fate::Back;
        }
        if self.services.iter().any(|service| service.at.0 == packet.to.0) {
            return self.request(packet);
        }
        if let Some(at) = self.find(packet.says.is_none(), packet.to, packet.from)
            && !self.conns[at].nat
        {
            self.advance(at, packet.says, true);
        }
        Fate::Passed
    }

    fn nat_conn_of_reply(&self, packet: &Packet) -> Option<usize> {
        self.conns.iter().position(|conn| {
            conn.nat
                && conn.controls.is_none()
                && conn.udp == packet.says.is_none()
                && conn.client == packet.to
                && (self.servers[conn.server].at.0, conn.port) == packet.from
        })
    }

    fn find(&self, udp: bool, client: End, virt: End) -> Option<usize> {
        let is_it = |conn: &Conn| {
            conn.controls.is_none() && (conn.udp, conn.client, conn.virt) == (udp, client, virt)
        };
        self.conns.iter().position(is_it)
    }

    fn request(&mut self, packet: &Packet) -> Fate {
        if let Some(at) = self.find(packet.says.is_none(), packet.from, packet.to) {
            let server = &self.servers[self.conns[at].server];
            let looks_new = matches!(packet.says, Some(Says::Syn | Says::SynAck));
            let is_rescheduled = looks_new && self.is_rescheduled(&self.conns[at]);
            let is_gone = !server.listed;
            if !(is_rescheduled || is_gone && self.tunables.expire_nodest) {
                if is_gone {
                    return Fate::Dropped;
                }
                self.advance(at, packet.says, false);
                return Fate::To(self.conns[at].server);
            }
            if is_rescheduled {
                // It counts until the new one is there.
                let old = self.conns[at].number;
                let fate = self.open(packet);
                if let Some(at) = self.conns.iter().position(|conn| conn.number == old) {
                    self.end(at);
                }
                return fate;
            }
            self.end(at);
        }
        self.open(packet)
    }

    fn is_rescheduled(&self, conn: &Conn) -> bool {
        if self.tunables.expire_nodest && self.servers[conn.server].weight == 0 {
            return true;
        }
        if self.tunables.reuse == 0 || conn.template.is_some() {
            return false;
        }
        let closed = ["TIME_WAIT", "CLOSE"].contains(&conn.state);
        closed || (self.tunables.reuse & 2 != 0 && conn.state == "FIN_WAIT" && !conn.replied && !conn.nat)
    }

    fn open(&mut self, packet: &Packet) -> Fate {
        let may_open = match packet.says {
            None | Some(Says::Syn | Says::SynAck) => true,
            Some(Says::Rst) => false,
            Some(_) => self.tunables.sloppy,
        };
        let udp = packet.says.is_none();
        let at = |end: End| self.services.iter().position(|service| (service.udp, service.at) == (udp, end));
        let Some(service) = at(packet.to).or_else(|| at((packet.to.0, 0))) else { return Fate::Passed };
        if !may_open {
            return Fate::Passed;
        }
        let (server, template) = match self.services[service].persistence {
            Some(persistence) => match self.template(service, packet, persistence) {
                Some(at) => (self.conns[at].server, Some(self.conns[at].number)),
                None => return Fate::Refused,
            },
            None => match self.choose(service) {
                Some(server) => (server, None),
                None => return Fate::Refused,
            },
        };
        if self.services[service].one_packet {
            return Fate::To(server);
        }
        let own_port = if packet.to.1 == self.services[service].at.1 { self.servers[server].at.1 } else { 0 };
        let conn = Conn {
            udp,
            client: packet.from,
            virt: packet.to,
            server,
            port: if own_port == 0 { packet.to.1 } else { own_port },
            nat: self.servers[server].nat,
            state: "NONE",
            seen: self.now,
            timeout: 3,
            replied: false,
            controls: None,
            template,
            number: self.number(),
        };
        self.conns.push(conn);
        if let Some(template) = self.conns.iter_mut().find(|conn| Some(conn.number) == template) {
            template.controls = template.controls.map(|controls| controls + 1);
        }
        self.bound(server);
        self.advance(self.conns.len() - 1, packet.says, false);
        Fate::To(server)
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Round robin: the one after the last.
    fn choose(&mut self, service: usize) -> Option<usize> {
        let list = &self.lists[service];
        let last = self.services[service].last;
        let after = last.and_then(|last| list.iter().position(|n| *n == last)).map_or(0, |at| at + 1);
        let mut round = (0..list.len()).map(|i| list[(after + i) % list.len()]);
        let chosen = round.find(|n| self.servers[*n].weight != 0 && !self.servers[*n].overloaded)?;
        self.services[service].last = Some(chosen);
        Some(chosen)
    }

    /// Finds or makes the client's template.
    fn template(&mut self, service: usize, packet: &Packet, (timeout, mask): (u64, u32)) -> Option<usize> {
        let udp = packet.says.is_none();
        let client = (Ipv4Addr::from(u32::from(packet.from.0) & mask), 0);
        let own_port = packet.to.1 == self.services[service].at.1;
        let virt = (packet.to.0, if own_port { packet.to.1 } else { 0 });
        let is_it = |conn: &Conn| {
            conn.controls.is_some() && (conn.udp, conn.client, conn.virt) == (udp, client, virt)
        };
        if let Some(at) = self.conns.iter().position(is_it) {
            let server = &self.servers[self.conns[at].server];
            if server.listed && !(self.tunables.expire_quiescent && server.weight == 0) {
                self.conns[at].seen = self.now;
                return Some(at);
            }
            self.conns[at].virt.1 = 65535;
            self.conns[at].port = 65535;
        }
        let server = self.choose(service)?;
        let number = self.number();
        self.conns.push(Conn {
            udp,
            client,
            virt,
            server,
            port: if own_port { self.servers[server].at.1 } else { 0 },
            nat: self.servers[server].nat,
            state: "NONE",
            seen: self.now,
            timeout,
            replied: false,
            controls: Some(0),
            template: None,
            number,
        });
        Some(self.conns.len() - 1)
    }

    // -------------------------------------------------------------------------------------------------------- states

    fn advance(&mut self, at: usize, says: Option<Says>, reply: bool) {
        let now = self.now;
        let conn = &mut self.conns[at];
        conn.replied |= reply;
        conn.seen = now;
        let before = conn.state;
        let Some(says) = says else {
            (conn.state, conn.timeout) = ("UDP", 300);
            if reply {
                self.assure(self.conns[at].template);
            }
            return;
        };
        let row = match (reply, conn.nat || conn.replied) {
            (true, _) => &OUTPUT,
            (false, true) => &INPUT,
            (false, false) => &INPUT_ONLY,
        };
        let column = STATES.iter().position(|(name, _)| *name == before).expect("a state");
        let event = match says {
            Says::Syn | Says::SynAck => 0,
            Says::Fin => 1,
            Says::Ack => 2,
            Says::Rst => 3,
        };
        let next = row[event].split_whitespace().nth(column).expect("a column");
        let place = SHORT.split_whitespace().position(|short| short == next).expect("a state");
        (conn.state, conn.timeout) = STATES[place];
        if conn.state == "ESTABLISHED" && before != "ESTABLISHED" {
            self.assure(self.conns[at].template);
        }
    }

    fn assure(&mut self, template: Option<u64>) {
        if let Some(template) = self.conns.iter_mut().find(|conn| Some(conn.number) == template) {
            template.state = "ASSURED";
        }
    }

    // -------------------------------------------------------------------------------------------------------- counts

    fn of(&self, server: usize) -> impl Iterator<Item = &Conn> {
        self.conns.iter().filter(move |conn| conn.server == server)
    }

    /// Active connections of a server.
    pub fn active(&self, server: usize) -> u32 {
        const ACTIVE: [&str; 4] = ["ESTABLISHED", "SYN_SENT", "SYN_RECV", "SYNACK"];
        self.of(server).filter(|conn| conn.controls.is_none() && ACTIVE.contains(&conn.state)).count() as u32
    }

    /// All connections of a server.
    pub fn total(&self, server: usize) -> u32 {
        self.of(server).filter(|conn| conn.controls.is_none()).count() as u32
    }

    /// Templates of a server.
    pub fn persistent(&self, server: usize) -> u32 {
        self.of(server).filter(|conn| conn.controls.is_some()).count() as u32
    }

    fn bound(&mut self, server: usize) {
        let total = self.total(server);
        let server = &mut self.servers[server];
        if server.thresholds.0 != 0 && total == server.thresholds.0 {
            server.overloaded = total >= server.lower();
        }
    }

    fn end(&mut self, at: usize) {
        let conn = self.conns.remove(at);
        if let Some(template) = self.conns.iter_mut().find(|other| Some(other.number) == conn.template) {
            template.controls = template.controls.map(|controls| controls - 1);
        }
        if conn.controls.is_some() {
            return;
        }
        let total = self.total(conn.server);
        let server = &mut self.servers[conn.server];
        if server.thresholds.0 != 0 && total + 1 == server.lower() {
            server.overloaded = total >= server.thresholds.0;
        }
    }
}

/// Names and timeouts, in the order of the tables' columns.
const STATES: [(&str, u64); 11] = [
    ("NONE", 2),
    ("ESTABLISHED", 900),
    ("SYN_SENT", 120),
    ("SYN_RECV", 60),
    ("FIN_WAIT", 120),
    ("TIME_WAIT", 120),
    ("CLOSE", 10),
    ("CLOSE_WAIT", 60),
    ("LAST_ACK", 30),
    ("LISTEN", 120),
    ("SYNACK", 120),
];

const SHORT: &str = "NO ES SS SR FW TW CL CW LA LI SA";

// Rows: SYN, FIN, ACK, RST.
const INPUT: [&str; 4] = [
    "SR ES ES SR SR SR SR SR SR SR SR",
    "CL CW SS TW TW TW CL CW LA LI TW",
    "ES ES SS ES FW TW CL CW CL LI ES",
    "CL CL CL SR CL CL CL CL LA LI SR",
];
const OUTPUT: [&str; 4] = [
    "SS ES SS SR SS SS SS SS SS LI SR",
    "TW FW SS TW FW TW CL TW LA LI TW",
    "ES ES SS ES FW TW CL CW LA ES ES",
    "CL CL SS CL CL TW CL CL CL CL CL",
];
const INPUT_ONLY: [&str; 4] = [
    "SR ES ES SR SR SR SR SR SR SR SR",
    "CL FW SS TW FW TW CL CW LA LI TW",
    "ES ES SS ES FW TW CL CW CL LI ES",
    "CL CL CL SR CL CL CL CL LA LI CL",
];
