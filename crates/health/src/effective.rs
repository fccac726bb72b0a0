//! The weight that a server has in force: the configured one, and what operator, checks and agent make of it.
//!
//! This is the only place where these four meet. The operator's word comes first, then failures, then what lets a server
//! come to rest, then the agent's share:
//!
//! | what holds, the first that does | place in the service |
//! | --- | --- |
//! | an operator disabled the server | out |
//! | an operator drains it | weight 0 |
//! | its agent says `maint` | out, or weight 0 with `inhibit_on_failure` |
//! | a check failed, or its agent says `down` | the same |
//! | it flaps, and is held out | the same |
//! | no check has succeeded yet, with `alpha` | the same |
//! | its agent says `drain` | weight 0 |
//! | its agent says N % | that share of the configured weight |
//! | nothing of this | the configured weight |

use std::fmt;

use serde::{Deserialize, Serialize};

/// The greatest weight that LVS has.
pub const MAX_WEIGHT: u32 = i32::MAX as u32;

/// The share of its weight that a server has without an agent, in percent.
pub const WHOLE: u16 = 100;

/// What an operator has said of a server by hand. It wins over checks and agents until it is taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperatorWord {
    /// Nothing: checks and agents decide.
    #[default]
    Enabled,
    /// No new connections; those that are there go on.
    Drained,
    /// Not used at all.
    Disabled,
}

/// What the checks of a server have found. A server is up only while all its checks are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// It has no checks: it counts as up.
    #[default]
    Unchecked,
    /// Its checks have not come to a judgement yet: it counts as up, unless the policy is `alpha`.
    Unknown,
    /// All succeed.
    Up,
    /// One failed.
    Down,
}

/// How an agent wants its server to be used (HAProxy: the administrative state).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentMode {
    /// As ever.
    #[default]
    Ready,
    /// No new connections.
    Drain,
    /// Not at all.
    Maint,
}

/// The last that a server's agent has said, taken together: its words stay in force until it says others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AgentWord {
    /// Share of the configured weight, in percent; 100 leaves it as it is.
    pub percent: u16,
    /// `ready`, `drain` or `maint`.
    pub mode: AgentMode,
    /// It said `down`, `failed` or `stopped`, and not `up` since.
    pub is_down: bool,
}

impl Default for AgentWord {
    /// An agent that has no objections.
    fn default() -> Self {
        Self { percent: WHOLE, mode: AgentMode::Ready, is_down: false }
    }
}

/// What is done with a server that fails, and with one that is not known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Policy {
    /// LVS's `inhibit_on_failure`: weight 0 instead of removal, so that connections stay.
    pub inhibit_on_failure: bool,
    /// keepalived's `alpha`: down until a check has succeeded.
    pub alpha: bool,
}

/// All that the weight in force depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// The weight that file or command gave it, 0 to [`MAX_WEIGHT`].
    pub configured: u32,
    /// The operator's word.
    pub operator: OperatorWord,
    /// What checks have found.
    pub health: Health,
    /// It broke too often lately.
    pub is_held: bool,
    /// What the agent has said; `None`: it has none, or has not said anything yet.
    pub agent: Option<AgentWord>,
    /// What is done with it when it fails.
    pub policy: Policy,
}

/// Where a server stands in its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// It is there with this weight; 0: it gets nothing new.
    In(u32),
    /// It is not there: packets of its connections find their server removed.
    Out,
}

impl Place {
    /// The weight that counts for quorum and schedulers.
    pub fn weight(self) -> u32 {
        match self {
            Self::In(weight) => weight,
            Self::Out => 0,
        }
    }
}

/// Why a server stands where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Nothing speaks against the configured weight.
    AsConfigured,
    /// An operator disabled it.
    Disabled,
    /// An operator drains it.
    Drained,
    /// A check failed.
    CheckFailed,
    /// Its checks succeed, but it broke too often lately.
    Flapping,
    /// No check has succeeded yet.
    AwaitsFirstCheck,
    /// Its agent says `maint`.
    AgentMaint,
    /// Its agent says `down`.
    AgentDown,
    /// Its agent says `drain`.
    AgentDrain,
    /// Its agent gave it this share of its weight, in percent.
    AgentShare(u16),
    /// A check failed, as those of so many servers that the checks are not believed.
    Panic,
    /// The quorum is lost, and the sorry server serves instead.
    NoQuorum,
}

impl Reason {
    /// Is something wrong with the server, so that its connections may be as well?
    pub fn has_broken(self) -> bool {
        matches!(self, Self::CheckFailed | Self::AgentDown)
    }

