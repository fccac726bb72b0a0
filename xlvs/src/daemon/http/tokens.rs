//! The tokens that callers over TCP show, and what they may do with them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use subtle::ConstantTimeEq;

use super::caller::May;

/// A shorter token could be guessed.
const SHORTEST: usize = 16;

/// A file of tokens: `read TOKEN` or `change TOKEN` a line, `#` begins a comment. It is read at each request, so what is
/// taken out of it is worth nothing at once.
#[derive(Clone)]
pub struct Tokens {
    file: PathBuf,
}

impl Tokens {
    /// Those in this file, which must be in order now.
    pub fn in_file(file: &Path) -> anyhow::Result<Self> {
        let tokens = Self { file: file.to_owned() };
        tokens.read()?;
        Ok(tokens)
    }

    /// What the bearer of a token may do; `None`: nobody knows it.
    pub fn may(&self, shown: &str) -> anyhow::Result<Option<May>> {
        let known = self.read()?;
        let is_it = |token: &str| bool::from(token.as_bytes().ct_eq(shown.as_bytes()));
        Ok(known.iter().filter(|(token, _)| is_it(token)).map(|(_, may)| *may).max())
    }

    fn read(&self) -> anyhow::Result<Vec<(String, May)>> {
        let name = self.file.display();
        let mode = fs::metadata(&self.file).with_context(|| format!("read {name}"))?.permissions().mode();
        ensure!(
            mode & 0o007 == 0,
            "{name} can be read by everybody; `chmod o= {name}` keeps its tokens secret"
        );
        let text = fs::read_to_string(&self.file).with_context(|| format!("read {name}"))?;
        parse(&text).with_context(|| format!("read {name}"))
    }
}

fn parse(text: &str) -> anyhow::Result<Vec<(String, May)>> {
    let mut tokens = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = at + 1;
        let (may, token) = match words[..] {
            [] => continue,
            ["read", token] => (May::Read, token),
            ["change", token] => (May::Change, token),
            _ => bail!("line {at}: a line is `read TOKEN` or `change TOKEN`"),
        };
        ensure!(token.len() >= SHORTEST, "line {at}: a token has {SHORTEST} characters at least");
        tokens.push((token.to_owned(), may));
    }
    ensure!(!tokens.is_empty(), "there is no token; a line is `read TOKEN` or `change TOKEN`");
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_each_token_is_for() {
        let read = parse("# ours\nread  0123456789abcdef\n\nchange fedcba9876543210 # the deployment's\n");
        let told = [("0123456789abcdef".to_owned(), May::Read), ("fedcba9876543210".to_owned(), May::Change)];
        assert_eq!(read.expect("no mistake"), told);
    }

    #[test]
    fn what_is_no_token_is_told_with_its_line() {
        let said = |text: &str| parse(text).expect_err("a mistake").to_string();
        assert_eq!(said("\nwrite 0123456789abcdef"), "line 2: a line is `read TOKEN` or `change TOKEN`");
        assert_eq!(said("read short"), "line 1: a token has 16 characters at least");
        assert!(said("# none\n").starts_with("there is no token"));
    }

    #[test]
    fn only_the_whole_token_is_the_token_and_a_file_for_all_eyes_is_refused() {
        let file = std::env::temp_dir().join(format!("xlvs-tokens-{}", std::process::id()));
        let write = |text: &str, mode| {
            fs::write(&file, text).expect("write");
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("chmod");
        };
        write("read 0123456789abcdef\nchange 0123456789abcdef0\n", 0o640);
        let tokens = Tokens::in_file(&file).expect("in order");
        let may = |shown: &str| tokens.may(shown).expect("readable");
        assert_eq!(may("0123456789abcdef"), Some(May::Read));
        assert_eq!(may("0123456789abcdef0"), Some(May::Change));
        assert_eq!((may(""), may("0123456789abcde")), (None, None));
        write("read abcdefghijklmnop\n", 0o640);
        assert_eq!(may("0123456789abcdef"), None, "what is taken out is worth nothing");
        write("read abcdefghijklmnop\n", 0o644);
        assert!(tokens.may("abcdefghijklmnop").is_err_and(|why| why.to_string().contains("chmod o=")));
        fs::remove_file(&file).expect("remove");
    }
}
