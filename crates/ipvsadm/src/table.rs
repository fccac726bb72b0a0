//! The one table of commands and options: grammar, checks, help, manual and completions are all made from it.
//!
//! Rows stand in the order in which `--help` shows them.

/// What an invocation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// `-A`
    AddService,
    /// `-E`
    EditService,
    /// `-D`
    DeleteService,
    /// `-C`
    Flush,
    /// `-R`
    Restore,
    /// `-S`
    Save,
    /// `-a`
    AddServer,
    /// `-e`
    EditServer,
    /// `-d`
    DeleteServer,
    /// `-L`
    List,
    /// `-Z`
    Zero,
    /// `--set`
    Set,
    /// `--start-daemon`
    StartDaemon,
    /// `--stop-daemon`
    StopDaemon,
}

/// An option's kind, as the checks know it: the three ways to name a method are one, and so are the four ways to name a
/// service. The order is the one in which the checks go through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// `-n`
    Numeric,
    /// `-c`
    Connection,
    /// `-t`, `-u`, `--sctp-service`, `-f`
    Service,
    /// `-s`
    Scheduler,
    /// `-p`
    Persistent,
    /// `-M`
    Netmask,
    /// `-r`
    Server,
    /// `-g`, `-i`, `-m`
    Forward,
    /// `-w`
    Weight,
    /// `-x`
    Upper,
    /// `-y`
    Lower,
    /// `--mcast-interface`
    McastInterface,
    /// `--timeout`
    Timeout,
    /// `--daemon`
    Daemon,
    /// `--stats`
    Stats,
    /// `--rate`
    Rate,
    /// `--thresholds`
    Thresholds,
    /// `--persistent-conn`
    PersistentConn,
    /// `--nosort`
    NoSort,
    /// `--syncid`
    SyncId,
    /// `--exact`
    Exact,
    /// `-o`
    OnePacket,
    /// `--pe`
    Engine,
    /// `-b`
    SchedFlags,
    /// `--mcast-group`
    McastGroup,
    /// `--mcast-port`
    McastPort,
    /// `--mcast-ttl`
    McastTtl,
    /// `--sync-maxlen`
    SyncMaxlen,
    /// `--tun-info`
    TunInfo,
    /// `--tun-type`
    TunType,
    /// `--tun-port`
    TunPort,
    /// `--tun-nocsum`
    TunNoCsum,
    /// `--tun-csum`
    TunCsum,
    /// `--tun-remcsum`
    TunRemCsum,
}

impl Kind {
    /// All, in the order of the checks.
    pub const ALL: [Self; 34] = [
        Self::Numeric,
        Self::Connection,
        Self::Service,
        Self::Scheduler,
        Self::Persistent,
        Self::Netmask,
        Self::Server,
        Self::Forward,
        Self::Weight,
        Self::Upper,
        Self::Lower,
        Self::McastInterface,
        Self::Timeout,
        Self::Daemon,
        Self::Stats,
        Self::Rate,
        Self::Thresholds,
        Self::PersistentConn,
        Self::NoSort,
        Self::SyncId,
        Self::Exact,
        Self::OnePacket,
        Self::Engine,
        Self::SchedFlags,
        Self::McastGroup,
        Self::McastPort,
        Self::McastTtl,
        Self::SyncMaxlen,
        Self::TunInfo,
        Self::TunType,
        Self::TunPort,
        Self::TunNoCsum,
        Self::TunCsum,
        Self::TunRemCsum,
    ];

    /// What the messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Numeric => "numeric",
            Self::Connection => "connection",
            Self::Service => "service-address",
            Self::Scheduler => "scheduler",
            Self::Persistent => "persistent",
            Self::Netmask => "netmask",
            Self::Server => "real-server",
            Self::Forward => "forwarding-method",
            Self::Weight => "weight",
            Self::Upper => "u-threshold",
            Self::Lower => "l-threshold",
            Self::McastInterface => "mcast-interface",
            Self::Timeout => "timeout",
            Self::Daemon => "daemon",
            Self::Stats => "stats",
            Self::Rate => "rate",
            Self::Thresholds => "thresholds",
            Self::PersistentConn => "persistent-conn",
            Self::NoSort => "nosort",
            Self::SyncId => "syncid",
            Self::Exact => "exact",
            Self::OnePacket => "ops",
            Self::Engine => "pe",
            Self::SchedFlags => "sched-flags",
            Self::McastGroup => "mcast-group",
            Self::McastPort => "mcast-port",
            Self::McastTtl => "mcast-ttl",
            Self::SyncMaxlen => "sync-maxlen",
            Self::TunInfo => "tun-info",
            Self::TunType => "tun-type",
            Self::TunPort => "tun-port",
            Self::TunNoCsum => "tun-nocsum",
            Self::TunCsum => "tun-csum",
            Self::TunRemCsum => "tun-remcsum",
        }
    }
}