    /// Has the server failed, so that others must do its work?
    pub fn is_failure(self) -> bool {
        let by_check = matches!(self, Self::CheckFailed | Self::Flapping | Self::AwaitsFirstCheck);
        by_check || matches!(self, Self::AgentMaint | Self::AgentDown)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsConfigured => f.write_str("as configured"),
            Self::Disabled => f.write_str("disabled by an operator"),
            Self::Drained => f.write_str("drained by an operator"),
            Self::CheckFailed => f.write_str("a check failed"),
            Self::Flapping => f.write_str("it fails too often and is held out"),
            Self::AwaitsFirstCheck => f.write_str("no check has succeeded yet"),
            Self::AgentMaint => f.write_str("its agent says maint"),
            Self::AgentDown => f.write_str("its agent says down"),
            Self::AgentDrain => f.write_str("its agent says drain"),
            Self::Panic => f.write_str("a check failed, but too many do to be believed"),
            Self::NoQuorum => f.write_str("the quorum is lost and the sorry server serves"),
            Self::AgentShare(percent) => write!(f, "its agent says {percent} %"),
        }
    }
}

/// Where a server stands, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Effective {
    /// Where.
    pub place: Place,
    /// Why.
    pub reason: Reason,
}

/// The weight in force. See the module for the order in which its inputs count.
pub fn effective(inputs: &Inputs) -> Effective {
    let Inputs { configured, operator, health, is_held, agent, policy } = *inputs;
    let agent = agent.unwrap_or_default();
    let failed = if policy.inhibit_on_failure { Place::In(0) } else { Place::Out };
    let (place, reason) = match operator {
        OperatorWord::Disabled => (Place::Out, Reason::Disabled),
        OperatorWord::Drained => (Place::In(0), Reason::Drained),
        OperatorWord::Enabled if agent.mode == AgentMode::Maint => (failed, Reason::AgentMaint),
        OperatorWord::Enabled if health == Health::Down => (failed, Reason::CheckFailed),
        OperatorWord::Enabled if agent.is_down => (failed, Reason::AgentDown),
        OperatorWord::Enabled if is_held => (failed, Reason::Flapping),
        OperatorWord::Enabled if health == Health::Unknown && policy.alpha => {
            (failed, Reason::AwaitsFirstCheck)
        }
        OperatorWord::Enabled if agent.mode == AgentMode::Drain => (Place::In(0), Reason::AgentDrain),
        OperatorWord::Enabled if agent.percent != WHOLE => {
            (Place::In(share(configured, agent.percent)), Reason::AgentShare(agent.percent))
        }
        OperatorWord::Enabled => (Place::In(configured), Reason::AsConfigured),
    };
    Effective { place, reason }
}

