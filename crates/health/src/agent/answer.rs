//! A line of HAProxy's agent-check protocol (its manual, `agent-check`): words between spaces, tabs or commas, case aside.

use thiserror::Error;

use crate::effective::{AgentMode, AgentWord};

/// What an agent said. What it did not speak of stays as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// `75%`: the share of its weight that it wants.
    pub percent: Option<u16>,
    /// `ready`, `drain` or `maint`.
    pub mode: Option<AgentMode>,
    /// `up`, or one of `down`, `failed`, `stopped`.
    pub is_down: Option<bool>,
    /// What it gave as the reason, after `#`.
    pub because: Option<String>,
}

/// Why a line is no answer. The weight stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// Nothing stands there.
    #[error("the agent's line is empty; it should say something like 75% or up")]
    Empty,
    /// A word that the protocol does not have.
    #[error("the agent said {0:?}; the words are N%, ready, drain, maint, up, down, failed and stopped")]
    Unknown(String),
    /// A share beyond the largest that is allowed.
    #[error(
        "the agent asked for {percent} % of its weight; the most it is given is {most} % (`most` of the agent allows more)"
    )]
    TooMuch {
        /// What it asked for.
        percent: u32,
        /// What is allowed.
        most: u16,
    },
}

impl Answer {
    /// Reads a line, without its end. All of it counts or none: `most` is the largest share that is allowed, in percent.
    pub fn read(line: &str, most: u16) -> Result<Self, AnswerError> {
        let (words, because) = match line.split_once('#') {
            Some((words, because)) => (words, Some(because.trim().to_owned())),
            None => (line, None),
        };
        let mut answer = Self { because: because.filter(|text| !text.is_empty()), ..Self::default() };
        let mut words = words.split([' ', '\t', ',']).filter(|word| !word.is_empty()).peekable();
        if words.peek().is_none() {
            return Err(AnswerError::Empty);
        }
        words.try_for_each(|word| answer.take(word, most))?;
        Ok(answer)
    }

    fn take(&mut self, word: &str, most: u16) -> Result<(), AnswerError> {
        let unknown = || AnswerError::Unknown(shortened(word));
        if let Some(number) = word.strip_suffix('%') {
            let percent: u32 = number.parse().map_err(|_| unknown())?;
            let fits = u16::try_from(percent).ok().filter(|percent| *percent <= most);
            self.percent = Some(fits.ok_or(AnswerError::TooMuch { percent, most })?);
            return Ok(());
        }
        match word.to_ascii_lowercase().as_str() {
            "ready" => self.mode = Some(AgentMode::Ready),
            "drain" => self.mode = Some(AgentMode::Drain),
            "maint" => self.mode = Some(AgentMode::Maint),
            "up" => self.is_down = Some(false),
            "down" | "failed" | "stopped" => self.is_down = Some(true),
            // HAProxy's limit of connections: LVS's thresholds are the operator's.
            limit if limit.starts_with("maxconn:") => {}
            _ => return Err(unknown()),
        }
        Ok(())
    }

    /// What holds after it, given what held before.
    pub fn after(&self, before: Option<AgentWord>) -> AgentWord {
        let before = before.unwrap_or_default();
        AgentWord {
            percent: self.percent.unwrap_or(before.percent),
            mode: self.mode.unwrap_or(before.mode),
            is_down: self.is_down.unwrap_or(before.is_down),
        }
    }
}

/// Of words of strangers a log keeps the beginning.
fn shortened(word: &str) -> String {
    const LENGTH: usize = 32;
    let mut text: String = word.chars().take(LENGTH).collect();
    if text.len() < word.len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effective::WHOLE as MOST;

    fn read(line: &str) -> Answer {
        Answer::read(line, MOST).unwrap_or_else(|why| panic!("{line}: {why}"))
    }

    #[test]
    fn every_word_of_the_protocol_is_known() {
        assert_eq!(read("75%").percent, Some(75));
        assert_eq!(read("0%").percent, Some(0));
        for (word, mode) in
            [("ready", AgentMode::Ready), ("Drain", AgentMode::Drain), ("MAINT", AgentMode::Maint)]
        {
            assert_eq!(read(word), Answer { mode: Some(mode), ..Answer::default() });
        }
        for (word, is_down) in [("up", false), ("down", true), ("failed", true), ("stopped", true)] {
            assert_eq!(read(word), Answer { is_down: Some(is_down), ..Answer::default() });
        }
        let all = read("ready up,\t50%\tmaxconn:30 # two of four disks");
        assert_eq!((all.mode, all.is_down, all.percent), (Some(AgentMode::Ready), Some(false), Some(50)));
        assert_eq!(all.because.as_deref(), Some("two of four disks"));
    }

    #[test]
    fn what_is_not_said_stays() {
        let before = AgentWord { percent: 40, mode: AgentMode::Drain, is_down: true };
        assert_eq!(read("up").after(Some(before)), AgentWord { is_down: false, ..before });
        assert_eq!(read("90%").after(Some(before)), AgentWord { percent: 90, ..before });
        assert_eq!(read("ready").after(Some(before)), AgentWord { mode: AgentMode::Ready, ..before });
        assert_eq!(read("30%").after(None), AgentWord { percent: 30, ..AgentWord::default() });
    }

    #[test]
    fn nonsense_changes_nothing_and_says_why() {
        for line in ["HTTP/1.1 200 OK", "75", "%", "-1%", "7.5%", "up sideways", "99999999999%"] {
            assert!(matches!(Answer::read(line, MOST), Err(AnswerError::Unknown(_))), "{line}");
        }
        for line in ["", "  ,", "# only a reason"] {
            assert_eq!(Answer::read(line, MOST), Err(AnswerError::Empty), "{line}");
        }
        assert_eq!(Answer::read("200%", MOST), Err(AnswerError::TooMuch { percent: 200, most: 100 }));
        assert_eq!(Answer::read("200%", 200).map(|answer| answer.percent), Ok(Some(200)));
        let long = "x".repeat(1000);
        assert!(Answer::read(&long, MOST).expect_err("a word of a thousand").to_string().len() < 200);
    }
}
