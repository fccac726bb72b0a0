//! Greetings and a farewell to a mail server.

use std::net::IpAddr;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, Take};
use xlvs_model::watch::SmtpSpec;

use super::{Trouble, Whom, in_words};

/// Of all answers together, so much is read.
const ANSWERS: u64 = 16 << 10;
/// Of an answer that is not right, so many characters are told.
const TOLD: usize = 60;

/// Says hello and goodbye, and tells what is wrong with the answers.
pub(super) async fn greet(spec: &SmtpSpec, whom: &Whom) -> Result<(), Trouble> {
    let stream = whom.connect().await?;
    let own = stream.own().map_err(|why| Trouble::of(&why))?.ip();
    let helo = spec.helo.clone().unwrap_or_else(|| literal(own));
    let (answers, mut commands) = tokio::io::split(stream);
    let mut answers = BufReader::new(answers.take(ANSWERS));
    expect(&mut answers, "the greeting", "220").await?;
    for (command, what, code) in [
        (format!("EHLO {helo}\r\n"), "the answer to EHLO", "250"),
        ("QUIT\r\n".to_owned(), "the answer to QUIT", "221"),
    ] {
        commands.write_all(command.as_bytes()).await.map_err(|why| no_smtp(&in_words(&why)))?;
        expect(&mut answers, what, code).await?;
    }
    Ok(())
}

/// An address where a name is expected (RFC 5321, 4.1.3).
fn literal(own: IpAddr) -> String {
    match own {
        IpAddr::V4(own) => format!("[{own}]"),
        IpAddr::V6(own) => format!("[IPv6:{own}]"),
    }
}

/// Reads an answer to its last line, the one without a hyphen behind the code.
async fn expect<R>(answers: &mut BufReader<Take<R>>, what: &str, code: &str) -> Result<(), String>
where
    R: AsyncRead + Unpin,
{
    loop {
        let mut line = Vec::new();
        answers.read_until(b'\n', &mut line).await.map_err(|why| no_smtp(&in_words(&why)))?;
        if line.last() != Some(&b'\n') {
            return Err(match answers.get_ref().limit() {
                0 => no_smtp(&format!("the answers are longer than {ANSWERS} bytes")),
                _ => no_smtp("the connection ends within an answer"),
            });
        }
        if !line.starts_with(code.as_bytes()) {
            return Err(format!("{what} is \"{}\", not {code}", printable(&line)));
        }
        if line.get(code.len()) != Some(&b'-') {
            return Ok(());
        }
    }
}

fn no_smtp(why: &str) -> String {
    format!("no SMTP: {why}")
}

/// The beginning of a stranger's line, fit for a log.
fn printable(line: &[u8]) -> String {
    let shown = |byte: &u8| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '?' };
    line.trim_ascii_end().iter().take(TOLD).map(shown).collect()
}