/// What a row of the grammar stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// A command; the first word of an invocation.
    Command(Command),
    /// `--help`
    Help,
    /// `--version`
    Version,
    /// `-t`
    Tcp,
    /// `-u`
    Udp,
    /// `--sctp-service`
    Sctp,
    /// `-f`
    Mark,
    /// `-6`
    Ipv6,
    /// `-g`
    Direct,
    /// `-i`
    Tunnel,
    /// `-m`
    Masquerade,
    /// `--sort`, which says what is so anyway.
    Sort,
    /// An option that is the only one of its kind.
    Option(Kind),
}

impl Word {
    /// The kind of option that it is; a command is none, and neither are the words that only change another.
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::Tcp | Self::Udp | Self::Sctp | Self::Mark => Some(Kind::Service),
            Self::Direct | Self::Tunnel | Self::Masquerade => Some(Kind::Forward),
            Self::Option(kind) => Some(kind),
            Self::Command(_) | Self::Help | Self::Version | Self::Ipv6 | Self::Sort => None,
        }
    }
}

/// Whether a word takes a value, and what `--help` calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// None.
    No,
    /// It must follow.
    Required(&'static str),
    /// It may follow, unless what follows begins with a dash.
    Optional(&'static str),
}

/// A row: one word of the language.
#[derive(Debug)]
pub struct Row {
    /// What it stands for.
    pub word: Word,
    /// The long name, without dashes.
    pub long: &'static str,
    /// The short names; all do the same.
    pub shorts: &'static str,
    /// Its value.
    pub value: Value,
    /// What `--help` shows on the left if it is not what the rest of the row makes.
    pub shown: Option<&'static str>,
    /// The lines that `--help` shows on the right; none: `--help` does not show the row.
    pub help: &'static [&'static str],
    /// The manual page's paragraph.
    pub manual: &'static str,
}

/// A part of `--help` and of the manual.
#[derive(Debug)]
pub struct Section {
    /// What kind of rows stand in it.
    pub layout: Layout,
    /// Its rows.
    pub rows: &'static [Row],
}

/// How `--help` lays out the left side of a section's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Long and short name in two columns.
    Commands,
    /// `--long|-s value`.
    Services,
    /// Long name, short name and value in columns.
    Options,
    /// `--long value`.
    Daemon,
}

impl Layout {
    /// The section's title in `--help`.
    pub fn title(self) -> &'static str {
        match self {
            Self::Commands => "Commands:\nEither long or short options are allowed.",
            Self::Services => "virtual-service:",
            Self::Options => "Options:",
            Self::Daemon => "Daemon Options:",
        }
    }
}

const fn row(
    word: Word,
    names: (&'static str, &'static str),
    value: Value,
    help: &'static [&'static str],
    manual: &'static str,
) -> Row {
    Row { word, long: names.0, shorts: names.1, value, shown: None, help, manual }
}

const fn shown_as(shown: &'static str, row: Row) -> Row {
    Row { shown: Some(shown), ..row }
}

/// The usage lines, without the program's name before them.
pub const SYNOPSIS: [&str; 13] = [
    "-A|E virtual-service [-s scheduler] [-p [timeout]] [-M netmask] [--pe persistence_engine] [-b sched-flags]",
    "-D virtual-service",
    "-C",
    "-R",
    "-S [-n]",
    "-a|e virtual-service -r server-address [options]",
    "-d virtual-service -r server-address",
    "-L|l [virtual-service] [options]",
    "-Z [virtual-service]",
    "--set tcp tcpfin udp",
    "--start-daemon {master|backup} [daemon-options]",
    "--stop-daemon {master|backup}",
    "-h",
];

/// The whole language.
pub static SECTIONS: [Section; 4] = [
    Section { layout: Layout::Commands, rows: COMMANDS },
    Section { layout: Layout::Services, rows: SERVICES },
    Section { layout: Layout::Options, rows: OPTIONS },
    Section { layout: Layout::Daemon, rows: DAEMON_OPTIONS },
];

/// Every row.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    SECTIONS.iter().flat_map(|section| section.rows)
}

/// The row of a long name.
pub fn by_long(name: &[u8]) -> Option<&'static Row> {
    rows().find(|row| row.long.as_bytes() == name)
}

