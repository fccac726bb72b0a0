//! `-R`: commands from standard input.

use std::io::{self, BufRead};

/// The longest word; what is longer falls apart.
const WORD_MAX: usize = 4096;

/// The words of the next line that has any; none at the end of the input.
///
/// Words are separated by blanks, tabs and carriage returns. There is no quoting and no comment, and the word `ipvsadm` is
/// passed over wherever it stands.
pub(crate) fn next_line(input: &mut dyn BufRead) -> io::Result<Option<Vec<Vec<u8>>>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let words: Vec<_> = words(&line).filter(|word| word != b"ipvsadm").collect();
        if !words.is_empty() {
            return Ok(Some(words));
        }
    }
}

/// The words of a line, also those that are passed over.
pub(crate) fn words(line: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    line.split(|byte| b" \t\r\n".contains(byte)).flat_map(|word| word.chunks(WORD_MAX)).map(up_to_nul)
}

/// C's words end at a zero byte.
fn up_to_nul(word: &[u8]) -> Vec<u8> {
    word.split(|&byte| byte == 0).next().unwrap_or_default().to_vec()
}
