//! Greetings of a mail server (RFC 5321): its banner, EHLO, QUIT.

use std::net::SocketAddr;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use xlvs_model::watch::SmtpSpec;

use super::{Trouble, connect, in_words};

/// Of a conversation so much is read: a server that says more says nothing to the point.
const MOST: u64 = 16 << 10;

/// Greets, and tells what is wrong with the answers.
pub(super) async fn greet(spec: &SmtpSpec, target: SocketAddr) -> Result<(), Trouble> {
    let (read, mut write) = connect(target).await?.into_split();
    let mut lines = BufReader::new(read.take(MOST));
    expect(&mut lines, "220", "its banner").await?;
    for (command, code) in [(format!("EHLO {}\r\n", spec.helo), "250"), ("QUIT\r\n".to_owned(), "221")] {
        write.write_all(command.as_bytes()).await.map_err(|why| in_words(&why))?;
        expect(&mut lines, code, command.trim_end()).await?;
    }
    Ok(())
}

/// Reads an answer, of which all lines but the last have a dash after the code.
async fn expect(lines: &mut (impl AsyncBufRead + Unpin), code: &str, after: &str) -> Result<(), String> {
    loop {
        let mut line = Vec::new();
        lines.read_until(b'\n', &mut line).await.map_err(|why| in_words(&why))?;
        let text = String::from_utf8_lossy(&line);
        match text.strip_prefix(code) {
            Some(rest) if rest.starts_with('-') => {}
            Some(_) if line.ends_with(b"\n") => return Ok(()),
            _ if line.is_empty() => return Err(format!("it hung up, or said too much, at {after}")),
            _ => return Err(format!("{after}: {:.60?}", text.trim_end())),
        }
    }
}