/// The row of a short name.
pub fn by_short(name: u8) -> Option<&'static Row> {
    rows().find(|row| row.shorts.as_bytes().contains(&name))
}

use Value::{No, Optional, Required};

static COMMANDS: &[Row] = &[
    row(
        Word::Command(Command::AddService),
        ("add-service", "A"),
        No,
        &["add virtual service with options"],
        "Add a virtual service. Protocol, address and port, or a firewall mark, tell it from every other.",
    ),
    row(
        Word::Command(Command::EditService),
        ("edit-service", "E"),
        No,
        &["edit virtual service with options"],
        "Replace everything about a virtual service but its identity and its servers. What is not said takes its default: without -s the scheduler becomes wlc, without -p persistence ends.",
    ),
    row(
        Word::Command(Command::DeleteService),
        ("delete-service", "D"),
        No,
        &["delete virtual service"],
        "Delete a virtual service and its servers.",
    ),
    row(
        Word::Command(Command::Flush),
        ("clear", "C"),
        No,
        &["clear the whole table"],
        "Delete all virtual services.",
    ),
    row(
        Word::Command(Command::Restore),
        ("restore", "R"),
        No,
        &["restore rules from stdin"],
        "Read commands from standard input, one a line, with or without the word ipvsadm. A command that the director refuses is reported and passed over; a line that cannot be understood ends the run, and what stood before it stays done. The exit status is that of the last line.",
    ),
    row(
        Word::Command(Command::Save),
        ("save", "S"),
        No,
        &["save rules to stdout"],
        "Print the commands that make the present table. Thresholds, timeouts and daemons are not among them.",
    ),
    row(
        Word::Command(Command::AddServer),
        ("add-server", "a"),
        No,
        &["add real server with options"],
        "Add a real server to a virtual service.",
    ),
    row(
        Word::Command(Command::EditServer),
        ("edit-server", "e"),
        No,
        &["edit real server with options"],
        "Replace everything about a real server but its address and port. What is not said takes its default: without -w the weight becomes 1, without -m or -i the method becomes direct routing, without -x and -y there are no thresholds.",
    ),
    row(
        Word::Command(Command::DeleteServer),
        ("delete-server", "d"),
        No,
        &["delete real server"],
        "Remove a real server from a virtual service.",
    ),
    row(
        Word::Command(Command::List),
        ("list", "Ll"),
        No,
        &["list the table"],
        "List the table, or one virtual service. It is also what happens without any argument.",
    ),
    row(
        Word::Command(Command::Zero),
        ("zero", "Z"),
        No,
        &["zero counters in a service or all services"],
        "Set packet, byte and rate counters to zero, of one virtual service or of all.",
    ),
    shown_as(
        "--set tcp tcpfin udp",
        row(
            Word::Command(Command::Set),
            ("set", ""),
            No,
            &["set connection timeout values"],
            "Set three timeouts in seconds: of TCP connections, of TCP connections after a FIN, and of UDP. A 0 leaves one as it is.",
        ),
    ),
    shown_as(
        "--start-daemon",
        row(
            Word::Command(Command::StartDaemon),
            ("start-daemon", ""),
            Required("state"),
            &["start connection sync daemon"],
            "Start to send connections to another director (master), or to receive them (backup).",
        ),
    ),
    shown_as(
        "--stop-daemon",
        row(
            Word::Command(Command::StopDaemon),
            ("stop-daemon", ""),
            Required("state"),
            &["stop connection sync daemon"],
            "Stop the daemon of this role (master or backup).",
        ),
    ),
    row(
        Word::Help,
        ("help", "h"),
        No,
        &["display this help message"],
        "Show all commands and options in short.",
    ),
    row(Word::Version, ("version", "v"), No, &[], "Show the version whose behaviour this is."),
];

static SERVICES: &[Row] = &[
    row(
        Word::Tcp,
        ("tcp-service", "t"),
        Required("service-address"),
        &["service-address is host[:port]"],
        "A TCP service: host[:port], where the host is an address or a name and the port a number or a service's name. An IPv6 address stands in brackets: [fd00::1]:80. Port 0, or none, means every port and needs -p.",
    ),
    row(
        Word::Udp,
        ("udp-service", "u"),
        Required("service-address"),
        &["service-address is host[:port]"],
        "A UDP service, written as for -t.",
    ),
    row(
        Word::Sctp,
        ("sctp-service", ""),
        Required("service-address"),
        &["service-address is host[:port]"],
        "An SCTP service, written as for -t.",
    ),
    row(
        Word::Mark,
        ("fwmark-service", "f"),
        Required("fwmark"),
        &["fwmark is an integer greater than zero"],
        "All packets that carry this firewall mark, whatever their address, port and protocol.",
    ),
];

