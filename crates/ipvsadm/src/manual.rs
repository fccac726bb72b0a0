//! The manual page, made from the table.

use crate::help::is_command;
use crate::legal;
use crate::table::{Layout, Row, SECTIONS, SYNOPSIS, Section, Value, Word, rows};

/// The manual page `ipvsadm(8)` as roff.
pub fn man_page() -> String {
    let mut page = String::from(".TH IPVSADM 8 \"\" xlvs \"System administration\"\n");
    page += ".SH NAME\nipvsadm \\- administer the virtual servers of a director\n.SH SYNOPSIS\n";
    for line in SYNOPSIS {
        page += &format!(".B ipvsadm\n{}\n.br\n", escaped(line));
    }
    page += ".SH DESCRIPTION\n";
    page += "Sets up, changes and shows the services that a director balances: each virtual service has an address, or a \
             mark, that clients see, and real servers that do the work. The first argument is a command; without any, the \
             table is listed. Commands, options, output and exit codes are those of ipvsadm 1.31.\n";
    for section in &SECTIONS {
        page += &chapter(section);
    }
    page += EXIT_STATUS;
    page += EXAMPLES;
    page
}

const EXIT_STATUS: &str = ".SH EXIT STATUS
.TP
.B 0
Done.
.TP
.B 1
A listing could not be made: there is no such service, for instance.
.TP
.B 2
The command makes no sense, or there is no director to talk to.
.TP
.B 255
The command line cannot be read, or the director refused the command.
";

const EXAMPLES: &str = ".SH EXAMPLES
Two web servers behind one address, with network address translation, the second one twice as strong:
.nf

ipvsadm \\-A \\-t 192.0.2.80:80 \\-s wlc
ipvsadm \\-a \\-t 192.0.2.80:80 \\-r 10.0.0.11:8080 \\-m
ipvsadm \\-a \\-t 192.0.2.80:80 \\-r 10.0.0.12:8080 \\-m \\-w 2
.fi
.PP
Keep the table over a restart:
.nf

ipvsadm \\-S \\-n > rules
ipvsadm \\-R < rules
.fi
";

fn chapter(section: &Section) -> String {
    let title = match section.layout {
        Layout::Commands => "COMMANDS",
        Layout::Services => "VIRTUAL SERVICES",
        Layout::Options => "OPTIONS",
        Layout::Daemon => "OPTIONS OF THE SYNCHRONISATION DAEMON",
    };
    let mut text = format!(".SH {title}\n");
    for row in section.rows {
        text += &format!(".TP\n.B {}\n{}{}\n", escaped(&heading(row)), escaped(row.manual), options(row));
    }
    text
}

/// The options that a command takes, in a sentence.
fn options(row: &Row) -> String {
    let Word::Command(command) = row.word else { return String::new() };
    let kinds: Vec<_> = legal::options_of(command).collect();
    let taken = rows().filter(|row| row.word.kind().is_some_and(|kind| kinds.contains(&kind)));
    let names: Vec<_> = taken.map(shortest).collect();
    if names.is_empty() { String::new() } else { format!(" Options: {}.", escaped(&names.join(", "))) }
}

fn shortest(row: &Row) -> String {
    row.shorts.chars().next().map_or_else(|| format!("--{}", row.long), |short| format!("-{short}"))
}

fn heading(row: &Row) -> String {
    if let (Some(shown), true) = (row.shown, is_command(row) && row.value == Value::No) {
        return shown.to_owned();
    }
    let shorts = row.shorts.chars().map(|short| format!("-{short}, ")).collect::<String>();
    let value = match row.value {
        Value::No => String::new(),
        Value::Required(name) | Value::Optional(name) => format!(" {name}"),
    };
    format!("{shorts}--{}{value}", row.long)
}

/// Dashes that can be copied, and nothing that roff would take for its own.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}
