//! Prometheus's text format, version 0.0.4.
//!
//! The crates for it keep numbers that are counted where they live. Ours lie in the tables and are read when they are asked
//! for, and `prometheus-client` writes OpenMetrics only, in which `promtool check metrics` does not know counters.

use std::fmt::{Display, Write};

/// The content type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They only grow, but for a new beginning. Its name ends with `_total`.
    Counter,
    /// They come and go.
    Gauge,
}

/// Families of samples, as text.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a family. Its head is written with its first sample; samples of other families do not come in between.
    pub fn family<'e>(&'e mut self, name: &'e str, kind: Kind, help: &'e str) -> Family<'e> {
        debug_assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
        Family { exposition: self, name, kind, help, has_head: false }
    }

    /// A family of one sample.
    pub fn one(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help).sample(&[], value);
    }

    /// All of it.
    pub fn into_text(self) -> String {
        self.text
    }
}

/// See [`Exposition::family`].
pub struct Family<'e> {
    exposition: &'e mut Exposition,
    name: &'e str,
    kind: Kind,
    help: &'e str,
    has_head: bool,
}

impl Family<'_> {
    /// Writes a sample with these labels.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.head();
        let text = &mut self.exposition.text;
        *text += self.name;
        let mut before = '{';
        for (label, value) in labels {
            text.push(before);
            *text += label;
            *text += "=\"";
            escape(text, value);
            text.push('"');
            before = ',';
        }
        if !labels.is_empty() {
            text.push('}');
        }
        // Writing to a string cannot fail.
        _ = writeln!(text, " {value}");
    }

    fn head(&mut self) {
        if std::mem::replace(&mut self.has_head, true) {
            return;
        }
        let (name, help) = (self.name, self.help);
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        _ = writeln!(self.exposition.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }
}

fn escape(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => *text += "\\\\",
            '"' => *text += "\\\"",
            '\n' => *text += "\\n",
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_one_head_and_labels_are_escaped() {
        let mut exposition = Exposition::default();
        let mut family = exposition.family("a_total", Kind::Counter, "What it is.");
        family.sample(&[("x", "a\"b\\c\nd"), ("y", "")], 7);
        family.sample(&[("x", "e")], 0.5);
        exposition.family("never", Kind::Gauge, "Nothing is known of it.");
        exposition.one("b", Kind::Gauge, "Another.", 1);
        let text = "# HELP a_total What it is.\n# TYPE a_total counter\na_total{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 7\n\
                    a_total{x=\"e\"} 0.5\n# HELP b Another.\n# TYPE b gauge\nb 1\n";
        assert_eq!(exposition.into_text(), text);
    }
}
