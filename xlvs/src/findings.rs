//! How findings are told: a line each, and an exit code for scripts.

use std::fmt::Display;
use std::process::ExitCode;

/// Prints them. Exit code 1: there is a fault among them, and not only what works at a cost.
pub fn tell<F: Display>(findings: &[F], is_fault: impl Fn(&F) -> bool) -> ExitCode {
    for finding in findings {
        println!("{}: {finding}", if is_fault(finding) { "wrong" } else { "note" });
    }
    if findings.is_empty() {
        println!("nothing is wrong");
    }
    if findings.iter().any(is_fault) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