static OPTIONS: &[Row] = &[
    row(
        Word::Ipv6,
        ("ipv6", "6"),
        No,
        &["fwmark entry uses IPv6"],
        "After -f: the mark is that of IPv6 packets.",
    ),
    row(
        Word::Option(Kind::Scheduler),
        ("scheduler", "s"),
        Required("scheduler"),
        &["one of rr|wrr|lc|wlc|lblc|lblcr|dh|sh|sed|nq|fo|ovf|mh,", "the default scheduler is wlc."],
        "How a server is chosen for a new connection: rr (in turn), wrr (in turn, by weight), lc (fewest connections), wlc (fewest connections for its weight), lblc (one server for a destination address, until it is overloaded), lblcr (the same with a set of servers), dh (hash of the destination address), sh (hash of the source address), sed (shortest expected delay), nq (an idle server, else sed), fo (the highest weight), ovf (the highest weight until it is full, then the next), mh (Maglev hashing), twos (the better of two picked at random), or none.",
    ),
    row(
        Word::Option(Kind::Engine),
        ("pe", ""),
        Required("engine"),
        &["alternate persistence engine may be sip,", "not set by default."],
        "What tells one client from another for a persistent service, in place of the address: sip (the Call-ID).",
    ),
    row(
        Word::Option(Kind::Persistent),
        ("persistent", "p"),
        Optional("[timeout]"),
        &["persistent service"],
        "Send all connections of a client to the server of its first one, until there have been none for this many seconds (1 to 2678400, 360 if it is not said).",
    ),
    row(
        Word::Option(Kind::Netmask),
        ("netmask", "M"),
        Required("netmask"),
        &["persistent granularity mask"],
        "Clients whose addresses are equal under this mask count as one for -p. IPv4: a mask in dotted form; IPv6: a prefix length, after the service.",
    ),
    row(
        Word::Option(Kind::Server),
        ("real-server", "r"),
        Required("server-address"),
        &["server-address is host (and port)"],
        "The real server, written as a service's address. Without a port, and always with direct routing and tunnels, the port is the service's.",
    ),
    row(
        Word::Direct,
        ("gatewaying", "g"),
        No,
        &["gatewaying (direct routing) (default)"],
        "Direct routing: only the MAC address changes; the server owns the virtual address and answers the client itself.",
    ),
    row(
        Word::Tunnel,
        ("ipip", "i"),
        No,
        &["ipip encapsulation (tunneling)"],
        "Tunnel: the packet is wrapped and sent to the server, which owns the virtual address and answers the client itself.",
    ),
    row(
        Word::Masquerade,
        ("masquerading", "m"),
        No,
        &["masquerading (NAT)"],
        "Network address translation: answers have to pass the director.",
    ),
    row(
        Word::Option(Kind::TunType),
        ("tun-type", ""),
        Required("type"),
        &["one of ipip|gue|gre,", "the default tunnel type is ipip."],
        "What a tunnel wraps packets in.",
    ),
    row(
        Word::Option(Kind::TunPort),
        ("tun-port", ""),
        Required("port"),
        &["tunnel destination port"],
        "The UDP port of a GUE tunnel; needed there and nowhere else.",
    ),
    row(
        Word::Option(Kind::TunNoCsum),
        ("tun-nocsum", ""),
        No,
        &["tunnel encapsulation without checksum"],
        "A GUE or GRE tunnel without checksum; the default.",
    ),
    row(
        Word::Option(Kind::TunCsum),
        ("tun-csum", ""),
        No,
        &["tunnel encapsulation with checksum"],
        "A GUE or GRE tunnel with checksum.",
    ),
    row(
        Word::Option(Kind::TunRemCsum),
        ("tun-remcsum", ""),
        No,
        &["tunnel encapsulation with remote checksum"],
        "A GUE tunnel with remote checksum offload.",
    ),
    row(
        Word::Option(Kind::Weight),
        ("weight", "w"),
        Required("weight"),
        &["capacity of real server"],
        "The server's share, 0 to 2147483647, 1 if it is not said. A server of weight 0 keeps its connections and gets no new ones.",
    ),
    row(
        Word::Option(Kind::Upper),
        ("u-threshold", "x"),
        Required("uthreshold"),
        &["upper threshold of connections"],
        "The server gets no new connections while it has this many. 0: no limit.",
    ),
    row(
        Word::Option(Kind::Lower),
        ("l-threshold", "y"),
        Required("lthreshold"),
        &["lower threshold of connections"],
        "A server that reached its upper threshold gets new connections again below this many. 0: three quarters of the upper one.",
    ),
    row(
        Word::Option(Kind::Connection),
        ("connection", "c"),
        No,
        &["output of current IPVS connections"],
        "List connections.",
    ),
    row(
        Word::Option(Kind::Timeout),
        ("timeout", ""),
        No,
        &["output of timeout (tcp tcpfin udp)"],
        "List the three timeouts that --set changes.",
    ),
    row(
        Word::Option(Kind::Daemon),
        ("daemon", ""),
        No,
        &["output of daemon information"],
        "List the running connection synchronisation daemons.",
    ),
    row(
        Word::Option(Kind::Stats),
        ("stats", ""),
        No,
        &["output of statistics information"],
        "List connections, packets and bytes since they were last set to zero.",
    ),
    row(
        Word::Option(Kind::Rate),
        ("rate", ""),
        No,
        &["output of rate information"],
        "List connections, packets and bytes a second.",
    ),
    shown_as(
        "--exact",
        row(
            Word::Option(Kind::Exact),
            ("exact", "X"),
            No,
            &["expand numbers (display exact values)"],
            "List whole numbers in place of thousands (K), millions (M), billions (G) and trillions (T).",
        ),
    ),
    row(
        Word::Option(Kind::Thresholds),
        ("thresholds", ""),
        No,
        &["output of thresholds information"],
        "List the servers' thresholds.",
    ),
    row(
        Word::Option(Kind::PersistentConn),
        ("persistent-conn", ""),
        No,
        &["output of persistent connection info"],
        "List how many clients stick to each server; with -c, the persistence engine's data as well.",
    ),
    row(
        Word::Option(Kind::TunInfo),
        ("tun-info", ""),
        No,
        &["output of tunnel information"],
        "List the tunnels' types.",
    ),
    row(
        Word::Option(Kind::NoSort),
        ("nosort", ""),
        No,
        &["disable sorting output of service/server entries"],
        "List in the director's own order, the newest server of a service first.",
    ),
    row(
        Word::Sort,
        ("sort", ""),
        No,
        &["does nothing, for backwards compatibility"],
        "Sort the listing, which happens anyway.",
    ),
    row(
        Word::Option(Kind::OnePacket),
        ("ops", "o"),
        No,
        &["one-packet scheduling"],
        "Choose a server for each datagram anew. Only for UDP and marks.",
    ),
    row(
        Word::Option(Kind::Numeric),
        ("numeric", "n"),
        No,
        &["numeric output of addresses and ports"],
        "Show addresses and ports as numbers.",
    ),
    row(
        Word::Option(Kind::SchedFlags),
        ("sched-flags", "b"),
        Required("flags"),
        &["scheduler flags (comma-separated)"],
        "Flags of the scheduler, separated by commas: sh-fallback and mh-fallback (take another server when the hashed one cannot), sh-port and mh-port (hash the source port as well), or by number for any scheduler: flag-1, flag-2, flag-3.",
    ),
];

