//! `--help` and `--version`, made from the table.

use crate::table::{Layout, Row, SECTIONS, SYNOPSIS, Value, Word};

/// What `--version` says: the version whose behaviour this is.
pub const VERSION: &str = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n";

/// What `--help` says, for a program called by this name.
pub fn help(program: &str) -> String {
    let mut text = format!("{VERSION}Usage:\n");
    for line in SYNOPSIS {
        text += &format!("  {program} {line}\n");
    }
    for section in &SECTIONS {
        // The daemon's options follow the others without a gap.
        let gap = if section.layout == Layout::Daemon { "" } else { "\n" };
        text += &format!("{gap}{}\n", section.layout.title());
        for row in section.rows {
            text += &entry(section.layout, row);
        }
    }
    text
}

/// A row's lines: names and value on the left, what they do on the right.
fn entry(layout: Layout, row: &Row) -> String {
    let width = if layout == Layout::Commands { 28 } else { 36 };
    let mut left = row.shown.map_or_else(|| names(layout, row), str::to_owned);
    let mut text = String::new();
    for line in row.help {
        text += &format!("  {left:<width$}{line}\n");
        left.clear();
    }
    text
}

fn names(layout: Layout, row: &Row) -> String {
    let (long, shorts) = (row.long, shorts(row));
    let value = match row.value {
        Value::No => "",
        Value::Required(name) | Value::Optional(name) => name,
    };
    match layout {
        Layout::Commands => format!("--{long:<16}{shorts}"),
        Layout::Services if shorts.is_empty() => format!("--{long:<15} {value}"),
        Layout::Services => format!("{:<17} {value}", format!("--{long}|{shorts}")),
        Layout::Options if shorts.is_empty() => format!("--{long:<13} {value}"),
        Layout::Options => format!("--{long:<13}{shorts} {value}"),
        Layout::Daemon => format!("--{long} {value}"),
    }
}

/// `-L|-l`
fn shorts(row: &Row) -> String {
    row.shorts.chars().map(|short| format!("-{short}")).collect::<Vec<_>>().join("|")
}

/// Whether a row is a command, and not an option of one.
pub(crate) fn is_command(row: &Row) -> bool {
    matches!(row.word, Word::Command(_) | Word::Help | Word::Version)
}
