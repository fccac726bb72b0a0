//! What happened, for those who watch.

mod changes;
mod drained;
mod pressure;
mod ring;

use std::cell::RefCell;
use std::time::SystemTime;

use tokio::sync::Notify;

use crate::event::Happening;

pub use changes::{of_changes, of_news, who_settled};
pub use drained::Drains;
pub use pressure::Pressure;
pub use ring::{Found, Ring};

/// So many events are kept: a few megabytes at the most.
const KEPT: usize = 16_384;

/// The last events, and the bell that is rung for readers when there is another.
pub struct Events {
    ring: RefCell<Ring>,
    bell: Notify,
}

impl Default for Events {
    fn default() -> Self {
        Self { ring: Ring::of(KEPT).into(), bell: Notify::new() }
    }
}

impl Events {
    /// This happened now.
    pub fn tell(&self, what: Happening) {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.ring.borrow_mut().push(what, since_epoch.as_millis() as u64);
        self.bell.notify_waiters();
    }

    /// All of these happened now, in this order.
    pub fn tell_all(&self, happenings: impl IntoIterator<Item = Happening>) {
        happenings.into_iter().for_each(|what| self.tell(what));
    }

    /// The events as they are kept.
    pub fn ring(&self) -> std::cell::Ref<'_, Ring> {
        self.ring.borrow()
    }

    /// Waits for the next event. What happens between a look at the ring and the first poll of this is not noticed: do not
    /// await anything in between.
    pub async fn another(&self) {
        self.bell.notified().await;
    }
}