static DAEMON_OPTIONS: &[Row] = &[
    row(
        Word::Option(Kind::SyncId),
        ("syncid", ""),
        Required("sid"),
        &["syncid for connection sync (default=255)"],
        "A number from 0 to 255 that directors of one group share, 0 if it is not said. A backup with 0 takes messages of every number.",
    ),
    row(
        Word::Option(Kind::SyncMaxlen),
        ("sync-maxlen", ""),
        Required("length"),
        &["Max sync message length (default=1472)"],
        "The longest message in bytes of UDP payload, 1 to 65507.",
    ),
    row(
        Word::Option(Kind::McastInterface),
        ("mcast-interface", ""),
        Required("interface"),
        &["multicast interface for connection sync"],
        "The network interface to send or receive on, eth0 if it is not said.",
    ),
    row(
        Word::Option(Kind::McastGroup),
        ("mcast-group", ""),
        Required("address"),
        &["IPv4/IPv6 group (default=224.0.0.81)"],
        "The multicast address, IPv4 or IPv6.",
    ),
    row(
        Word::Option(Kind::McastPort),
        ("mcast-port", ""),
        Required("port"),
        &["UDP port (default=8848)"],
        "The UDP port.",
    ),
    row(
        Word::Option(Kind::McastTtl),
        ("mcast-ttl", ""),
        Required("ttl"),
        &["Multicast TTL (default=1)"],
        "The TTL of the messages.",
    ),
];
