//! What the daemon shows over TLS.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

/// A certificate with its key, read again when the files are others: certificates are renewed while daemons run.
pub struct Identity {
    cert: PathBuf,
    key: PathBuf,
    acceptor: TlsAcceptor,
    read_at: Option<SystemTime>,
}

impl Identity {
    /// That in these PEM files.
    pub fn read(cert: &Path, key: &Path) -> anyhow::Result<Self> {
        let read_at = changed(cert, key);
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), acceptor: acceptor(cert, key)?, read_at })
    }

    /// The present one. If the files cannot be used, the one before stays.
    pub fn acceptor(&mut self) -> TlsAcceptor {
        let now = changed(&self.cert, &self.key);
        if now != self.read_at {
            self.read_at = now;
            match acceptor(&self.cert, &self.key) {
                Ok(fresh) => {
                    tracing::info!(cert = %self.cert.display(), "HTTPS shows the new certificate");
                    self.acceptor = fresh;
                }
                Err(why) => tracing::error!("HTTPS goes on with the certificate that it had: {why:#}"),
            }
        }
        self.acceptor.clone()
    }
}

/// When the younger of the two files was written.
fn changed(cert: &Path, key: &Path) -> Option<SystemTime> {
    let of = |path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    of(cert).max(of(key))
}

fn acceptor(cert: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
    let named = |path: &Path| format!("read {} (PEM)", path.display());
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.with_context(|| named(cert))?;
    let secret = PrivateKeyDer::from_pem_file(key).with_context(|| named(key))?;
    let provider = Arc::new(crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .with_context(|| format!("use {} with {}", cert.display(), key.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
