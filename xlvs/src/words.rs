//! Completions and manual pages, made from the commands themselves.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Command, ValueEnum};
use xlvs_ipvsadm::Shell;

/// Whose completions.
#[derive(Args, Clone, Debug)]
pub struct Completions {
    /// The shell.
    shell: Shells,
    /// The program.
    #[arg(value_enum, default_value = "xlvs")]
    program: Program,
}

/// A shell that both programs know.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shells {
    Bash,
    Zsh,
    Fish,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Program {
    Xlvs,
    Ipvsadm,
}

/// Which page.
#[derive(Args, Clone, Debug)]
pub struct Page {
    /// `xlvs`, one of its commands, or `ipvsadm`.
    #[arg(default_value = "xlvs")]
    of: String,
}

/// Prints a file that teaches a shell a program's words.
pub fn completions(mut xlvs: Command, options: &Completions) -> anyhow::Result<ExitCode> {
    let mut text = Vec::new();
    match options.program {
        Program::Ipvsadm => text = xlvs_ipvsadm::completions(ipvsadm_shell(options.shell)).into_bytes(),
        Program::Xlvs => clap_complete::generate(clap_shell(options.shell), &mut xlvs, "xlvs", &mut text),
    }
    io::stdout().lock().write_all(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn clap_shell(shell: Shells) -> clap_complete::Shell {
    match shell {
        Shells::Bash => clap_complete::Shell::Bash,
        Shells::Zsh => clap_complete::Shell::Zsh,
        Shells::Fish => clap_complete::Shell::Fish,
    }
}

fn ipvsadm_shell(shell: Shells) -> Shell {
    match shell {
        Shells::Bash => Shell::Bash,
        Shells::Zsh => Shell::Zsh,
        Shells::Fish => Shell::Fish,
    }
}

/// Prints a manual page as roff; `xlvs man | man -l -` shows it.
pub fn page(mut xlvs: Command, page: &Page) -> anyhow::Result<ExitCode> {
    xlvs.build();
    let mut text = Vec::new();
    match page.of.as_str() {
        "ipvsadm" => text = xlvs_ipvsadm::man_page().into_bytes(),
        "xlvs" => clap_mangen::Man::new(xlvs).section("8").render(&mut text)?,
        name => {
            let Some(command) = xlvs.find_subcommand(name) else {
                bail!("there is no page for {name}; `xlvs man` lists the commands");
            };
            clap_mangen::Man::new(command.clone()).section("8").render(&mut text)?;
        }
    }
    io::stdout().lock().write_all(&text)?;
    Ok(ExitCode::SUCCESS)
}
