//! How the daemon speaks HTTP besides its unix socket.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::entry::Entry;
use super::section::Section;

/// What the daemon serves over HTTP beyond what it always does, for one that starts; default: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http {
    /// The TCP address and port to listen at.
    pub listen: Option<SocketAddr>,
    /// PEM file of the certificate and those that vouch for it, and of its key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// File of the tokens that callers over TCP show.
    pub tokens: Option<PathBuf>,
    /// Members of this group may read on the unix socket.
    pub group: Option<String>,
    /// Metrics of each server too.
    pub per_server: bool,
}

impl Http {
    /// What is wrong with it as a whole, if anything.
    pub fn mistake(&self) -> Option<String> {
        let Some(listen) = self.listen else {
            let unused = self.tls.is_some() || self.tokens.is_some();
            return unused.then(|| {
                "certificate and tokens are of no use without an address to `listen` at".to_owned()
            });
        };
        match (&self.tls, &self.tokens) {
            (None, Some(_)) => Some("tokens are not sent without TLS; name a `cert` and a `key`".to_owned()),
            (Some(_), None) => Some("with TLS callers show tokens; name a file of `tokens`".to_owned()),
            (None, None) if !listen.ip().is_loopback() => Some(format!(
                "{listen} can be reached by others: that takes a `cert`, a `key` and `tokens`; without them only 127.0.0.1 \
                 and [::1] are served, for reading"
            )),
            _ => None,
        }
    }
}

const KEYS: &[&str] = &["listen", "cert", "key", "tokens", "group", "per_server"];

pub(super) fn read(file: &Section<'_>) -> Http {
    let Some(section) = file.section("http", "`http`", KEYS) else { return Http::default() };
    let text = |key, what: &str| section.get(key).and_then(|entry: Entry<'_>| entry.string(what));
    let path = |key| text(key, "the name of a file").map(PathBuf::from);
    let tls = match (path("cert"), path("key")) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => {
            section.wrong("a certificate and its key are said together: `cert` and `key`");
            return Http::default();
        }
    };
    let http = Http {
        listen: section.get("listen").and_then(|entry| listen(&entry)),
        tls,
        tokens: path("tokens"),
        group: text("group", "the name of a group").map(str::to_owned),
        per_server: section.get("per_server").and_then(|entry| entry.flag()).unwrap_or_default(),
    };
    // An address that could not be read is told already.
    let is_read = http.listen.is_some() || section.get("listen").is_none();
    if let Some(mistake) = http.mistake().filter(|_| is_read) {
        section.wrong(mistake);
    }
    http
}

fn listen(entry: &Entry<'_>) -> Option<SocketAddr> {
    let text = entry.string("an address with a port such as \"127.0.0.1:9110\"")?;
    let read = text.parse().ok();
    if read.is_none() {
        entry.wrong(format!(
            "\"{text}\" is no address with a port; write \"127.0.0.1:9110\" or \"[::1]:9110\""
        ));
    }
    read
}
