//! Load-driven weights: a server's own agent is asked what share of its weight it wants, in HAProxy's agent-check protocol.
//!
//! [`question`] is one exchange with an agent, [`answer`] what its line means, [`share`] how the answers, which jump, become a
//! share that does not. All of it is pure; sockets and timers are the daemon's.

pub mod answer;
pub mod question;
pub mod share;

pub use answer::{Answer, AnswerError};
pub use question::{Question, QuestionError};
pub use share::{Pace, Share};
