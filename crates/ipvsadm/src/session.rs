//! One invocation of `ipvsadm`, `ipvsadm-save` or `ipvsadm-restore`.

use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use xlvs_model::{Change, Refusal};

use crate::backend::{Backend, Stopped, Unreachable};
use crate::count::Counts;
use crate::failure::{Failure, REFUSED, USAGE};
use crate::help;
use crate::listing;
use crate::meant::{self, Columns, Listing, Meant, Subject};
use crate::names::Resolver;
use crate::restore;
use crate::table::Command;
use crate::typed::CommandLine;

/// The three commands of the original's package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applet {
    /// `ipvsadm`
    Ipvsadm,
    /// `ipvsadm-save`
    Save,
    /// `ipvsadm-restore`
    Restore,
}

impl Applet {
    /// The command that a program of this name or path is.
    pub fn of_program(argv0: &Path) -> Option<Self> {
        match argv0.file_name()?.to_str()? {
            "ipvsadm" => Some(Self::Ipvsadm),
            "ipvsadm-save" => Some(Self::Save),
            "ipvsadm-restore" => Some(Self::Restore),
            _ => None,
        }
    }
}

/// All that an invocation has to do with.
pub struct Session<'a> {
    /// How the program was called, as messages repeat it.
    pub program: &'a str,
    /// The director.
    pub backend: &'a mut dyn Backend,
    /// Who knows names.
    pub names: &'a dyn Resolver,
    /// Standard input, for `-R`.
    pub stdin: &'a mut dyn BufRead,
    /// Standard output; worth a buffer, as listings are written line by line.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
}

/// Whether there is anything left to do.
enum After {
    /// The invocation goes on; this is its exit code so far.
    Next(i32),
    /// It ends here.
    Exit(i32),
}

