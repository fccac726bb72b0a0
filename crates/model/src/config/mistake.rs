//! What is wrong with a file, and where.

use std::cell::RefCell;
use std::fmt;

/// Mistakes that are shown one by one.
const SHOWN: usize = 25;

/// Something wrong at a place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In a sentence, with the right word where there is one.
    pub message: String,
}

/// All that is wrong with a file, in its order; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.0.iter()
    }

    /// A line a mistake: `xlvs.toml:3:1: …`.
    pub fn in_file(&self, name: &str) -> String {
        let mut lines: Vec<String> = self.0.iter().take(SHOWN).map(|m| format!("{name}:{m}")).collect();
        if let more @ 1.. = self.0.len().saturating_sub(SHOWN) {
            lines.push(format!("{name}: and {more} more"));
        }
        lines.join("\n")
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

/// Collects mistakes while a file is read.
pub(super) struct Sink<'t> {
    text: &'t str,
    found: RefCell<Vec<(usize, String)>>,
}

impl<'t> Sink<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, found: RefCell::default() }
    }

    /// Something is wrong at this byte.
    pub(super) fn note(&self, at: usize, message: String) {
        self.found.borrow_mut().push((at, message));
    }

    /// The line that a byte is on, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.place(at).0
    }

    fn place(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.rsplit_once('\n').map_or(before, |(_, line)| line);
        (before.matches('\n').count() + 1, line.chars().count() + 1)
    }

    pub(super) fn into_result<T>(self, read: T) -> Result<T, Mistakes> {
        let mut found = self.found.take();
        if found.is_empty() {
            return Ok(read);
        }
        // A default that many services inherit is wrong once.
        found.sort();
        found.dedup();
        let mistakes = found.into_iter().map(|(at, message)| {
            let (line, column) = self.place(at);
            Mistake { line, column, message }
        });
        Err(Mistakes(mistakes.collect()))
    }
}