/// A share of a weight, rounded up: only 0 % or weight 0 give 0, so that a small share does not silently drain a server.
fn share(weight: u32, percent: u16) -> u32 {
    let share = (u64::from(weight) * u64::from(percent)).div_ceil(u64::from(WHOLE));
    u32::try_from(share).unwrap_or(MAX_WEIGHT).min(MAX_WEIGHT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SERVER: Inputs = Inputs {
        configured: 10,
        operator: OperatorWord::Enabled,
        health: Health::Up,
        is_held: false,
        agent: None,
        policy: Policy { inhibit_on_failure: false, alpha: false },
    };

    fn says(percent: u16, mode: AgentMode, is_down: bool) -> Option<AgentWord> {
        Some(AgentWord { percent, mode, is_down })
    }

    #[track_caller]
    fn stands(inputs: Inputs, place: Place, reason: Reason) {
        assert_eq!(effective(&inputs), Effective { place, reason }, "{inputs:?}");
    }

    #[test]
    fn a_healthy_server_has_its_configured_weight() {
        for health in [Health::Unchecked, Health::Unknown, Health::Up] {
            stands(Inputs { health, ..SERVER }, Place::In(10), Reason::AsConfigured);
        }
        stands(Inputs { agent: Some(AgentWord::default()), ..SERVER }, Place::In(10), Reason::AsConfigured);
    }

    #[test]
    fn a_failed_server_is_out_or_gets_nothing_new() {
        let down = Inputs { health: Health::Down, ..SERVER };
        let inhibit = Policy { inhibit_on_failure: true, alpha: false };
        stands(down, Place::Out, Reason::CheckFailed);
        stands(Inputs { policy: inhibit, ..down }, Place::In(0), Reason::CheckFailed);
        let agent = says(100, AgentMode::Ready, true);
        stands(Inputs { agent, ..SERVER }, Place::Out, Reason::AgentDown);
        stands(Inputs { agent, policy: inhibit, ..SERVER }, Place::In(0), Reason::AgentDown);
    }

    #[test]
    fn alpha_waits_for_the_first_check() {
        let alpha = Policy { inhibit_on_failure: false, alpha: true };
        let unknown = Inputs { health: Health::Unknown, policy: alpha, ..SERVER };
        stands(unknown, Place::Out, Reason::AwaitsFirstCheck);
        stands(Inputs { health: Health::Up, ..unknown }, Place::In(10), Reason::AsConfigured);
        stands(Inputs { health: Health::Unchecked, ..unknown }, Place::In(10), Reason::AsConfigured);
    }

    #[test]
    fn an_agent_asks_for_a_share_rounded_up() {
        let with = |configured, percent| Inputs {
            configured,
            agent: says(percent, AgentMode::Ready, false),
            ..SERVER
        };
        stands(with(10, 75), Place::In(8), Reason::AgentShare(75));
        stands(with(1, 1), Place::In(1), Reason::AgentShare(1));
        stands(with(10, 0), Place::In(0), Reason::AgentShare(0));
        stands(with(0, 50), Place::In(0), Reason::AgentShare(50));
        stands(with(MAX_WEIGHT, 200), Place::In(MAX_WEIGHT), Reason::AgentShare(200));
    }

    #[test]
    fn an_agent_drains_and_rests_its_server() {
        stands(
            Inputs { agent: says(50, AgentMode::Drain, false), ..SERVER },
            Place::In(0),
            Reason::AgentDrain,
        );
        stands(Inputs { agent: says(50, AgentMode::Maint, true), ..SERVER }, Place::Out, Reason::AgentMaint);
    }

    #[test]
    fn the_operators_word_wins() {
        let broken = Inputs { health: Health::Down, agent: says(0, AgentMode::Maint, true), ..SERVER };
        stands(Inputs { operator: OperatorWord::Disabled, ..SERVER }, Place::Out, Reason::Disabled);
        stands(Inputs { operator: OperatorWord::Drained, ..broken }, Place::In(0), Reason::Drained);
        let inhibit = Policy { inhibit_on_failure: true, alpha: true };
        let disabled = Inputs { operator: OperatorWord::Disabled, policy: inhibit, ..broken };
        stands(disabled, Place::Out, Reason::Disabled);
    }

    fn any_inputs() -> impl Strategy<Value = Inputs> {
        let operator = prop_oneof![
            Just(OperatorWord::Enabled),
            Just(OperatorWord::Drained),
            Just(OperatorWord::Disabled)
        ];
        let health =
            prop_oneof![Just(Health::Unchecked), Just(Health::Unknown), Just(Health::Up), Just(Health::Down)];
        let mode = prop_oneof![Just(AgentMode::Ready), Just(AgentMode::Drain), Just(AgentMode::Maint)];
        let word = (0..300_u16, mode, any::<bool>()).prop_map(|(percent, mode, is_down)| AgentWord {
            percent,
            mode,
            is_down,
        });
        let policy = any::<(bool, bool)>()
            .prop_map(|(inhibit_on_failure, alpha)| Policy { inhibit_on_failure, alpha });
        (0..=MAX_WEIGHT, operator, health, any::<bool>(), proptest::option::of(word), policy).prop_map(
            |(configured, operator, health, is_held, agent, policy)| Inputs {
                configured,
                operator,
                health,
                is_held,
                agent,
                policy,
            },
        )
    }

    proptest! {
        #[test]
        fn nothing_gets_new_connections_that_should_not(inputs in any_inputs()) {
            let Effective { place, reason } = effective(&inputs);
            let agent = inputs.agent.unwrap_or_default();
            let objected = inputs.operator != OperatorWord::Enabled
                || inputs.health == Health::Down
                || inputs.is_held
                || agent.is_down
                || agent.mode != AgentMode::Ready
                || agent.percent == 0
                || inputs.configured == 0
                || inputs.policy.alpha && inputs.health == Health::Unknown;
            prop_assert_eq!(place.weight() == 0, objected);
            prop_assert!(place.weight() <= MAX_WEIGHT);
            if reason == Reason::AsConfigured {
                prop_assert_eq!(place, Place::In(inputs.configured));
            }
        }

        #[test]
        fn with_inhibit_only_an_operator_removes(inputs in any_inputs()) {
            let policy = Policy { inhibit_on_failure: true, ..inputs.policy };
            let place = effective(&Inputs { policy, ..inputs }).place;
            prop_assert_eq!(place == Place::Out, inputs.operator == OperatorWord::Disabled);
        }
    }
}
