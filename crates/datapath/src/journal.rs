//! What a restarted daemon must know to go on with the tables that it finds: a file of JSON lines beside the pins.
//!
//! Each applied change set is appended before the tables are touched. At start the lines are read back, and the file is
//! written anew with the state that they lead to. It lives as long as the pins: both are gone after a reboot.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use xlvs_model::view::Stats;
use xlvs_model::{Change, Model, ServerKey, ServiceKey};

use crate::roster::Roster;
use crate::tables::Sizes;

/// Version of the pinned maps' layout and of this file. A change of either is a change of this number.
pub const ABI_VERSION: u32 = 13;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// [`ABI_VERSION`] of the writer.
    pub abi: u32,
    /// The kernel's boot, so that a file that survived a reboot is not believed.
    pub boot: String,
    /// Sizes of the tables.
    pub sizes: Sizes,
}

/// The lines after it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// All that came before, in one.
    State(Box<Model>, Box<Roster>),
    /// Changes that were applied together.
    Changes(Vec<Change>),
    /// A server left the trash for good; what its counters held.
    Released(ServiceKey, ServerKey, Stats),
    /// Counters were zeroed, or given to another server: what they held.
    Bases(Vec<(ServiceKey, Option<ServerKey>, Stats)>),
}

/// Why a journal cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// Reading or writing failed.
    #[error("the state file {0}: {1}")]
    Io(PathBuf, #[source] io::Error),
    /// It is not what a daemon wrote.
    #[error(
        "the state file {0} is damaged at line {1}; `xlvs unload` removes it together with the pinned state"
    )]
    Damaged(PathBuf, usize),
    /// Another version wrote it.
    #[error(
        "the pinned state in use was made by another version of xlvs (layout {found}, this is {ABI_VERSION}); \
         `xlvs unload` removes it, and connections with it"
    )]
    OtherVersion {
        /// Its version.
        found: u32,
    },
}

/// An open journal.
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Reads a journal: its head and its lines. `None`: there is none.
    pub fn read(path: &Path) -> Result<Option<(Head, Vec<Line>)>, JournalError> {
        let io = |e| JournalError::Io(path.to_owned(), e);
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io(e)),
        };
        let mut lines = BufReader::new(file).lines().enumerate().peekable();
        let damaged = |n: usize| JournalError::Damaged(path.to_owned(), n + 1);
        let Some((_, first)) = lines.next() else { return Err(damaged(0)) };
        let first = first.map_err(io)?;
        let version: Version = serde_json::from_str(&first).map_err(|_| damaged(0))?;
        if version.abi != ABI_VERSION {
            return Err(JournalError::OtherVersion { found: version.abi });
        }
        let head = serde_json::from_str(&first).map_err(|_| damaged(0))?;
        let mut read = Vec::new();
        while let Some((n, line)) = lines.next() {
            match serde_json::from_str(&line.map_err(io)?) {
                Ok(line) => read.push(line),
                // The daemon was killed while it wrote its last line: that change was not applied yet.
                Err(_) if lines.peek().is_none() => break,
                Err(_) => return Err(damaged(n)),
            }
        }
        Ok(Some((head, read)))
    }

    /// Starts a journal with this state, replacing what was there in one step.
    pub fn start(path: &Path, head: &Head, model: &Model, roster: &Roster) -> Result<Self, JournalError> {
        let io = |e| JournalError::Io(path.to_owned(), e);
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh).map_err(io)?;
        let mut text = serde_json::to_vec(head).map_err(|e| io(e.into()))?;
        text.push(b'\n');
        let state = Line::State(Box::new(model.clone()), Box::new(roster.clone()));
        serde_json::to_writer(&mut text, &state).map_err(|e| io(e.into()))?;
        text.push(b'\n');
        file.write_all(&text).map_err(io)?;
        std::fs::rename(&fresh, path).map_err(io)?;
        let file = OpenOptions::new().append(true).open(path).map_err(io)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a line.
    pub fn append(&mut self, line: &Line) -> Result<(), JournalError> {
        let io = |e| JournalError::Io(self.path.clone(), e);
        let mut text = serde_json::to_vec(line).map_err(|e| io(e.into()))?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(io)
    }
}

#[derive(Deserialize)]
struct Version {
    abi: u32,
}
