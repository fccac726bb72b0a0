//! Colour, on a terminal only.

use std::io::IsTerminal;

/// Whether to colour, decided once.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// For standard output: on a terminal, unless `NO_COLOR` is set.
    pub fn of_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { on: std::io::stdout().is_terminal() && !unwanted }
    }

    /// Plain text.
    #[cfg(test)]
    pub fn of_nothing() -> Self {
        Self { on: false }
    }

    /// A heading.
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    /// Something that hurts.
    pub fn red(self, text: &str) -> String {
        self.with("31", text)
    }

    /// Something to look at.
    pub fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    /// Something that is right.
    pub fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
