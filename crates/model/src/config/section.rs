//! A table of the file, whose keys are known, and what it inherits.

use toml::de::DeTable;

use super::entry::Entry;
use super::mistake::Sink;
use super::words;

/// A table.
#[derive(Clone, Copy)]
pub(super) struct Section<'d> {
    table: &'d DeTable<'d>,
    /// Its first byte.
    at: usize,
    sink: &'d Sink<'d>,
}

impl<'d> Section<'d> {
    /// A table that is called so in messages. Keys that it cannot have are mistakes.
    pub(super) fn new(
        table: &'d DeTable<'d>,
        at: usize,
        what: &str,
        keys: &[&str],
        sink: &'d Sink<'d>,
    ) -> Self {
        for key in table.keys().filter(|key| !keys.contains(&key.get_ref().as_ref())) {
            sink.note(key.span().start, words::unknown_key(what, key.get_ref(), keys));
        }
        Self { table, at, sink }
    }

    /// The same, of a value that should be a table.
    pub(super) fn of(entry: &Entry<'d>, what: &str, keys: &[&str]) -> Option<Self> {
        let Some(table) = entry.value.get_ref().as_table() else {
            entry.wrong(format!("{what} is a table of {}, not {}", words::list(keys), entry.described()));
            return None;
        };
        Some(Self::new(table, entry.value.span().start, what, keys, entry.sink))
    }

    /// A table in this one.
    pub(super) fn section(&self, key: &str, what: &str, keys: &[&str]) -> Option<Self> {
        Self::of(&self.get(key)?, what, keys)
    }

    /// A list of tables in this one (`[[key]]`).
    pub(super) fn sections(&self, key: &str, what: &str, keys: &[&str]) -> Vec<Self> {
        let Some(entry) = self.get(key) else { return Vec::new() };
        if entry.value.get_ref().is_array() {
            return entry.items().iter().filter_map(|item| Self::of(item, what, keys)).collect();
        }
        entry.wrong(format!("write [[{key}]]: there may be more than one"));
        Vec::new()
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<Entry<'d>> {
        let (key, value) = self.table.get_key_value(key)?;
        Some(Entry { key: key.get_ref(), key_at: key.span().start, value, sink: self.sink })
    }

    /// All its keys and values.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<'d>> {
        self.table.iter().map(|(key, value)| Entry {
            key: key.get_ref(),
            key_at: key.span().start,
            value,
            sink: self.sink,
        })
    }

    /// Something is wrong with all of it.
    pub(super) fn wrong(&self, message: impl Into<String>) {
        self.sink.note(self.at, message.into());
    }

    pub(super) fn sink(&self) -> &'d Sink<'d> {
        self.sink
    }
}

/// A table and those whose values it has where it says nothing itself.
#[derive(Clone)]
pub(super) struct Layers<'d> {
    /// The nearest first; never empty.
    said: Vec<Section<'d>>,
    defaults: Option<Section<'d>>,
}

impl<'d> Layers<'d> {
    pub(super) fn new(own: Section<'d>, defaults: Option<Section<'d>>) -> Self {
        Self { said: vec![own], defaults }
    }

    /// With a table nearer than all.
    pub(super) fn below(&self, own: Section<'d>) -> Self {
        let said = [own].into_iter().chain(self.said.iter().copied()).collect();
        Self { said, defaults: self.defaults }
    }

    /// The nearest value of a key.
    pub(super) fn get(&self, key: &str) -> Option<Entry<'d>> {
        self.get_here(key).or_else(|| self.defaults?.get(key))
    }

    /// The same, without the file's defaults, which are also there for those whom they do not suit.
    pub(super) fn get_here(&self, key: &str) -> Option<Entry<'d>> {
        self.said.iter().find_map(|section| section.get(key))
    }

    /// The nearest table.
    pub(super) fn own(&self) -> &Section<'d> {
        &self.said[0]
    }
}
