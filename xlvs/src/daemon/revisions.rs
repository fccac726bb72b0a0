//! States that were applied, kept on disk so that one can go back to them.
//!
//! A revision is a file, `000012.toml`: three lines of comment about it, and an `xlvs.toml`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};

use crate::protocol::Revision;

/// So many are kept; the oldest goes when another comes.
pub const KEPT: usize = 32;

/// The revisions in a directory, which is made when the first is kept.
pub struct Revisions {
    directory: PathBuf,
}

impl Revisions {
    /// Those in this directory.
    pub fn in_directory(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// All, the oldest first. What is no revision is passed over.
    pub fn list(&self) -> anyhow::Result<Vec<Revision>> {
        let numbers = self.numbers()?;
        Ok(numbers
            .into_iter()
            .filter_map(|number| self.read(number).ok())
            .map(|(revision, _)| revision)
            .collect())
    }

    /// The newest with its text.
    pub fn latest(&self) -> anyhow::Result<Option<(Revision, String)>> {
        self.numbers()?.last().map(|number| self.read(*number)).transpose()
    }

    /// The newest one's number; 0: there is none, or they cannot be read.
    pub fn newest(&self) -> u64 {
        self.numbers().ok().and_then(|numbers| numbers.last().copied()).unwrap_or_default()
    }

    /// A revision's text.
    pub fn text(&self, number: u64) -> anyhow::Result<String> {
        match self.numbers()?[..] {
            [first, .., last] | [first @ last] if !(first..=last).contains(&number) => {
                bail!("there is no revision {number}; there are {first} to {last} (`xlvs history`)")
            }
            [] => bail!("there is no revision yet; the first is made when a file is applied"),
            _ => Ok(self.read(number)?.1),
        }
    }

    /// Keeps another, and lets the oldest go. Returns its number.
    pub fn keep(&self, text: &str, by: &str, changes: usize) -> anyhow::Result<u64> {
        let numbers = self.numbers()?;
        let number = numbers.last().map_or(1, |last| last + 1);
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let by = by.replace('\n', " ");
        let text = format!("# time: {time}\n# changes: {changes}\n# by: {by}\n{text}");
        let path = self.path(number);
        fs::create_dir_all(&self.directory)
            .and_then(|()| replace(&path, &text))
            .with_context(|| format!("keep revision {}", path.display()))?;
        for old in numbers.iter().take((numbers.len() + 1).saturating_sub(KEPT)) {
            remove(&self.path(*old))?;
        }
        Ok(number)
    }

    /// A revision did not come to be.
    pub fn forget(&self, number: u64) -> anyhow::Result<()> {
        remove(&self.path(number))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number:06}.toml"))
    }

    fn numbers(&self) -> anyhow::Result<Vec<u64>> {
        let listed = match fs::read_dir(&self.directory) {
            Ok(listed) => listed,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).with_context(|| format!("read {}", self.directory.display())),
        };
        let name = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
        let number = |name: String| name.strip_suffix(".toml")?.parse().ok();
        let mut numbers: Vec<u64> = listed.filter_map(|entry| number(name(entry)?)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn read(&self, number: u64) -> anyhow::Result<(Revision, String)> {
        let path = self.path(number);
        let text = fs::read_to_string(&path).with_context(|| format!("read revision {}", path.display()))?;
        let mut head = text.splitn(4, '\n');
        let mut value = |name: &str| head.next().and_then(|line| line.strip_prefix(name)).map(str::to_owned);
        let read = (|| {
            let time = value("# time: ")?.parse().ok()?;
            let changes = value("# changes: ")?.parse().ok()?;
            Some(Revision { number, time, changes, by: value("# by: ")? })
        })();
        let revision = read.with_context(|| format!("{} is no revision of xlvs's", path.display()))?;
        let body = head.next().unwrap_or_default().to_owned();
        Ok((revision, body))
    }
}

/// Writes a file so that it is there as a whole or not at all.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, text)?;
    fs::rename(&fresh, path)
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory for one test, removed at its end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("xlvs-revisions-{}-{name}", std::process::id())))
        }

        fn revisions(&self) -> Revisions {
            Revisions::in_directory(self.0.clone())
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_revision_is_read_back_also_by_the_next_daemon() {
        let directory = Directory::new("back");
        assert_eq!(directory.revisions().list().expect("no directory is no error"), []);
        assert_eq!(directory.revisions().newest(), 0);
        assert_eq!(directory.revisions().keep("a = 1\n", "apply a file\nof two lines", 3).expect("keep"), 1);
        assert_eq!(directory.revisions().keep("b = 2\n", "rollback", 1).expect("keep"), 2);
        let listed = directory.revisions().list().expect("list");
        let told: Vec<_> = listed.iter().map(|r| (r.number, r.changes, r.by.as_str())).collect();
        assert_eq!(told, [(1, 3, "apply a file of two lines"), (2, 1, "rollback")]);
        assert_eq!(directory.revisions().newest(), 2);
        assert_eq!(directory.revisions().text(1).expect("the first"), "a = 1\n");
        assert_eq!(directory.revisions().latest().expect("read").expect("one").1, "b = 2\n");
    }

    #[test]
    fn the_number_of_revisions_is_bounded_and_numbers_go_on() {
        let directory = Directory::new("bounded");
        let revisions = directory.revisions();
        for n in 1..=KEPT as u64 + 5 {
            assert_eq!(revisions.keep("", "a test", 1).expect("keep"), n);
        }
        let listed = revisions.list().expect("list");
        assert_eq!((listed.len(), listed[0].number), (KEPT, 6));
        let said = revisions.text(2).expect_err("it is gone").to_string();
        assert_eq!(said, "there is no revision 2; there are 6 to 37 (`xlvs history`)");
    }

    #[test]
    fn what_did_not_come_to_be_is_forgotten_and_damage_is_passed_over() {
        let directory = Directory::new("forgotten");
        let revisions = directory.revisions();
        assert!(revisions.text(1).expect_err("there is none").to_string().contains("no revision yet"));
        revisions.keep("a = 1\n", "one", 1).expect("keep");
        let second = revisions.keep("b = 1\n", "two", 1).expect("keep");
        revisions.forget(second).expect("forget");
        fs::write(directory.0.join("000007.toml"), "damaged").expect("write");
        assert_eq!(revisions.list().expect("list").len(), 1);
    }
}
