//! What was typed: words and their values, by the rules of popt, the original's option parser.
//!
//! Nothing here knows what a word means. Long names are never abbreviated; `--long=value`, `--long value`, `-s value`,
//! `-svalue`, `-s=value` and clusters of short names are all the same to the reader of the result.

use crate::table::{self, Row, Value};

/// One word with its value.
#[derive(Debug)]
pub(crate) struct Typed<'a> {
    pub(crate) row: &'static Row,
    pub(crate) value: Option<&'a [u8]>,
    /// The argument that was read last, as messages quote it.
    pub(crate) quoted: &'a [u8],
}

/// A command line, read as far as it can be.
#[derive(Debug, Default)]
pub(crate) struct CommandLine<'a> {
    /// Words in their order.
    pub(crate) words: Vec<Typed<'a>>,
    /// Arguments that belong to no word.
    pub(crate) arguments: Vec<&'a [u8]>,
    /// What ended the reading early.
    pub(crate) wrong: Option<Wrong<'a>>,
}

/// An argument that the grammar does not have, and why.
#[derive(Debug)]
pub(crate) struct Wrong<'a> {
    pub(crate) quoted: &'a [u8],
    pub(crate) why: &'static str,
}

const MISSING: &str = "missing argument";
const UNKNOWN: &str = "unknown option";
const UNWANTED: &str = "option does not take an argument";

impl<'a> CommandLine<'a> {
    /// Reads the arguments after the program's name.
    pub(crate) fn read(args: &'a [Vec<u8>]) -> Self {
        let mut line = Self::default();
        let mut reader = Reader { args, next: 0 };
        if let Err(why) = reader.read_into(&mut line) {
            line.wrong = Some(Wrong { quoted: reader.last(), why });
        }
        line
    }
}

struct Reader<'a> {
    args: &'a [Vec<u8>],
    next: usize,
}

impl<'a> Reader<'a> {
    fn read_into(&mut self, line: &mut CommandLine<'a>) -> Result<(), &'static str> {
        while let Some(arg) = self.take() {
            match arg {
                b"--" => {
                    line.arguments.extend(self.args[self.next..].iter().map(Vec::as_slice));
                    return Ok(());
                }
                [b'-', b'-', long @ ..] => {
                    let typed = self.long(long)?;
                    line.words.push(typed);
                }
                [b'-', cluster @ ..] if !cluster.is_empty() => self.cluster(cluster, line)?,
                _ => line.arguments.push(arg),
            }
        }
        Ok(())
    }

    fn long(&mut self, text: &'a [u8]) -> Result<Typed<'a>, &'static str> {
        let (name, value) = match text.iter().position(|&byte| byte == b'=') {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        let row = table::by_long(name).ok_or(UNKNOWN)?;
        match (row.value, value) {
            (Value::No, Some(_)) => Err(UNWANTED),
            (Value::No, None) => Ok(self.typed(row, None)),
            (_, Some(value)) => Ok(self.typed(row, Some(value))),
            (_, None) => self.with_next_value(row),
        }
    }

    /// Short names, up to one that takes a value: the rest of the argument, if there is any, is that value.
    fn cluster(&mut self, mut names: &'a [u8], line: &mut CommandLine<'a>) -> Result<(), &'static str> {
        while let [name, rest @ ..] = names {
            let row = table::by_short(*name).ok_or(UNKNOWN)?;
            let typed = match (row.value, rest) {
                (Value::No, [b'=', ..]) => return Err(UNWANTED),
                (Value::No, _) => {
                    names = rest;
                    line.words.push(self.typed(row, None));
                    continue;
                }
                (_, [b'=', value @ ..]) => self.typed(row, Some(value)),
                (_, []) => self.with_next_value(row)?,
                (_, value) => self.typed(row, Some(value)),
            };
            line.words.push(typed);
            return Ok(());
        }
        Ok(())
    }

    fn with_next_value(&mut self, row: &'static Row) -> Result<Typed<'a>, &'static str> {
        let optional = matches!(row.value, Value::Optional(_));
        let follows = self.args.get(self.next).is_some_and(|arg| !(optional && arg.starts_with(b"-")));
        if !follows && !optional {
            return Err(MISSING);
        }
        let value = if follows { self.take() } else { None };
        Ok(self.typed(row, value))
    }

    fn typed(&self, row: &'static Row, value: Option<&'a [u8]>) -> Typed<'a> {
        Typed { row, value, quoted: self.last() }
    }

    fn take(&mut self) -> Option<&'a [u8]> {
        let arg = self.args.get(self.next)?;
        self.next += 1;
        Some(arg)
    }

    fn last(&self) -> &'a [u8] {
        self.next.checked_sub(1).map_or(b"", |at| &self.args[at])
    }
}
