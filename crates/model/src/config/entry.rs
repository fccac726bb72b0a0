//! A key with its value, read as what it should be.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::mistake::Sink;
use super::words;

/// A key and its value, or an item of a list under the list's key.
#[derive(Clone, Copy)]
pub(super) struct Entry<'d> {
    pub(super) key: &'d str,
    pub(super) key_at: usize,
    pub(super) value: &'d Spanned<DeValue<'d>>,
    pub(super) sink: &'d Sink<'d>,
}

impl<'d> Entry<'d> {
    /// The value is wrong.
    pub(super) fn wrong(&self, message: impl Into<String>) {
        self.sink.note(self.value.span().start, message.into());
    }

    /// It should not be said at all.
    pub(super) fn misplaced(&self, message: impl Into<String>) {
        self.sink.note(self.key_at, message.into());
    }

    /// The value in a few words, for a message about another one.
    pub(super) fn described(&self) -> String {
        match self.value.get_ref() {
            DeValue::String(text) => format!("\"{text}\""),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Boolean(value) => value.to_string(),
            DeValue::Array(_) => "a list".to_owned(),
            other => format!("a {}", other.type_str()),
        }
    }

    pub(super) fn is_not<T>(&self, should_be: &str) -> Option<T> {
        self.wrong(format!("`{}` is {should_be}, not {}", self.key, self.described()));
        None
    }

    pub(super) fn string(&self, what: &str) -> Option<&'d str> {
        self.value.get_ref().as_str().or_else(|| self.is_not(what))
    }

    pub(super) fn flag(&self) -> Option<bool> {
        self.value.get_ref().as_bool().or_else(|| self.is_not("true or false"))
    }

    pub(super) fn number(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let number = self.integer().and_then(|number| u32::try_from(number).ok());
        number
            .filter(|number| range.contains(number))
            .or_else(|| self.is_not(&format!("a number from {} to {}", range.start(), range.end())))
    }

    pub(super) fn port(&self) -> Option<u16> {
        self.number(1..=65_535).and_then(|port| u16::try_from(port).ok())
    }

    pub(super) fn integer(&self) -> Option<i64> {
        let number = self.value.get_ref().as_integer()?;
        i64::from_str_radix(number.as_str(), number.radix()).ok()
    }

    /// Seconds as a number, or a string with a unit.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let read = match self.value.get_ref() {
            DeValue::String(text) => words::duration(text),
            _ => self.integer().and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs),
        };
        let Some(read) = read else {
            return self.is_not("seconds, or a time such as \"500ms\", \"2s\", \"5m\" or \"1h\"");
        };
        if range.contains(&read) {
            return Some(read);
        }
        let (least, most) = (words::time(*range.start()), words::time(*range.end()));
        self.is_not(&format!("a time from {least} to {most}"))
    }

    /// Whole seconds.
    pub(super) fn seconds(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let bounds =
            Duration::from_secs((*range.start()).into())..=Duration::from_secs((*range.end()).into());
        let read = self.duration(bounds)?;
        if read.subsec_nanos() != 0 {
            return self.is_not("in whole seconds");
        }
        u32::try_from(read.as_secs()).ok()
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&self, kind: &str, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let said = self.value.get_ref().as_str();
        let found = said.and_then(|said| choices.iter().find(|(name, _)| *name == said));
        if found.is_none() {
            match said {
                Some(said) => self.wrong(words::unknown_word(kind, said, &names)),
                None => self.wrong(format!(
                    "a {kind} is one of {}, not {}",
                    words::list(&names),
                    self.described()
                )),
            }
        }
        found.map(|(_, value)| *value)
    }

    /// The items of a list, or the one value that stands for a list of one.
    pub(super) fn items(&self) -> Vec<Self> {
        match self.value.get_ref().as_array() {
            Some(items) => items.iter().map(|value| Self { value, ..*self }).collect(),
            None => vec![*self],
        }
    }
}
