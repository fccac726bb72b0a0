//! States of an SCTP association: the kernel's tables and timeouts (`ip_vs_proto_sctp.c`, Linux 6.12).
//!
//! A row holds the next state for each current one, four bits each, as TCP's do.

use crate::state::Direction;

/// States with the kernel's numbers (`IP_VS_SCTP_S_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the kernel's names say it")]
pub enum SctpState {
    None = 0,
    Init1 = 1,
    Init = 2,
    CookieSent = 3,
    CookieReplied = 4,
    CookieWait = 5,
    Cookie = 6,
    CookieEchoed = 7,
    Established = 8,
    ShutdownSent = 9,
    ShutdownReceived = 10,
    ShutdownAckSent = 11,
    Rejected = 12,
    Closed = 13,
}

impl SctpState {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::None,
        Self::Init1,
        Self::Init,
        Self::CookieSent,
        Self::CookieReplied,
        Self::CookieWait,
        Self::Cookie,
        Self::CookieEchoed,
        Self::Established,
        Self::ShutdownSent,
        Self::ShutdownReceived,
        Self::ShutdownAckSent,
        Self::Rejected,
        Self::Closed,
    ];

    /// The name in listings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Init1 => "INIT1",
            Self::Init => "INIT",
            Self::CookieSent => "C-SENT",
            Self::CookieReplied => "C-REPLIED",
            Self::CookieWait => "C-WAIT",
            Self::Cookie => "COOKIE",
            Self::CookieEchoed => "C-ECHOED",
            Self::Established => "ESTABLISHED",
            Self::ShutdownSent => "S-SENT",
            Self::ShutdownReceived => "S-RECEIVED",
            Self::ShutdownAckSent => "S-ACK-SENT",
            Self::Rejected => "REJECTED",
            Self::Closed => "CLOSED",
        }
    }

    /// Seconds that an association lives in this state without a packet. The kernel's 61 are the longest pause between two
    /// attempts of a sender and a second.
    pub const fn timeout(self) -> u32 {
        match self {
            Self::None => 2,
            Self::Init1 | Self::Rejected => 4,
            Self::Established => 900,
            _ => 61,
        }
    }

    /// Does it count as an active connection?
    #[inline(always)]
    pub const fn is_active(state: u8) -> bool {
        state == Self::Established as u8
    }
}

/// What a packet means to the table: its first chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the chunks' names say it")]
pub enum Event {
    Data = 0,
    Init = 1,
    InitAck = 2,
    CookieEcho = 3,
    CookieAck = 4,
    Shutdown = 5,
    ShutdownAck = 6,
    ShutdownComplete = 7,
    Error = 8,
    Abort = 9,
}

impl Event {
    /// The event of a chunk type (RFC 9260, 3.2). SACK, HEARTBEAT and unknown ones count as data.
    #[inline(always)]
    pub const fn of(chunk: u8) -> Self {
        match chunk {
            1 => Self::Init,
            2 => Self::InitAck,
            6 => Self::Abort,
            7 => Self::Shutdown,
            8 => Self::ShutdownAck,
            9 => Self::Error,
            10 => Self::CookieEcho,
            11 => Self::CookieAck,
            14 => Self::ShutdownComplete,
            _ => Self::Data,
        }
    }
}

use SctpState as S;
#[cfg(test)]
const NO: S = S::None;
const I1: S = S::Init1;
const IN: S = S::Init;
const CS: S = S::CookieSent;
const CR: S = S::CookieReplied;
const CW: S = S::CookieWait;
const CO: S = S::Cookie;
const CE: S = S::CookieEchoed;
const ES: S = S::Established;
const SS: S = S::ShutdownSent;
const SR: S = S::ShutdownReceived;
const SA: S = S::ShutdownAckSent;
const RJ: S = S::Rejected;
const CL: S = S::Closed;

const fn row(next: [S; 14]) -> u64 {
    let mut packed = 0;
    let mut i = 0;
    while i < 14 {
        packed |= (next[i] as u64) << (4 * i);
        i += 1;
    }
    packed
}

/// Events of a direction.
const EVENTS: usize = 10;

