//! What rules leave unsaid of services, since ipvsadm's language has no word for it.

use xlvs_model::ServiceSpec;
use xlvs_model::spec::Mss;

use crate::names::Printer;
use crate::script::service_name;

/// A sentence about what the rules of this service do not say, if there is anything.
pub fn unsaid(spec: &ServiceSpec) -> Option<String> {
    let mss = match spec.mss? {
        Mss::Auto => "\"auto\"".to_owned(),
        Mss::Most(bytes) => bytes.to_string(),
    };
    let name = service_name(&spec.key, &mut Printer::numeric());
    Some(format!("{name}: its rules do not say mss = {mss}, for which they have no word; `xlvs save` does"))
}

#[cfg(test)]
mod tests {
    use xlvs_model::ServiceKey;
    use xlvs_model::spec::{Protocol, Scheduler};

    use super::*;

    #[test]
    fn only_what_rules_have_no_word_for_is_told() {
        let key = ServiceKey::Address { protocol: Protocol::Tcp, addr: [10, 0, 0, 1].into(), port: 80 };
        let spec = ServiceSpec::new(key, Scheduler::Rr);
        assert_eq!(unsaid(&spec), None);
        for (mss, word) in [(Mss::Auto, "mss = \"auto\","), (Mss::Most(1400), "mss = 1400,")] {
            let told = unsaid(&ServiceSpec { mss: Some(mss), ..spec.clone() }).unwrap();
            assert!(told.starts_with("-t 10.0.0.1:80: ") && told.contains(word), "{told}");
        }
    }
}
