//! Protocol states of a connection: the kernel's tables and timeouts (`ip_vs_proto_tcp.c`, `_udp.c`; Linux 6.12).
//!
//! A TCP row holds the next state for each current one, four bits each, so that a transition is one load and one shift.

use crate::wire::tcp_flag;

/// Which way a packet goes through the connection, and which table judges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// From the client.
    Input = 0,
    /// From the server.
    Output = 1,
    /// From the client, where no reply has been seen (always so in DR and TUN).
    InputOnly = 2,
}

/// TCP states with the kernel's numbers (`IP_VS_TCP_S_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the kernel's names say it")]
pub enum TcpState {
    None = 0,
    Established = 1,
    SynSent = 2,
    SynRecv = 3,
    FinWait = 4,
    TimeWait = 5,
    Close = 6,
    CloseWait = 7,
    LastAck = 8,
    Listen = 9,
    SynAck = 10,
}

impl TcpState {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::None,
        Self::Established,
        Self::SynSent,
        Self::SynRecv,
        Self::FinWait,
        Self::TimeWait,
        Self::Close,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::SynAck,
    ];

    /// LVS's word for it in `-Lc`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait => "FIN_WAIT",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::SynAck => "SYNACK",
        }
    }

    /// Seconds that a connection lives in this state without a packet.
    pub const fn timeout(self) -> u32 {
        match self {
            Self::None => 2,
            Self::Established => 900,
            Self::SynSent => 120,
            Self::SynRecv => 60,
            Self::FinWait => 120,
            Self::TimeWait => 120,
            Self::Close => 10,
            Self::CloseWait => 60,
            Self::LastAck => 30,
            Self::Listen => 120,
            Self::SynAck => 120,
        }
    }

    /// Does it count as an active connection?
    #[inline(always)]
    pub const fn is_active(state: u8) -> bool {
        // Established, SynSent, SynRecv, SynAck.
        const ACTIVE: u16 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 10;
        ACTIVE >> (state & 15) & 1 == 1
    }
}

/// What a TCP packet means to the table; the first that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TcpEvent {
    /// SYN
    Syn = 0,
    /// FIN
    Fin = 1,
    /// ACK
    Ack = 2,
    /// RST
    Rst = 3,
}

impl TcpEvent {
    /// RST first, else SYN, else FIN, else ACK; `None` when none of them is set.
    #[inline(always)]
    pub const fn of(flags: u8) -> Option<Self> {
        if flags & tcp_flag::RST != 0 {
            Some(Self::Rst)
        } else if flags & tcp_flag::SYN != 0 {
            Some(Self::Syn)
        } else if flags & tcp_flag::FIN != 0 {
            Some(Self::Fin)
        } else if flags & tcp_flag::ACK != 0 {
            Some(Self::Ack)
        } else {
            None
        }
    }
}

use TcpState as S;
#[cfg(test)]
const NO: S = S::None;
const ES: S = S::Established;
const SS: S = S::SynSent;
const SR: S = S::SynRecv;
const FW: S = S::FinWait;
const TW: S = S::TimeWait;
const CL: S = S::Close;
const CW: S = S::CloseWait;
const LA: S = S::LastAck;
const LI: S = S::Listen;
const SA: S = S::SynAck;

const fn row(next: [S; 11]) -> u64 {
    let mut packed = 0;
    let mut i = 0;
    while i < 11 {
        packed |= (next[i] as u64) << (4 * i);
        i += 1;
    }
    packed
}

/// Rows by direction × event.
type Rows = [u64; 12];

#[rustfmt::skip]
const NORMAL: Rows = [
    //    NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
    row([SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR]), // input       SYN
    row([CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW]), //             FIN
    row([ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES]), //             ACK
    row([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR]), //             RST
    row([SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR]), // output      SYN
    row([TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW]), //             FIN
    row([ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES]), //             ACK
    row([CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL]), //             RST
    row([SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR]), // input-only  SYN
    row([CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW]), //             FIN
    row([ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES]), //             ACK
    row([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL]), //             RST
];