/// Rows by direction × event.
#[rustfmt::skip]
const ROWS: [u64; 3 * EVENTS] = [
    //    NO  I1  IN  CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL
    row([ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]), // input       data
    row([I1, IN, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, IN, IN]), //             INIT
    row([CW, CW, CW, CS, CR, CO, CO, CE, ES, SS, SR, SA, RJ, CL]), //             INIT ACK
    row([CR, IN, IN, CR, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]), //             COOKIE ECHO
    row([ES, I1, IN, CS, CR, CW, CO, ES, ES, SS, SR, SA, RJ, CL]), //             COOKIE ACK
    row([SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL]), //             SHUTDOWN
    row([CL, IN, IN, CS, CR, CW, CO, CE, ES, CL, SR, CL, RJ, CL]), //             SHUTDOWN ACK
    row([CL, CL, CL, CS, CR, CW, CO, CE, ES, SS, SR, CL, RJ, CL]), //             SHUTDOWN COMPLETE
    row([CL, I1, IN, CS, CR, CW, CO, CL, ES, SS, SR, SA, RJ, CL]), //             ERROR
    row([CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL]), //             ABORT
    row([ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]), // output      data
    row([CW, CW, CW, CW, CW, CW, CW, CW, ES, CW, CW, CW, CW, CW]), //             INIT
    row([CS, CS, CS, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]), //             INIT ACK
    row([CE, CE, CE, CE, CE, CE, CE, CE, ES, SS, SR, SA, RJ, CL]), //             COOKIE ECHO
    row([ES, ES, ES, ES, ES, ES, ES, ES, ES, SS, SR, SA, RJ, CL]), //             COOKIE ACK
    row([SS, SS, SS, SS, SS, SS, SS, SS, SS, SS, SR, SA, RJ, CL]), //             SHUTDOWN
    row([SA, SA, SA, SA, SA, CW, CO, CE, ES, SA, SA, SA, RJ, CL]), //             SHUTDOWN ACK
    row([CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]), //             SHUTDOWN COMPLETE
    row([CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, SR, SA, RJ, CL]), //             ERROR
    row([CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL]), //             ABORT
    row([ES, I1, IN, CS, CR, ES, CO, CE, ES, SS, SR, SA, RJ, CL]), // input-only  data
    row([I1, IN, IN, IN, IN, IN, CO, CE, ES, SS, SR, SA, IN, IN]), //             INIT
    row([CE, CE, CE, CE, CE, CE, CO, CE, ES, SS, SR, SA, RJ, CL]), //             INIT ACK
    row([ES, ES, ES, ES, ES, ES, CO, CE, ES, SS, SR, SA, RJ, CL]), //             COOKIE ECHO
    row([ES, I1, IN, ES, ES, CW, ES, ES, ES, SS, SR, SA, RJ, CL]), //             COOKIE ACK
    row([SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL]), //             SHUTDOWN
    row([CL, IN, IN, CS, CR, CW, CO, CE, CL, CL, SR, CL, RJ, CL]), //             SHUTDOWN ACK
    row([CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, CL, CL, RJ, CL]), //             SHUTDOWN COMPLETE
    row([CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]), //             ERROR
    row([CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL]), //             ABORT
];

/// The next state. `event` is an [`Event`]'s number.
#[inline(always)]
pub fn next(state: u8, direction: Direction, event: u8) -> u8 {
    let Some(row) = ROWS.get(direction as usize * EVENTS + event as usize) else { return CL as u8 };
    ((*row >> (4 * (state as u32 & 15))) & 15) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(steps: &[(Direction, Event, SctpState)]) {
        let mut state = NO as u8;
        for (direction, event, expected) in steps {
            state = next(state, *direction, *event as u8);
            assert_eq!(SctpState::ALL[state as usize], *expected, "after {event:?}");
        }
    }

    #[test]
    fn an_association_lives_and_ends() {
        use Direction::{Input, Output};
        walk(&[
            (Input, Event::Init, I1),
            (Output, Event::InitAck, CS),
            (Input, Event::CookieEcho, CR),
            (Output, Event::CookieAck, ES),
            (Input, Event::Data, ES),
            (Input, Event::Shutdown, SR),
            (Output, Event::ShutdownAck, SA),
            (Input, Event::ShutdownComplete, CL),
        ]);
    }

    #[test]
    fn direct_routing_sees_only_the_client() {
        use Direction::InputOnly;
        walk(&[
            (InputOnly, Event::Init, I1),
            (InputOnly, Event::CookieEcho, ES),
            (InputOnly, Event::Abort, CL),
        ]);
    }

    #[test]
    fn a_state_that_the_server_refuses_while_we_wait_is_rejected() {
        use Direction::{Input, Output};
        walk(&[(Output, Event::Init, CW), (Input, Event::Abort, RJ), (Input, Event::Init, IN)]);
        walk(&[(Input, Event::Init, I1), (Output, Event::Abort, RJ)]);
    }
}
