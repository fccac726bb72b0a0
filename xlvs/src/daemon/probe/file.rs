//! A file by which somebody else says how a server is: it holds a number, and every number but 0 means that it fails.

use tokio::io::AsyncReadExt;

use super::Trouble;

/// A number is no longer.
const MOST: u64 = 64;

/// Reads. A file that is not there, or is empty, says 0, as keepalived has it.
pub(super) async fn look(path: &str) -> Result<(), Trouble> {
    let cannot =
        |why: std::io::Error| Trouble::Ours(format!("{path} cannot be read: {}", super::in_words(&why)));
    let mut text = String::new();
    match tokio::fs::File::open(path).await {
        Ok(file) => file.take(MOST).read_to_string(&mut text).await.map_err(cannot)?,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(cannot(why)),
    };
    match text.trim() {
        "" => Ok(()),
        text => match text.parse::<i64>() {
            Ok(0) => Ok(()),
            Ok(number) => Err(format!("{path} says {number}").into()),
            Err(_) => Err(Trouble::Ours(format!("{path} holds no number but {text:.20?}"))),
        },
    }
}
