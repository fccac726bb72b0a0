//! What the command line says of HTTP; it takes precedence over the file.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use xlvs_model::config::Http;

/// How HTTP is served besides the unix socket `api.sock` in the run directory.
#[derive(Args, Clone, Debug, Default)]
#[group(skip)]
pub struct Options {
    /// Serve metrics, the API and a page over TCP at this address; without a certificate only on the loopback, for reading.
    #[arg(long = "http", value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Certificate of HTTPS: a PEM file, with those that vouch for it.
    #[arg(long = "http-cert", value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its key.
    #[arg(long = "http-key", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Tokens that callers over HTTPS show: lines of `read TOKEN` or `change TOKEN`.
    #[arg(long = "http-tokens", value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Members of this group may read on the unix socket.
    #[arg(long = "http-group", value_name = "GROUP")]
    group: Option<String>,
    /// Metrics of each server too, not only of services.
    #[arg(long)]
    metrics_per_server: bool,
}

impl Options {
    /// What holds, when the file says this.
    pub fn over(&self, file: &Http) -> Http {
        let Self { listen, cert, key, tokens, group, metrics_per_server } = self.clone();
        Http {
            listen: listen.or(file.listen),
            tls: cert.zip(key).or_else(|| file.tls.clone()),
            tokens: tokens.or_else(|| file.tokens.clone()),
            group: group.or_else(|| file.group.clone()),
            per_server: metrics_per_server || file.per_server,
        }
    }
}
