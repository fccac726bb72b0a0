//! TLS for checks: a certificate is looked at only where that is asked for.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use xlvs_model::watch::{HttpVersion, TlsSpec};

use super::in_words;

/// Makes a connection a TLS one, over which this version of HTTP is spoken.
pub async fn begin<S>(
    spec: &TlsSpec,
    version: HttpVersion,
    asked: SocketAddr,
    stream: S,
) -> Result<TlsStream<S>, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = match &spec.sni {
        Some(sni) => ServerName::try_from(sni.clone())
            .map_err(|_| format!("{sni} is no name that a server can be told"))?,
        None => ServerName::from(asked.ip()),
    };
    let config = if spec.verify { verifying() } else { trusting() }?;
    let config = match version {
        HttpVersion::One => config,
        HttpVersion::Two => offering_http2(spec.verify, &config),
    };
    let connecting = TlsConnector::from(config).connect(name, stream);
    let stream = connecting.await.map_err(|why| format!("no TLS: {}", in_words(&why)))?;
    if version == HttpVersion::Two && stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
        return Err("no HTTP/2: the server does not agree to it (ALPN)".to_owned());
    }
    Ok(stream)
}

/// The name of HTTP/2 in ALPN (RFC 9113, 3.2).
const HTTP2: &[u8] = b"h2";

/// The same with HTTP/2 offered, and nothing else.
fn offering_http2(verify: bool, config: &ClientConfig) -> Arc<ClientConfig> {
    static CONFIGS: [OnceLock<Arc<ClientConfig>>; 2] = [OnceLock::new(), OnceLock::new()];
    let make = || {
        let mut offering = config.clone();
        offering.alpn_protocols = vec![HTTP2.to_vec()];
        Arc::new(offering)
    };
    Arc::clone(CONFIGS[usize::from(verify)].get_or_init(make))
}

/// What is to be warned of: a certificate that the server shows, its own or one that vouches for it, and that ends too soon. One that
/// cannot be read is not its client's business here: `verify` is for that.
pub fn expiry<S>(spec: &TlsSpec, stream: &TlsStream<S>, now: SystemTime) -> Option<String> {
    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let first = shown.iter().filter_map(end_of).min()?;
    warning(spec.warn_expiry, first, now)
}

fn end_of(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn warning(ahead: Duration, end: SystemTime, now: SystemTime) -> Option<String> {
    let verb = match end.duration_since(now) {
        _ if ahead.is_zero() => return None,
        Ok(left) if left > ahead => return None,
        Ok(_) => "expires",
        Err(_) => "has expired",
    };
    // The date, and not how long that is: it stays the same, and so is told once.
    Some(format!("its certificate {verb} on {}", humantime::format_rfc3339_seconds(end)))
}

type Config = Result<Arc<ClientConfig>, String>;

/// Takes certificates that lead to the system's roots. They are read once.
fn verifying() -> Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    let make = || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err("the system has no root certificates; install ca-certificates".to_owned());
        }
        Ok(builder()?.with_root_certificates(roots).with_no_client_auth())
    };
    CONFIG.get_or_init(|| make().map(Arc::new)).clone()
}

/// Takes any certificate.
fn trusting() -> Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    let make = || {
        let any = Arc::new(AnyCertificate(ring::default_provider()));
        Ok(builder()?.dangerous().with_custom_certificate_verifier(any).with_no_client_auth())
    };
    CONFIG.get_or_init(|| make().map(Arc::new)).clone()
}

type Versions = tokio_rustls::rustls::ConfigBuilder<ClientConfig, tokio_rustls::rustls::WantsVerifier>;

fn builder() -> Result<Versions, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    builder.map_err(|why| format!("no TLS can be spoken: {why}"))
}

/// A server is asked whether it serves, not who it is: `verify` is for that.
#[derive(Debug)]
struct AnyCertificate(CryptoProvider);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_warned_of_from_some_time_before_its_end_on() {
        const DAY: Duration = Duration::from_secs(86_400);
        let end = SystemTime::UNIX_EPOCH + 20_000 * DAY;
        let warned = |ahead, now| warning(ahead, end, now);
        assert_eq!(warned(14 * DAY, end - 15 * DAY), None);
        let soon = Some("its certificate expires on 2024-10-04T00:00:00Z".to_owned());
        assert_eq!(warned(14 * DAY, end - 14 * DAY), soon);
        assert_eq!(warned(14 * DAY, end - DAY), soon, "told in the same words");
        let over = Some("its certificate has expired on 2024-10-04T00:00:00Z".to_owned());
        assert_eq!(warned(14 * DAY, end + DAY), over);
        assert_eq!(warned(Duration::ZERO, end + DAY), None);
    }
}
