//! Servers that are to have no connections, and whether they still have some.

use std::collections::HashSet;

use crate::event::{Happening, Which};

/// Servers of weight 0 that were seen with connections.
#[derive(Debug, Default)]
pub struct Drains {
    holding: HashSet<Which>,
}

impl Drains {
    /// Looks at all servers of weight 0 with what they have: connections and persistence templates. A server that went, or
    /// has another weight, is not waited for any more.
    pub fn look(&mut self, resting: impl Iterator<Item = (Which, u32)>) -> Vec<Happening> {
        let before = std::mem::take(&mut self.holding);
        let mut drained = Vec::new();
        for (which, held) in resting {
            if held != 0 {
                self.holding.insert(which);
            } else if before.contains(&which) {
                drained.push(Happening::Drained { which });
            }
        }
        drained
    }
}

#[cfg(test)]
mod tests {
    use xlvs_model::spec::Protocol;
    use xlvs_model::{ServerKey, ServiceKey};

    use super::*;

    #[test]
    fn the_end_of_the_last_connection_is_told_once() {
        let service = ServiceKey::Address { protocol: Protocol::Tcp, addr: [192, 0, 2, 1].into(), port: 80 };
        let server = |host| Which { service, server: ServerKey { addr: [10, 0, 0, host].into(), port: 80 } };
        let mut drains = Drains::default();
        let mut look =
            |resting: &[(u8, u32)]| drains.look(resting.iter().map(|(host, held)| (server(*host), *held)));
        assert_eq!(look(&[(1, 2), (2, 0)]), [], "one holds some, and one never did");
        assert_eq!(look(&[(1, 1), (2, 0)]), []);
        assert_eq!(look(&[(1, 0), (2, 0)]), [Happening::Drained { which: server(1) }]);
        assert_eq!(look(&[(1, 0), (2, 3)]), []);
        assert_eq!(look(&[(1, 0)]), [], "it has its weight back");
        assert_eq!(look(&[(1, 0), (2, 0)]), []);
    }
}
