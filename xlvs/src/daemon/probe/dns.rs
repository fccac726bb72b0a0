//! A question to a name server, and whether its answer is one without an error, as keepalived has it.

use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE, header_buffer};
use xlvs_model::watch::{DnsSpec, Record};

use super::{Trouble, Whom};

/// A head is all that is looked at (RFC 1035 4.1.1); more of an answer is cut off.
const HEAD: usize = 12;

/// Asks.
pub(super) async fn ask(spec: &DnsSpec, whom: &Whom) -> Result<(), Trouble> {
    let number = fastrand::u16(..);
    let question =
        question(spec, number).map_err(|why| format!("{} cannot be asked for: {why}", spec.name))?;
    let mut datagrams = whom.datagrams().await?;
    datagrams.send(&question).await?;
    loop {
        let mut answer = [0; HEAD];
        let length = datagrams.recv(&mut answer).await?;
        // What belongs to another question, or to none, is no answer to this one.
        if let Some(code) = code_of(&answer[..length], number) {
            return judged(code);
        }
    }
}

fn question(spec: &DnsSpec, number: u16) -> simple_dns::Result<Vec<u8>> {
    let name = Name::new(spec.name.strip_suffix('.').unwrap_or(&spec.name))?;
    let mut packet = Packet::new_query(number);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let kind = QTYPE::TYPE(kind_of(spec.record));
    packet.questions.push(Question::new(name, kind, QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec()
}

fn kind_of(record: Record) -> TYPE {
    match record {
        Record::A => TYPE::A,
        Record::Aaaa => TYPE::AAAA,
        Record::Cname => TYPE::CNAME,
        Record::Mx => TYPE::MX,
        Record::Ns => TYPE::NS,
        Record::Ptr => TYPE::PTR,
        Record::Soa => TYPE::SOA,
        Record::Srv => TYPE::SRV,
        Record::Txt => TYPE::TXT,
    }
}

/// What a datagram says of the question with this number; `None`: it is no answer to it.
fn code_of(head: &[u8], number: u16) -> Option<RCODE> {
    let is_answer = head.len() == HEAD
        && header_buffer::id(head) == Ok(number)
        && header_buffer::has_flags(head, PacketFlag::RESPONSE) == Ok(true);
    is_answer.then(|| header_buffer::rcode(head).ok())?
}

fn judged(code: RCODE) -> Result<(), Trouble> {
    match code {
        RCODE::NoError => Ok(()),
        RCODE::ServerFailure => Err("it says SERVFAIL".to_owned().into()),
        RCODE::NameError => Err("it says NXDOMAIN".to_owned().into()),
        RCODE::Refused => Err("it says REFUSED".to_owned().into()),
        other => Err(format!("it says {other:?}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_and_names_are_asked_for() {
        let root = question(&DnsSpec::default(), 0x0102).expect("a question");
        assert_eq!(root, [1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 1]);
        let spec = DnsSpec { name: "a.example.".to_owned(), record: Record::Aaaa };
        let asked = question(&spec, 7).expect("a question");
        assert_eq!(asked[12..], *b"\x01a\x07example\0\0\x1c\0\x01");
    }

    #[test]
    fn only_an_answer_to_this_question_counts() {
        let mut head = [1, 2, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(code_of(&head, 0x0102), Some(RCODE::NoError));
        assert_eq!(code_of(&head, 0x0103), None);
        assert_eq!(code_of(&head[..11], 0x0102), None);
        head[3] = 3;
        assert_eq!(code_of(&head, 0x0102), Some(RCODE::NameError));
        head[2] = 1;
        assert_eq!(code_of(&head, 0x0102), None);
        assert_eq!(code_of(b"x", 0x0102), None);
    }
}
