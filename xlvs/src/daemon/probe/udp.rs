//! A datagram, and whether it is refused or answered as it should be.

use std::time::Duration;

use tokio::time::timeout;
use xlvs_model::watch::UdpSpec;

use super::{Trouble, Whom, find};

/// Of an answer so much is looked at.
const MOST: usize = 64 << 10;

/// Asks. Where no answer is needed, silence of so long is no refusal.
pub(super) async fn ask(spec: &UdpSpec, whom: &Whom, silence: Duration) -> Result<(), Trouble> {
    let mut datagrams = whom.datagrams().await?;
    datagrams.send(spec.send.as_bytes()).await?;
    let Some(pattern) = &spec.answer else {
        return match timeout(silence, datagrams.recv(&mut [0])).await {
            Ok(Err(why)) => Err(why),
            Ok(Ok(_)) | Err(_) => Ok(()),
        };
    };
    let mut answer = vec![0; MOST];
    let length = datagrams.recv(&mut answer).await?;
    Ok(find(pattern, "the answer", &answer[..length])?)
}
