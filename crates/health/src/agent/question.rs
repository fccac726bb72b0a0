//! One exchange with an agent: connect, send what it wants to hear, read its first line.

use thiserror::Error;

use super::answer::{Answer, AnswerError};

/// Bytes of a line at the most; HAProxy's buffer for it is of this order.
pub const LONGEST: usize = 1024;

/// Why nothing was learned. The weight stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QuestionError {
    /// Nobody is there.
    #[error("nobody answers: {0}; is `xlvs rs agent` running there?")]
    NotConnected(String),
    /// It did not say enough in time.
    #[error("no line came in time")]
    TimedOut,
    /// It hung up without a word.
    #[error("the agent hung up without a word")]
    HungUp,
    /// It goes on and on.
    #[error("the agent's line is longer than {LONGEST} bytes")]
    Endless,
    /// It is no text.
    #[error("the agent's line is no text")]
    NoText,
    /// It makes no sense.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

/// An exchange under way.
#[derive(Debug)]
pub struct Question {
    line: Vec<u8>,
    most: u16,
}

/// What came from the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<'b> {
    /// Bytes.
    Bytes(&'b [u8]),
    /// It hung up.
    End,
    /// The time is over.
    Timeout,
}

impl Question {
    /// An exchange whose agent may ask for so many percent.
    pub fn new(most: u16) -> Self {
        Self { line: Vec::new(), most }
    }

    /// Takes what came. `Some`: the exchange is over, and this was learned.
    pub fn step(&mut self, heard: Heard<'_>) -> Option<Result<Answer, QuestionError>> {
        match heard {
            Heard::Bytes(bytes) => {
                let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n' | 0));
                let bytes = &bytes[..end.unwrap_or(bytes.len())];
                let room = LONGEST - self.line.len();
                if bytes.len() > room {
                    return Some(Err(QuestionError::Endless));
                }
                self.line.extend_from_slice(bytes);
                end.map(|_| self.outcome())
            }
            Heard::End if self.line.is_empty() => Some(Err(QuestionError::HungUp)),
            Heard::End => Some(self.outcome()),
            Heard::Timeout => Some(Err(QuestionError::TimedOut)),
        }
    }

    fn outcome(&self) -> Result<Answer, QuestionError> {
        let line = std::str::from_utf8(&self.line).map_err(|_| QuestionError::NoText)?;
        Ok(Answer::read(line, self.most)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hears(parts: &[Heard<'_>]) -> Option<Result<Answer, QuestionError>> {
        let mut question = Question::new(100);
        parts.iter().find_map(|part| question.step(*part))
    }

    fn percent(parts: &[Heard<'_>]) -> Option<u16> {
        hears(parts)?.ok()?.percent
    }

    #[test]
    fn a_line_may_come_in_pieces_and_end_in_every_way() {
        use Heard::{Bytes, End};
        assert_eq!(percent(&[Bytes(b"75%\n")]), Some(75));
        assert_eq!(percent(&[Bytes(b"7"), Bytes(b"5%\r\nmore")]), Some(75));
        assert_eq!(percent(&[Bytes(b"75%"), End]), Some(75));
        assert_eq!(percent(&[Bytes(b"75%\0")]), Some(75));
        assert_eq!(hears(&[Bytes(b"75%")]), None, "the line has not ended");
    }

    #[test]
    fn strangers_are_borne_with() {
        use Heard::{Bytes, End, Timeout};
        let why = |parts: &[Heard<'_>]| hears(parts).expect("it is over").expect_err("nothing was learned");
        assert_eq!(why(&[End]), QuestionError::HungUp);
        assert_eq!(why(&[Bytes(b"7"), Timeout]), QuestionError::TimedOut);
        assert_eq!(why(&[Bytes(&[b'x'; LONGEST]), Bytes(b"x")]), QuestionError::Endless);
        assert_eq!(why(&[Bytes(&[b'x'; 100_000])]), QuestionError::Endless);
        assert_eq!(why(&[Bytes(b"\xff\xfe\n")]), QuestionError::NoText);
        assert_eq!(why(&[Bytes(b"\n")]), QuestionError::Answer(AnswerError::Empty));
    }
}
