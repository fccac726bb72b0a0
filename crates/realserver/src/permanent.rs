//! The same again after a reboot: a systemd unit that runs `xlvs rs up`, and a file of `sysctl.d` that has ARP silenced before any
//! network is up, whatever becomes of the unit.
//!
//! What `sysctl.d` sets is there before `up` looks, and would count as what was there before; so the file remembers what that was.

use std::io;
use std::path::{Path, PathBuf};

use crate::files::{make_parent, remove_if_there, replace};
use crate::setting::{Setting, sysctl_name};
use crate::store::State;

/// The unit's name.
pub const UNIT: &str = "xlvs-rs.service";
/// Before the line that remembers.
const BEFORE: &str = "# before: ";

/// The files below `/etc`, or another directory in its place.
pub struct Permanent {
    /// The unit.
    pub unit: PathBuf,
    /// The link that has it started at boot.
    link: PathBuf,
    /// The kernel parameters.
    pub sysctls: PathBuf,
}

impl Permanent {
    /// The files below this directory.
    pub fn below(etc: &Path) -> Self {
        let systemd = etc.join("systemd/system");
        Self {
            unit: systemd.join(UNIT),
            link: systemd.join("multi-user.target.wants").join(UNIT),
            sysctls: etc.join("sysctl.d/90-xlvs-rs.conf"),
        }
    }

    /// Writes them, for what was set and what was there before.
    ///
    /// `places` are the words that say where the state file is, when it is not in the usual place.
    pub fn write(&self, binary: &Path, places: &[String], state: &State) -> io::Result<()> {
        replace(&self.sysctls, sysctls(state)?.as_bytes())?;
        replace(&self.unit, unit(binary, places, &state.wish.arguments()).as_bytes())?;
        make_parent(&self.link)?;
        remove_if_there(&self.link)?;
        std::os::unix::fs::symlink(Path::new("..").join(UNIT), &self.link)
    }

    /// Removes them. Returns whether there were any.
    pub fn remove(&self) -> io::Result<bool> {
        let removed = [&self.link, &self.unit, &self.sysctls].map(|path| remove_if_there(path));
        removed.into_iter().try_fold(false, |any, removed| Ok(removed? || any))
    }

    /// Are there any?
    pub fn exists(&self) -> bool {
        self.unit.exists() || self.sysctls.exists()
    }

    /// What had been set before a reboot by `sysctl.d`, and what was in its place. `None`: no such file, or one that somebody wrote anew.
    pub fn remembered(&self) -> Option<State> {
        let text = std::fs::read_to_string(&self.sysctls).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(BEFORE))?;
        serde_json::from_str(line).ok()
    }
}

/// The file of `sysctl.d`.
fn sysctls(state: &State) -> io::Result<String> {
    let mut kept = state.clone();
    kept.made.retain(|(setting, _)| matches!(setting, Setting::Sysctl { .. }));
    let mut text = format!(
        "# Written by `xlvs rs up --permanent`; `xlvs rs down --permanent` removes it.\n{BEFORE}{}\n",
        serde_json::to_string(&kept)?
    );
    for (setting, _) in &kept.made {
        if let Setting::Sysctl { key, value } = setting {
            text += &format!("{} = {value}\n", sysctl_name(key));
        }
    }
    Ok(text)
}

/// The unit. `arguments` are those of `xlvs rs up`, `places` those of `down`, too.
fn unit(binary: &Path, places: &[String], arguments: &[String]) -> String {
    let line = |words: &[String]| words.iter().map(|word| format!(" {}", quoted(word))).collect::<String>();
    let (places, arguments) = (line(places), line(arguments));
    let binary = quoted(&binary.to_string_lossy());
    format!(
        "# Written by `xlvs rs up --permanent`; `xlvs rs down --permanent` removes it.\n\
         [Unit]\n\
         Description=Real server of LVS: VIPs, ARP, tunnel end\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart={binary} rs up{arguments}{places}\n\
         ExecStop={binary} rs down{places}\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}

/// systemd splits at spaces and knows `%` and `$`.
fn quoted(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    if escaped.contains(char::is_whitespace) { format!("\"{escaped}\"") } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setting::Found;
    use crate::wish::{Mode, Wish};

    #[test]
    fn a_unit_runs_the_same_command() {
        let arguments = ["--mode", "dr", "--vip", "192.0.2.10"].map(str::to_owned);
        let text = unit(Path::new("/opt/my xlvs"), &[], &arguments);
        assert!(text.contains("ExecStart=\"/opt/my xlvs\" rs up --mode dr --vip 192.0.2.10\n"), "{text}");
        assert!(text.contains("ExecStop=\"/opt/my xlvs\" rs down\n"), "{text}");
        let text = unit(Path::new("/xlvs"), &["--run-dir".to_owned(), "/run/100%".to_owned()], &arguments);
        assert!(text.contains(" --vip 192.0.2.10 --run-dir /run/100%%\n"), "{text}");
        assert!(text.contains("rs down --run-dir /run/100%%\n"), "{text}");
    }

    #[test]
    fn files_are_written_remember_and_are_removed() {
        let etc = std::env::temp_dir().join(format!("xlvs-permanent-{}", std::process::id()));
        let files = Permanent::below(&etc);
        let quiet = Setting::Sysctl { key: "net/ipv4/conf/e0.1/arp_ignore".into(), value: "1".into() };
        let vip = "192.0.2.10".parse().unwrap();
        let address = Setting::Address { device: "lo".into(), address: vip };
        let state = State {
            wish: Wish::new([Mode::Dr], [vip]),
            made: vec![(quiet.clone(), Found::Value("0".into())), (address, Found::Nothing)],
        };
        files.write(Path::new("/a"), &[], &state).unwrap();
        files.write(Path::new("/b"), &[], &state).unwrap();
        let text = std::fs::read_to_string(&files.link).expect("the link leads to the unit");
        assert!(text.contains("ExecStart=/b rs up --mode dr --vip 192.0.2.10\n"), "{text}");
        let text = std::fs::read_to_string(&files.sysctls).unwrap();
        assert!(text.contains("\nnet/ipv4/conf/e0.1/arp_ignore = 1\n"), "{text}");
        let remembered = files.remembered().expect("what was before");
        assert_eq!(remembered.made, [(quiet, Found::Value("0".into()))]);
        assert!(files.exists() && files.remove().unwrap() && !files.remove().unwrap() && !files.exists());
        assert_eq!(files.remembered(), None);
        std::fs::remove_dir_all(&etc).unwrap();
    }
}
