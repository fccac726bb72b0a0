//! `xlvs tune`: LVS's tunables, which the kernel has as `net.ipv4.vs.*`.

use std::process::ExitCode;

use anyhow::{anyhow, bail};
use clap::Args;
use serde::Serialize;
use xlvs_model::{Change, Tunable, Tunables};

use crate::client::Client;
use crate::listings::{json, print};
use crate::paths::Paths;
use crate::protocol::{Answer, Request};

/// What to show or set.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A tunable to show, or NAME=VALUE to set one. Without any: all of them. `net.ipv4.vs.` may stand before the name.
    #[arg(value_name = "NAME[=VALUE]")]
    settings: Vec<String>,
    /// As JSON, with what is allowed and what it means.
    #[arg(long)]
    json: bool,
    /// The director's places.
    #[command(flatten)]
    paths: Paths,
}

/// One of the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    Show(Tunable),
    Set(Tunable, u32),
}

/// Sets what is to be set, all or nothing, and shows what was asked for.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let settings = options.settings.iter().map(|text| read(text)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut client = Client::connected(&options.paths)?;
    let changes: Vec<Change> = settings
        .iter()
        .filter_map(|setting| match *setting {
            Setting::Set(tunable, value) => Some(Change::Tune(tunable, value)),
            Setting::Show(_) => None,
        })
        .collect();
    if !changes.is_empty() {
        match client.ask(&Request::Apply(changes))? {
            Answer::Done => {}
            Answer::Refused(_, why) => bail!("{why}"),
            other => return Err(other.unexpected().into()),
        }
    }
    let model = match client.ask(&Request::Model)? {
        Answer::Model(model) => model,
        other => return Err(other.unexpected().into()),
    };
    let asked: Vec<Tunable> = settings.into_iter().map(Setting::tunable).collect();
    let tunables = model.tunables();
    print(|out| {
        if options.json {
            let all = || Tunable::all().collect();
            let wanted: Vec<Tunable> = if asked.is_empty() { all() } else { asked };
            return json(
                out,
                &wanted.into_iter().map(|tunable| Shown::of(tunables, tunable)).collect::<Vec<_>>(),
            );
        }
        if asked.is_empty() {
            out.write_all(table(tunables).as_bytes())?;
        }
        asked.iter().try_for_each(|tunable| writeln!(out, "{} = {}", tunable.name(), tunables.get(*tunable)))
    })
}

impl Setting {
    fn tunable(self) -> Tunable {
        let (Self::Show(tunable) | Self::Set(tunable, _)) = self;
        tunable
    }
}

/// A tunable for programs.
#[derive(Serialize)]
struct Shown {
    name: &'static str,
    value: u32,
    default: u32,
    meaning: &'static str,
    /// Why it cannot be set.
    #[serde(skip_serializing_if = "Option::is_none")]
    fixed: Option<&'static str>,
}

impl Shown {
    fn of(tunables: &Tunables, tunable: Tunable) -> Self {
        Self {
            name: tunable.name(),
            value: tunables.get(tunable),
            default: tunable.default_value(),
            meaning: tunable.meaning(),
            fixed: tunable.fixed(),
        }
    }
}

fn read(text: &str) -> anyhow::Result<Setting> {
    let Some((name, value)) = text.split_once('=') else {
        return Ok(Setting::Show(text.trim().parse()?));
    };
    let tunable: Tunable = name.trim().parse()?;
    let value = tunable.parse(value).map_err(|why| anyhow!("nothing was set: {why}"))?;
    Ok(Setting::Set(tunable, value))
}

/// All tunables with their values and meanings; a star where a value is not the default.
fn table(tunables: &Tunables) -> String {
    let line = |tunable: Tunable| {
        let value = tunables.get(tunable);
        let star = if value == tunable.default_value() { ' ' } else { '*' };
        let fixed = tunable.fixed().map_or_else(String::new, |why| format!(" (cannot be set: {why})"));
        format!("{star} {:<26} {value:>10}  {}{fixed}\n", tunable.name(), tunable.meaning())
    };
    Tunable::all().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_sysctl_writes_them() {
        let reads = |text: &str, setting| assert_eq!(read(text).expect("it is right"), setting);
        reads("drop_entry", Setting::Show(Tunable::DropEntry));
        reads("net.ipv4.vs.drop_entry = 3", Setting::Set(Tunable::DropEntry, 3));
        reads("sloppy_tcp=1", Setting::Set(Tunable::SloppyTcp, 1));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said = |text: &str| format!("{:#}", read(text).expect_err("it is wrong"));
        assert_eq!(said("drop_entry=x"), "nothing was set: drop_entry takes 0 to 3, not x");
        assert_eq!(said("drop_entri=1"), "there is no tunable drop_entri; do you mean drop_entry?");
        assert!(said("conntrack=1").contains("balanced packets never pass netfilter"));
    }

    #[test]
    fn what_is_not_the_default_has_a_star() {
        let mut tunables = Tunables::default();
        tunables.set(Tunable::DropEntry, 3).expect("3");
        let table = table(&tunables);
        assert_eq!(table.lines().filter(|line| line.starts_with('*')).count(), 1);
        assert!(table.contains("* drop_entry                          3  "), "{table}");
    }
}
