//! What becomes of a packet, and why.

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $n:literal, $label:literal, $sentence:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum $name { $($(#[$vdoc])* $variant = $n,)* }

        impl $name {
            /// Room for counters of all reasons.
            pub const SPACE: usize = 32;
            /// All reasons.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The reason with this number.
            #[inline(always)]
            pub const fn from_u8(n: u8) -> Option<Self> {
                match n { $($n => Some(Self::$variant),)* _ => None }
            }

            /// The reason as a metric's label.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// The reason in a sentence for operators.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }
        }
    };
}

reasons! {
    /// Why a packet was dropped. Each is a counter, a metric and a sentence.
    DropReason {
        /// Both candidate buckets hold only live connections.
        TableFull = 0, "table_full", "the connection table has no room for a new connection: make it larger (--max-conns)";
        /// The server was removed; its connections wait for it to come back.
        ServerGone = 1, "server_gone", "the connection's server was removed from the service";
        /// The server's next hop is not known.
        Unresolved = 2, "next_hop_unresolved", "the server's next hop is not resolved: is it up, on the network, and routed?";
        /// The way to the client is not known.
        ClientUnresolved = 3, "client_next_hop_unresolved", "the next hop towards the client is not resolved yet";
        /// No usable server, and the rate of ICMP answers is exhausted or the packet asks for none.
        NoServer = 4, "no_server", "the service has no usable server";
        /// Other processors kept inserting the same connection.
        Contended = 5, "contended", "several processors created the same connection at once, too often";
        /// TTL exhausted, and the rate of ICMP answers is too.
        TtlExceeded = 6, "ttl_exceeded", "the packet's time to live ended here";
        /// Larger than the way to the server.
        TooBig = 7, "too_big", "the packet is larger than the way takes";
        /// The transport header is cut.
        Malformed = 8, "malformed", "the packet to a virtual service has a cut or impossible header";
        /// A record or a map that must exist was not found.
        Broken = 9, "broken", "the data plane's tables contradict each other: run `xlvs check`";
        /// No room before the packet for an outer header.
        NoHeadroom = 10, "no_headroom", "the driver left no room before the packet for a tunnel header";
        /// drop_packet
        Pressure = 11, "drop_packet", "new connections are thinned out by the drop_packet defence";
        /// A method that this build does not forward.
        Unsupported = 12, "unsupported", "the server's method is not forwarded for this kind of packet";
        /// The kernel knows no way to the client.
        NoRoute = 13, "no_route_to_client", "the director has no route to the client";
        /// An ICMP error about a NAT connection, or about a tunnel's packet, that was damaged on its way.
        IcmpChecksum = 14, "icmp_checksum", "an ICMP error about a connection fails its checksum";
        /// The first fragment of a packet whose others did not come.
        Incomplete = 15, "incomplete", "fragments of a packet did not all come in time";
        /// No room in the ring to the daemon.
        RingFull = 16, "ring_full", "fragments, or packets to be cut, wait for a daemon: it is not running, or too busy";
        /// Too long for the ring's records.
        TooLong = 17, "too_long", "a fragment, or a packet to be cut, is longer than the daemon takes";
        /// nat_icmp_send
        NoEntry = 18, "no_entry", "a NAT server's packet belongs to no connection, and nat_icmp_send has such packets refused";
        /// Of a NAT server that nobody outside can reach.
        Loopback = 19, "loopback", "the real server is a loopback address, which NAT does not lead to from outside";
    }
}

reasons! {
    /// Why a packet was passed to the stack.
    PassReason {
        /// Neither to a VIP nor from a real server.
        NotOurs = 0, "not_ours", "no virtual service has this address";
        /// Neither IPv4 nor IPv6.
        NotIp = 1, "not_ip", "the frame carries no IP packet";
        /// A header is cut, lies about its length, or has a wrong checksum.
        Malformed = 2, "malformed", "the packet's headers are cut, lie about its length or fail their checksum";
        /// A fragment.
        Fragment = 3, "fragment", "the packet is a fragment of an ICMP message";
        /// ICMP: the stack answers for the VIP.
        Icmp = 4, "icmp", "ICMP is answered by the director's own stack";
        /// A transport protocol that is not balanced.
        Protocol = 5, "protocol", "the transport protocol is not balanced";
        /// No service on this port.
        NoService = 6, "no_service", "the address is a VIP but no service has this port";
        /// No connection, and the packet may not make one.
        NoConnection = 7, "no_connection", "the packet belongs to no connection and cannot open one";
        /// The real server is the director itself.
        Local = 8, "local", "the real server is the director itself";
        /// A reply that passes the director on its way (DR, TUN).
        Reply = 9, "reply", "a real server's direct reply passes the director";
        /// VLAN tags of no device of this host.
        Vlan = 10, "vlan", "no VLAN device of this host takes the frame's tags";
        /// More IPv6 extension headers than are walked, or longer ones.
        Extensions = 14, "extensions", "the packet has more extension headers than are walked";
        /// Sent to a multicast or broadcast MAC.
        Group = 12, "group", "the frame was sent to a group of hosts, not to the director";
        /// From a server's FTP data port: not scheduled, as in LVS.
        FtpData = 13, "ftp_data", "a packet from port 20 opens no connection: it is taken for a real server's FTP data";
        /// From an address that no host has, or from the very address that it is for.
        Source = 15, "source", "the packet's source is no host's address: the stack drops such packets";
        /// A source route, or a security label.
        Options = 16, "options", "the packet's IP options are for the stack: a source route or a security label";
        /// `cache_bypass`: of a connection that has no server.
        Bypass = 17, "bypass", "a packet that found no server goes where it is addressed to, by the stack";
        /// The data plane has no configuration yet.
        Unconfigured = 11, "unconfigured", "the data plane is not configured";
    }
}

/// What becomes of a packet.
///
/// Every variant fills the same two words: the compiler would leave holes undefined, and the verifier refuses to carry
/// what was never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[must_use]
pub enum Verdict {
    /// To the director's own stack, untouched.
    Pass(PassReason),
    /// Nowhere.
    Drop(DropReason),
    /// Out of the interface it came in by.
    Transmit {
        /// Its index.
        ifindex: u32,
    },
    /// Out of another interface.
    Redirect {
        /// Its index.
        ifindex: u32,
    },
    /// Out of this interface, in pieces no longer than [`crate::env::Env::cut_to`] was told: the daemon's work, since a program
    /// makes one packet of one.
    Cut {
        /// Its index.
        ifindex: u32,
    },
    /// It is a fragment: to the daemon, which puts the packet together and asks about it.
    PutTogether {
        /// The interface that it came in by.
        ifindex: u32,
    },
    /// On between the director's own stack and this interface, rewritten: the server is the director itself.
    Local {
        /// Its index.
        ifindex: u32,
    },
    /// As [`Verdict::Transmit`], but it is an ICMP error of the director's now.
    Answer {
        /// The interface's index.
        ifindex: u32,
    },
}
