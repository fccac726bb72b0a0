//! Completions for shells, made from the table.

use xlvs_model::spec::Scheduler;

use crate::table::{Command, Kind, Row, Value, Word, rows};

/// A shell that completions can be made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// GNU Bash.
    Bash,
    /// Z shell.
    Zsh,
    /// Fish.
    Fish,
}

impl Shell {
    /// The shell of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            "bash" => Some(Self::Bash),
            "zsh" => Some(Self::Zsh),
            "fish" => Some(Self::Fish),
            _ => None,
        }
    }
}

/// A file that teaches a shell the words of `ipvsadm`.
pub fn completions(shell: Shell) -> String {
    match shell {
        Shell::Bash => bash(),
        Shell::Zsh => zsh(),
        Shell::Fish => fish(),
    }
}

/// The values that a word can have, where they can be told.
fn values(row: &Row) -> Vec<&'static str> {
    match row.word {
        Word::Option(Kind::Scheduler) => Scheduler::ALL.map(Scheduler::name).to_vec(),
        Word::Option(Kind::Engine) => vec!["sip"],
        Word::Option(Kind::TunType) => vec!["ipip", "gue", "gre"],
        Word::Option(Kind::SchedFlags) => {
            vec!["flag-1", "flag-2", "flag-3", "sh-fallback", "sh-port", "mh-fallback", "mh-port"]
        }
        Word::Command(Command::StartDaemon | Command::StopDaemon) => vec!["master", "backup"],
        _ => Vec::new(),
    }
}

fn spellings(row: &Row) -> Vec<String> {
    let shorts = row.shorts.chars().map(|short| format!("-{short}"));
    shorts.chain([format!("--{}", row.long)]).collect()
}

fn summary(row: &Row) -> String {
    let text = row.help.first().copied().unwrap_or(row.manual);
    text.trim_end_matches(',').replace('\'', "")
}

fn bash() -> String {
    let words: Vec<_> = rows().flat_map(spellings).collect();
    let mut cases = String::new();
    for row in rows() {
        let patterns = spellings(row).join("|");
        match (row.value, values(row)) {
            (Value::No | Value::Optional(_), _) => {}
            (_, values) => {
                cases += &format!("    {patterns}) words=\"{}\" ;;\n", values.join(" "));
            }
        }
    }
    format!(
        "_ipvsadm() {{\n  local words\n  case ${{COMP_WORDS[COMP_CWORD-1]}} in\n{cases}    *) words=\"{}\" ;;\n  esac\n  \
         COMPREPLY=($(compgen -W \"$words\" -- \"${{COMP_WORDS[COMP_CWORD]}}\"))\n}}\ncomplete -F _ipvsadm ipvsadm\n",
        words.join(" ")
    )
}

fn zsh() -> String {
    let mut text = String::from("#compdef ipvsadm\n_arguments \\\n");
    for row in rows() {
        let what = summary(row).replace(['[', ']'], "").replace(':', "\\:");
        let value = match row.value {
            Value::No => String::new(),
            Value::Required(name) if values(row).is_empty() => format!(":{name}: "),
            Value::Required(name) => format!(":{name}:({})", values(row).join(" ")),
            Value::Optional(name) => format!("::{}: ", name.trim_matches(['[', ']'])),
        };
        for spelling in spellings(row) {
            text += &format!("  '{spelling}[{what}]{value}' \\\n");
        }
    }
    text + "  '*:argument:'\n"
}

fn fish() -> String {
    let mut text = String::from("complete -c ipvsadm -f\n");
    for row in rows() {
        let shorts = row.shorts.chars().map(|short| format!(" -s {short}")).collect::<String>();
        let value = match (row.value, values(row)) {
            (Value::No | Value::Optional(_), _) => String::new(),
            (_, values) if values.is_empty() => " -r".to_owned(),
            (_, values) => format!(" -r -a '{}'", values.join(" ")),
        };
        text += &format!("complete -c ipvsadm -l {}{shorts}{value} -d '{}'\n", row.long, summary(row));
    }
    text
}
