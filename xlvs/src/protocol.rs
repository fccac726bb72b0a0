//! What commands and the daemon say to each other: one line of JSON each way, connections a line each.

use serde::{Deserialize, Serialize};
use xlvs_model::view::{ConnView, Info, ServiceView};
use xlvs_model::{Change, Model, Refusal, ServiceKey, Timeouts};

use crate::explain::{Explanation, Question};
use crate::overview::Overview;

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
    },
    /// All that an operator has said and not taken back.
    Model,
    /// How the director is.
    Overview,
    /// Show all services, or this one.
    Services(Option<ServiceKey>),
    /// Show every connection: many answers, the last is [`Answer::Done`].
    Connections,
    /// The timeouts that `--set` changes.
    Timeouts,
    /// What a listing's head says.
    Info,
    /// Compare counters with the table.
    Check,
    /// Tell what would become of a packet.
    Explain(Question),
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
    /// How the director is.
    Overview(Box<Overview>),
    /// Services.
    Services(Vec<ServiceView>),
    /// One connection of many.
    Connection(ConnView),
    /// Timeouts.
    Timeouts(Timeouts),
    /// The listing's head.
    Info(Info),
    /// What does not agree, a line each.
    Check(Vec<String>),
    /// What would become of a packet.
    Explanation(Box<Explanation>),
}
