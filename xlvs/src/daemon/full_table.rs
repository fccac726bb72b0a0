//! A table without room for new connections: said when it begins, once a minute while it lasts, and when it is over.

use std::time::Duration;

use crate::event::Happening;

const SAY_EVERY: Duration = Duration::from_secs(60);
/// Refusals come in bursts. It is over when there was none for so long.
const OVER_AFTER: Duration = Duration::from_secs(10);

/// What is known of refusals, and what was said.
#[derive(Debug)]
pub struct FullTable {
    /// Refusals so far, from the counter.
    seen: u64,
    /// While it lasts: when the last refusal was seen, when it was spoken of, and how many there were at that time.
    lasting: Option<Lasting>,
}

#[derive(Clone, Copy, Debug)]
struct Lasting {
    refused_at: Duration,
    said_at: Duration,
    said: u64,
}

/// What an operator should hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Refuses(u64),
    TakesAgain,
}

impl FullTable {
    /// What was refused before the daemon began is nobody's news.
    pub fn since(seen: u64) -> Self {
        Self { seen, lasting: None }
    }

    /// Looks at the counter of refusals; `now` on any clock that only goes forward. What is to be heard is logged, and
    /// given back for those who watch.
    pub fn watch(&mut self, refused: u64, now: Duration) -> Option<Happening> {
        match self.step(refused, now)? {
            Line::Refuses(count) => {
                tracing::error!(
                    count,
                    "the connection table is full and refused new connections; those it has go on. Larger: `xlvs run --max-conns`, after `xlvs unload`"
                );
                Some(Happening::TableFull { refused: count })
            }
            Line::TakesAgain => {
                tracing::info!("the connection table takes new connections again");
                Some(Happening::TableTakesAgain)
            }
        }
    }

    fn step(&mut self, refused: u64, now: Duration) -> Option<Line> {
        let before = std::mem::replace(&mut self.seen, refused);
        let news = refused > before;
        let Some(mut lasting) = self.lasting else {
            self.lasting = news.then_some(Lasting { refused_at: now, said_at: now, said: refused });
            return news.then(|| Line::Refuses(refused - before));
        };
        if !news && now.saturating_sub(lasting.refused_at) >= OVER_AFTER {
            self.lasting = None;
            return Some(Line::TakesAgain);
        }
        if news {
            lasting.refused_at = now;
        }
        let line = (news && now.saturating_sub(lasting.said_at) >= SAY_EVERY).then(|| {
            let count = refused - lasting.said;
            (lasting.said_at, lasting.said) = (now, refused);
            Line::Refuses(count)
        });
        self.lasting = Some(lasting);
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_at_once_then_once_a_minute_and_at_the_end() {
        let mut table = FullTable::since(5);
        let mut at = |refused, seconds| table.step(refused, Duration::from_secs(seconds));
        assert_eq!(at(5, 1), None);
        assert_eq!(at(8, 2), Some(Line::Refuses(3)));
        assert_eq!(at(9, 3), None);
        assert_eq!(at(20, 62), Some(Line::Refuses(12)));
        assert_eq!(at(20, 71), None);
        assert_eq!(at(20, 72), Some(Line::TakesAgain));
        assert_eq!(at(20, 73), None);
        assert_eq!(at(21, 74), Some(Line::Refuses(1)));
    }
}