/// With `secure_tcp`: a connection is established only by an answer of the server.
#[rustfmt::skip]
const SECURE: Rows = [
    //    NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
    row([SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SA]), // input       SYN
    row([CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, SA]), //             FIN
    row([ES, ES, SS, SR, FW, TW, CL, CW, CL, LI, SA]), //             ACK
    row([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL]), //             RST
    row([SS, ES, SS, SA, SS, SS, SS, SS, SS, LI, SA]), // output      SYN
    row([TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW]), //             FIN
    row([ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES]), //             ACK
    row([CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL]), //             RST
    row([SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA]), // input-only  SYN
    row([CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW]), //             FIN
    row([ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES]), //             ACK
    row([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL]), //             RST
];

/// The next TCP state. A packet with none of the flags closes the connection, as in the kernel.
#[inline(always)]
pub fn next_tcp(state: u8, direction: Direction, flags: u8, secure: bool) -> u8 {
    let Some(event) = TcpEvent::of(flags) else { return TcpState::Close as u8 };
    let rows = if secure { &SECURE } else { &NORMAL };
    // In range by construction: 3 directions × 4 events.
    let Some(row) = rows.get(direction as usize * 4 + event as usize) else { return TcpState::Close as u8 };
    ((*row >> (4 * (state as u32 & 15))) & 15) as u8
}

/// The one state of UDP (`IP_VS_UDP_S_NORMAL`), in two: ours remembers whether the server has answered, since that is what
/// makes a template of UDP assured.
pub mod udp {
    /// Only the client has spoken.
    pub const ASKED: u8 = 0;
    /// The server has answered.
    pub const ANSWERED: u8 = 1;
}
/// Seconds that a UDP connection lives without a packet.
pub const UDP_TIMEOUT: u32 = 300;

/// States of a persistence template (`IP_VS_CTPL_S_*`).
pub mod template {
    /// Not proven yet.
    pub const NONE: u8 = 0;
    /// A connection through it was established.
    pub const ASSURED: u8 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcp_flag::{ACK, FIN, RST, SYN};

    fn walk(direction: Direction, steps: &[(u8, TcpState)]) {
        let mut state = TcpState::None as u8;
        for (flags, expected) in steps {
            state = next_tcp(state, direction, *flags, false);
            assert_eq!(TcpState::ALL[state as usize], *expected, "after {flags:#x}");
        }
    }

    #[test]
    fn direct_routing_sees_only_the_client() {
        let steps = [(SYN, SR), (ACK, ES), (ACK, ES), (FIN | ACK, FW), (ACK, FW)];
        walk(Direction::InputOnly, &steps);
    }

    #[test]
    fn client_reset_in_syn_recv_stays() {
        walk(Direction::Input, &[(SYN, SR), (RST, SR)]);
        walk(Direction::Input, &[(SYN, SR), (ACK, ES), (RST | ACK, CL)]);
    }

    #[test]
    fn no_flag_at_all_closes() {
        walk(Direction::Input, &[(SYN, SR), (0, CL)]);
    }

    #[test]
    fn secure_tcp_waits_for_the_server() {
        let s = |state: TcpState, d, f| TcpState::ALL[next_tcp(state as u8, d, f, true) as usize];
        assert_eq!(s(SR, Direction::Input, ACK), SR);
        assert_eq!(s(SR, Direction::Output, SYN | ACK), SA);
        assert_eq!(s(SA, Direction::Output, ACK), ES);
        assert_eq!(s(NO, Direction::InputOnly, SYN), SA);
    }

    #[test]
    fn active_states() {
        let active: Vec<_> = S::ALL.into_iter().filter(|s| S::is_active(*s as u8)).collect();
        assert_eq!(active, [ES, SS, SR, SA]);
    }
}
