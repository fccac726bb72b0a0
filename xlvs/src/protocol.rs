//! What commands and the daemon say to each other: one line of JSON each way, connections a line each.

use std::io;

use serde::{Deserialize, Serialize};
use xlvs_health::{OperatorWord, Standing};
use xlvs_model::view::{ConnView, Info, ServiceView};
use xlvs_model::watch::AgentSpec;
use xlvs_model::{Change, Model, Refusal, ServerKey, ServiceKey, Timeouts};

use crate::event::Event;
use crate::explain::{Explanation, Question};
use crate::overview::Overview;
use crate::trace::{Traced, Wanted};

/// A question to the daemon.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Apply these changes in order, up to the first that is refused.
    Apply(Vec<Change>),
    /// Become what these changes make of nothing, as one change; or only say what that would change.
    Become {
        /// What there is to be.
        changes: Vec<Change>,
        /// Also put servers that are there already into this order.
        in_order: bool,
        /// Change nothing.
        only_plan: bool,
        /// Whose wish it is, for the history.
        by: String,
    },
    /// Become what this file (`xlvs.toml`) says, as one change; or only say what that would change.
    Configure {
        /// The file's text.
        text: String,
        /// Also put servers that are there already into this order.
        in_order: bool,
        /// Change nothing.
        only_plan: bool,
        /// Whose wish it is, for the history.
        by: String,
    },
    /// Read the file again that the daemon was started with, and become what it says.
    Reload,
    /// In what the running director differs from this file's text, or from the file that the daemon was started with.
    Difference(Option<String>),
    /// Say this of a server; it holds until something else is said.
    Say(ServiceKey, ServerKey, OperatorWord),
    /// Ask this agent of a server, or of all of a service's, or none any more.
    Agent {
        /// The service.
        service: ServiceKey,
        /// The server; `None`: all.
        server: Option<ServerKey>,
        /// Whom to ask.
        agent: Option<AgentSpec>,
    },
    /// Alter one service or server, as one change that is a revision; or only say what that would change.
    Alter {
        /// What there is to be.
        what: Alteration,
        /// Change nothing.
        only_plan: bool,
        /// Whose wish it is, for the history.
        by: String,
    },
    /// How servers fare that are looked after, or of which something was said.
    Standings,
    /// All that rules, as an `xlvs.toml`.
    Saved,
    /// The revisions that are kept.
    History,
    /// Become what this revision was, as one change; or only say what that would change.
    Rollback {
        /// Its number.
        number: u64,
        /// Change nothing.
        only_plan: bool,
    },
    /// All that an operator has said and not taken back.
    Model,
    /// How the director is.
    Overview,
    /// Show all services, or this one.
    Services(Option<ServiceKey>),
    /// Show every connection: many answers, the last is [`Answer::Done`].
    Connections,
    /// Tell the last of what has happened, and what happens from now on: many answers. They end with the conversation, or,
    /// when only the past is asked for, with [`Answer::Done`].
    Watch {
        /// So many of the past.
        last: u64,
        /// Also what happens from now on.
        follow: bool,
    },
    /// Tell what becomes of these packets: many answers, [`Answer::Tracing`] when it begins and [`Answer::Done`] when it ends by
    /// itself.
    Trace(Wanted),
    /// The timeouts that `--set` changes.
    Timeouts,
    /// What a listing's head says.
    Info,
    /// Compare counters with the table.
    Check,
    /// Tell what would become of a packet.
    Explain(Question),
}

/// What one service or server is to be. What is not spoken of stays as it is stated.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Alteration {
    /// The service of this file (`xlvs.toml`).
    Service {
        /// The file's text, with this one service.
        file: String,
        /// Its servers are to be these; else they stay as they are.
        with_servers: bool,
    },
    /// The server of this file's service.
    Server {
        /// The file's text, with this one service and server.
        file: String,
    },
    /// This service is not to be any more.
    NoService(ServiceKey),
    /// Nor this server.
    NoServer(ServiceKey, ServerKey),
    /// No service is to be.
    Nothing,
}

impl Answer {
    /// That it answers another question than was asked.
    pub fn unexpected(&self) -> io::Error {
        io::Error::other(format!("the director answered {self:?}; is it another version?"))
    }
}

/// A state that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Counted from 1.
    pub number: u64,
    /// Seconds since 1970.
    pub time: u64,
    /// How many changes led to it.
    pub changes: usize,
    /// Whose wish it was.
    pub by: String,
}

/// The daemon's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is done.
    Done,
    /// This change was refused; those before it stand, unless all were to be one.
    Refused(usize, Refusal),
    /// It could not be done, in a sentence.
    Failed(String),
    /// What was or would be changed, a sentence each.
    Plan(Vec<String>),
    /// All that an operator has said.
    Model(Box<Model>),
    /// How servers fare.
    Standings(Vec<Standing>),
    /// A file.
    Text(String),
    /// Revisions, the oldest first.
    History(Vec<Revision>),
    /// How the director is.
    Overview(Box<Overview>),
    /// Services.
    Services(Vec<ServiceView>),
    /// One connection of many.
    Connection(ConnView),
    /// Something that happened.
    Event(Event),
    /// So many events, or steps, came too fast for the reader.
    Missed(u64),
    /// Packets are told of from now on.
    Tracing,
    /// A packet, and what became of it.
    Traced(Box<Traced>),
    /// Timeouts.
    Timeouts(Timeouts),
    /// The listing's head.
    Info(Info),
    /// What does not agree, a line each.
    Check(Vec<String>),
    /// What would become of a packet.
    Explanation(Box<Explanation>),
}
