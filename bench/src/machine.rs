//! On what was measured: figures of two machines do not compare.

use std::fmt;
use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// What matters of a machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// The day.
    pub date: String,
    /// What of the repository was built.
    pub commit: String,
    /// Its release.
    pub kernel: String,
    /// Its name.
    pub cpu: String,
    /// 1: compiled, as it should be.
    pub jit: String,
    /// Against the flaws of processors; they make calls dear.
    pub mitigations: Vec<String>,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let said = |program: &str, words: &[&str]| -> String {
            let output = Command::new(program).args(words).output();
            output.map_or(String::new(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
        };
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let cpu = read("/proc/cpuinfo");
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
        Self {
            date: said("date", &["+%Y-%m-%d"]),
            commit: said("git", &["rev-parse", "--short", "HEAD"]),
            kernel: read("/proc/sys/kernel/osrelease"),
            cpu: cpu.trim_start_matches([' ', '\t', ':']).to_owned(),
            jit: read("/proc/sys/net/core/bpf_jit_enable"),
            mitigations: mitigations(),
        }
    }
}

fn mitigations() -> Vec<String> {
    let Ok(files) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else { return Vec::new() };
    let described = files.filter_map(|file| {
        let path = file.ok()?.path();
        let how = fs::read_to_string(&path).ok()?;
        let how = how.trim().strip_prefix("Mitigation: ")?;
        Some(format!("{}: {how}", path.file_name()?.to_string_lossy()))
    });
    let mut mitigations: Vec<String> = described.collect();
    mitigations.sort();
    mitigations
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, commit, kernel, cpu, jit, mitigations } = self;
        writeln!(f, "{date}, commit {commit}, Linux {kernel}, {cpu}, BPF JIT {jit}")?;
        write!(f, "mitigations: {}", mitigations.join("; "))
    }
}
