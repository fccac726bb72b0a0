//! How an invocation fails: what it says on standard error, and its exit code.

use xlvs_model::Refusal;

use crate::table::Command;

/// Exit code of a listing that cannot be made.
pub(crate) const LISTING: i32 = 1;
/// Exit code of a command that makes no sense.
pub(crate) const USAGE: i32 = 2;
/// Exit code of a command line that cannot be read, and of a command that was refused.
pub(crate) const REFUSED: i32 = 255;

/// A failed invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Exit code.
    pub(crate) code: i32,
    /// For standard error; the newline is added.
    pub(crate) text: Vec<u8>,
    /// Whether lines after this one are still carried out when the commands come from `-R`.
    pub(crate) passed_over: bool,
}

impl Failure {
    /// A command that makes no sense: ends even `-R` at once.
    pub(crate) fn usage(text: impl Into<Vec<u8>>) -> Self {
        Self { code: USAGE, text: text.into(), passed_over: false }
    }

    /// A usage message that quotes what was typed, byte for byte.
    pub(crate) fn quoting(before: &str, quoted: &[u8], after: &str) -> Self {
        Self::usage([before.as_bytes(), quoted, after.as_bytes()].concat())
    }

    /// Nothing that can be understood at all.
    pub(crate) fn try_help(program: &str) -> Self {
        let text = format!("Try `{program} -h' or '{program} --help' for more information.");
        Self { code: REFUSED, text: text.into(), passed_over: false }
    }

    /// A word that the grammar does not have.
    pub(crate) fn grammar(word: &[u8], why: &str) -> Self {
        let text = [word, b": ", why.as_bytes()].concat();
        Self { code: REFUSED, text, passed_over: true }
    }

    /// The director refused the command.
    pub(crate) fn refused(command: Command, why: &Refusal) -> Self {
        Self { code: REFUSED, text: refusal_text(command, why).into(), passed_over: true }
    }

    /// A listing that cannot be made.
    pub(crate) fn listing(text: impl Into<Vec<u8>>) -> Self {
        Self { code: LISTING, text: text.into(), passed_over: false }
    }

    /// The director stopped answering.
    pub(crate) fn broken(error: &std::io::Error) -> Self {
        Self { code: REFUSED, text: error.to_string().into(), passed_over: false }
    }
}

/// The original's words for an errno, which depend on the command.
pub(crate) fn refusal_text(command: Command, why: &Refusal) -> String {
    match why {
        Refusal::Exists => match command {
            Command::AddService => "Service already exists",
            Command::AddServer => "Destination already exists",
            Command::StartDaemon => "Daemon has already run",
            _ => "File exists",
        },
        Refusal::NoService => match command {
            Command::EditService | Command::DeleteService | Command::Zero | Command::List => {
                "No such service"
            }
            Command::AddServer | Command::EditServer | Command::DeleteServer => "Service not defined",
            Command::StopDaemon => "No daemon is running",
            _ => "No such process",
        },
        Refusal::NotFound => match command {
            Command::AddService | Command::EditService => "Scheduler or persistence engine not found",
            Command::EditServer | Command::DeleteServer => "No such destination",
            _ => "No such file or directory",
        },
        Refusal::Invalid => "Invalid operation.  Possibly wrong module version, address not unicast, ...",
        Refusal::OutOfRange => "Numerical result out of range",
        Refusal::NotPermitted => "Permission denied (you must be root)",
        Refusal::NoDevice => "No such device",
        Refusal::NoRoom(reason) => return format!("Memory allocation problem: {reason}"),
        Refusal::Unsupported(sentence) => sentence,
    }
    .to_owned()
}