impl Session<'_> {
    /// Does what the arguments (without the program's name) say; the exit code.
    pub fn run(&mut self, applet: Applet, args: Vec<OsString>) -> i32 {
        let args: Vec<_> = args.into_iter().map(OsString::into_vec).collect();
        let code = match applet {
            Applet::Ipvsadm => self.ipvsadm(&args),
            Applet::Save => self.ipvsadm_save(&args),
            Applet::Restore => self.ipvsadm_restore(),
        };
        // Whoever should read the output has gone: nobody is left to tell.
        if self.out.flush().is_err() { 1 } else { code }
    }

    fn ipvsadm(&mut self, args: &[Vec<u8>]) -> i32 {
        let line = CommandLine::read(args);
        let meant =
            if args.is_empty() { Ok(list_all()) } else { meant::understand(&line, self.program, self.names) };
        // The original needs the kernel even to show its help; nothing hangs on that.
        if !matches!(meant, Ok(Meant::Help | Meant::Version))
            && let Err(why) = self.backend.open()
        {
            return self.unreachable(&why);
        }
        let after = match meant {
            Ok(Meant::Restore) => return self.restore(Vec::new()),
            Ok(meant) => self.perform(meant),
            Err(failure) => self.fail(&failure),
        };
        let (After::Next(code) | After::Exit(code)) = after;
        code
    }

    fn ipvsadm_save(&mut self, args: &[Vec<u8>]) -> i32 {
        let mut words = vec![b"-S".to_vec()];
        for arg in args {
            match arg.as_slice() {
                b"-n" => words.truncate(1),
                [b'-', ..] => return self.save_usage(),
                _ => continue,
            }
            words.push(b"-n".to_vec());
        }
        self.ipvsadm(&words)
    }

    fn save_usage(&mut self) -> i32 {
        let name = Path::new(self.program).file_name().unwrap_or_default().to_string_lossy();
        self.complain(
            format!(
                "{name}: Script to save the IPVS table to stdout.\n   With the -n option, prints out the table in numeric format."
            )
            .as_bytes(),
        );
        1
    }

    /// Clears the table and reads commands, without lines that begin with `#`.
    fn ipvsadm_restore(&mut self) -> i32 {
        if let Err(why) = self.backend.open() {
            return self.unreachable(&why);
        }
        let mut rules = Vec::new();
        let mut line = Vec::new();
        loop {
            line.clear();
            match self.stdin.read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) if line.starts_with(b"#") => {}
                Ok(_) => rules.extend_from_slice(&line),
                Err(error) => return self.end(&Failure::broken(&error)),
            }
        }
        let mut rules = io::Cursor::new(rules);
        let mut inner = Session {
            program: "ipvsadm",
            backend: self.backend,
            names: self.names,
            stdin: &mut rules,
            out: self.out,
            err: self.err,
        };
        inner.restore(vec![(Command::Flush, Change::Flush)])
    }

    fn perform(&mut self, meant: Meant) -> After {
        let result = match meant {
            Meant::Help => return self.show(&help::help(self.program)),
            Meant::Version => return self.show(help::VERSION),
            Meant::Change(command, change) => return After::Next(self.apply(vec![(command, change)])),
            Meant::UnknownScheduler(command, key) => self.look_for_scheduler(command, &key),
            Meant::List(listing) => listing::list(&listing, self.backend, self.names, self.out),
            Meant::Save { numeric } => listing::save(numeric, self.backend, self.names, self.out, self.err),
            // Commands that are read do not read commands.
            Meant::Restore => Err(Failure::try_help(self.program)),
        };
        match result {
            Ok(()) => After::Next(0),
            Err(failure) => self.fail(&failure),
        }
    }

    /// Reads commands to the end of the input. Changes that follow each other are applied together; what has been read
    /// before anything else happens is applied before it.
    fn restore(&mut self, mut waiting: Vec<(Command, Change)>) -> i32 {
        let mut code = 0;
        loop {
            let words = match restore::next_line(self.stdin) {
                Ok(Some(words)) => words,
                Ok(None) => break,
                Err(error) => return self.end(&Failure::broken(&error)),
            };
            let meant = meant::understand(&CommandLine::read(&words), self.program, self.names);
            if let Ok(Meant::Change(command, change)) = meant {
                waiting.push((command, change));
                continue;
            }
            self.apply(std::mem::take(&mut waiting));
            let after = match meant {
                Ok(meant) => self.perform(meant),
                Err(failure) => self.fail(&failure),
            };
            match after {
                After::Next(of_line) => code = of_line,
                After::Exit(code) => return code,
            }
        }
        if waiting.is_empty() { code } else { self.apply(waiting) }
    }

    /// Applies changes, passing over those that are refused; the exit code of the last.
    fn apply(&mut self, changes: Vec<(Command, Change)>) -> i32 {
        let (commands, changes): (Vec<_>, Vec<_>) = changes.into_iter().unzip();
        let mut done = 0;
        while done < changes.len() {
            match self.backend.apply(&changes[done..]) {
                Ok(()) => return 0,
                Err(Stopped::Refused { at, why }) => {
                    let refused = done + at;
                    self.fail(&Failure::refused(commands[refused], &why));
                    done = refused + 1;
                }
                Err(Stopped::Broken(error)) => return self.end(&Failure::broken(&error)),
            }
        }
        if changes.is_empty() { 0 } else { REFUSED }
    }

    fn look_for_scheduler(&mut self, command: Command, key: &xlvs_model::ServiceKey) -> Result<(), Failure> {
        let there = !self.backend.services(Some(key)).map_err(|e| Failure::broken(&e))?.is_empty();
        let why = match (command, there) {
            (Command::AddService, true) => Refusal::Exists,
            (Command::EditService, false) => Refusal::NoService,
            _ => Refusal::NotFound,
        };
        Err(Failure::refused(command, &why))
    }

    fn show(&mut self, text: &str) -> After {
        After::Exit(if self.out.write_all(text.as_bytes()).is_ok() { 0 } else { 1 })
    }

    fn fail(&mut self, failure: &Failure) -> After {
        let code = self.end(failure);
        if failure.passed_over { After::Next(code) } else { After::Exit(code) }
    }

    fn end(&mut self, failure: &Failure) -> i32 {
        self.complain(&failure.text);
        failure.code
    }

    fn unreachable(&mut self, why: &Unreachable) -> i32 {
        let advice = match why {
            Unreachable::NotPermitted => {
                "Are you sure that IP Virtual Server is built in the kernel or as module?"
            }
            Unreachable::Absent { advice, .. } => advice,
        };
        self.complain(format!("Can't initialize ipvs: {why}\n{advice}").as_bytes());
        USAGE
    }

    /// What has been printed comes first. A complaint that cannot be written has nowhere else to go; the exit code still
    /// tells.
    fn complain(&mut self, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        _ = self.out.flush();
        _ = self.err.write_all(&[text, b"\n"].concat()).and_then(|()| self.err.flush());
    }
}

fn list_all() -> Meant {
    Meant::List(Listing {
        subject: Subject::Services,
        columns: Columns::Usual,
        numeric: false,
        counts: Counts::Short,
        sorted: true,
    })
}
