//! How loaded this host is, and what share of its weight it should therefore ask for.
//!
//! Pure: texts of proc(5) and cgroup v2 go in, a share comes out. The share is what is left of the scarcest thing:
//!
//! | measure | from | what is left |
//! | --- | --- | --- |
//! | processors | busy time of `/proc/stat`, or of the cgroup and its quota | the idle part |
//! | run queue | running tasks of `/proc/loadavg` beyond one a processor, on the host only | one part in the tasks that share a processor |
//! | memory | `some avg10` of memory pressure (PSI), in percent of time in which somebody waits for memory | what is left of 40 % |
//! | application | a command or URL that says its load in percent | the rest of 100 % |

/// Memory pressure at which a host should get nothing more, in percent of time.
const PRESSED: f64 = 40.0;

/// The least share that load alone asks for, in percent: a server that is said to be at 0 gets no connection, and then nobody
/// would see it recover under work. Who wants none says `drain`.
const LEAST: f64 = 1.0;

/// Time that processors have spent, since a beginning that does not matter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spent {
    /// Working, in any unit.
    pub busy: f64,
    /// In all, in the same unit.
    pub total: f64,
}

impl Spent {
    /// From the first line of `/proc/stat`: all processors together. Waiting for disks is not work.
    pub fn of_host(stat: &str) -> Option<Self> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<f64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; guest time is in user time already.
        let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = ticks[..] else { return None };
        let busy = user + nice + system + irq + softirq + steal;
        Some(Self { busy, total: busy + idle + iowait })
    }

    /// From a cgroup's `cpu.stat` and `cpu.max`, the host's processors and the time in microseconds.
    pub fn of_cgroup(stat: &str, max: &str, processors: f64, now_us: f64) -> Option<Self> {
        let used = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
        let mut words = max.split_whitespace();
        let quota = words.next().and_then(|quota| quota.parse::<f64>().ok());
        let period = words.next().and_then(|period| period.parse::<f64>().ok());
        let allowed = match (quota, period) {
            (Some(quota), Some(period)) if period > 0.0 => (quota / period).min(processors),
            _ => processors,
        };
        Some(Self { busy: used.trim().parse().ok()?, total: now_us * allowed })
    }

    /// The busy part since an earlier time, from 0 to 1; `None`: no time has passed.
    pub fn busy_since(&self, before: &Self) -> Option<f64> {
        let total = self.total - before.total;
        (total > 0.0).then(|| ((self.busy - before.busy) / total).clamp(0.0, 1.0))
    }
}

/// Tasks that run or wait for a processor, from `/proc/loadavg`, without the one that asks.
pub fn running(loadavg: &str) -> Option<f64> {
    let tasks: f64 = loadavg.split_whitespace().nth(3)?.split('/').next()?.parse().ok()?;
    Some((tasks - 1.0).max(0.0))
}

/// The part of the last ten seconds in which some task waited, in percent, from a file of PSI.
pub fn pressure(psi: &str) -> Option<f64> {
    let line = psi.lines().find_map(|line| line.strip_prefix("some "))?;
    line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
}

/// What an application says of its load: a number of percent, with or without the sign.
pub fn application(text: &str) -> Option<f64> {
    let number: f64 = text.trim().trim_end_matches('%').trim_end().parse().ok()?;
    (0.0..=f64::MAX).contains(&number).then_some(number.min(100.0))
}

/// What was measured; what could not be measured is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Busy part of the processors, 0 to 1.
    pub busy: Option<f64>,
    /// Running tasks a processor.
    pub queue: Option<f64>,
    /// Memory pressure in percent.
    pub memory: Option<f64>,
    /// The application's own load in percent.
    pub application: Option<f64>,
}

impl Load {
    /// The share of its weight that the host should ask for, 1 to 100 percent.
    pub fn share(&self) -> u16 {
        let left = [
            self.busy.map(|busy| 1.0 - busy),
            self.queue.map(|tasks| 1.0 / tasks.max(1.0)),
            self.memory.map(|percent| 1.0 - percent / PRESSED),
            self.application.map(|percent| 1.0 - percent / 100.0),
        ];
        let least = left.into_iter().flatten().fold(1.0, f64::min);
        // Between 1 and 100.
        (least * 100.0).clamp(LEAST, 100.0).round() as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_is_that_of_all_processors_without_waiting_for_disks() {
        let before = Spent::of_host("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3\n").expect("stat");
        let after = Spent::of_host("cpu  150 0 120 800 110 10 10 10 0 0\n").expect("stat");
        assert_eq!(before, Spent { busy: 200.0, total: 1000.0 });
        assert_eq!(after.busy_since(&before), Some(100.0 / 210.0));
        assert_eq!(before.busy_since(&before), None);
        assert_eq!(Spent::of_host("cpu0 1 2 3"), None);
        assert_eq!(Spent::of_host("cpu  1 2"), None);
    }

    #[test]
    fn a_cgroup_is_measured_by_its_quota() {
        let at = |used: u32, now| {
            let stat = format!("usage_usec {used}\nuser_usec 1\n");
            Spent::of_cgroup(&stat, "50000 100000\n", 4.0, now).expect("cpu.stat")
        };
        // Half a processor is allowed: a quarter of a second in one second is half of that.
        assert_eq!(at(250_000, 1e6).busy_since(&at(0, 0.0)), Some(0.5));
        let whole = |used: u32, now| {
            Spent::of_cgroup(&format!("usage_usec {used}"), "max 100000", 4.0, now).expect("cpu.stat")
        };
        assert_eq!(whole(1_000_000, 1e6).busy_since(&whole(0, 0.0)), Some(0.25));
        assert_eq!(Spent::of_cgroup("nothing", "", 1.0, 0.0), None);
    }

    #[test]
    fn texts_of_the_kernel_are_read() {
        assert_eq!(running("0.42 0.31 0.20 3/512 12345\n"), Some(2.0));
        assert_eq!(running("0.42"), None);
        let psi =
            "some avg10=12.50 avg60=3.00 avg300=0.10 total=1\nfull avg10=1.00 avg60=0 avg300=0 total=0\n";
        assert_eq!(pressure(psi), Some(12.5));
        assert_eq!(pressure(""), None);
        for (text, load) in [
            ("30", Some(30.0)),
            ("30 %\n", Some(30.0)),
            ("250", Some(100.0)),
            ("-1", None),
            ("busy", None),
            ("NaN", None),
        ] {
            assert_eq!(application(text), load, "{text}");
        }
    }

    #[test]
    fn the_scarcest_thing_decides() {
        let idle = Load { busy: Some(0.0), queue: Some(0.2), memory: Some(0.0), application: Some(0.0) };
        assert_eq!(Load::default().share(), 100);
        assert_eq!(idle.share(), 100);
        assert_eq!(Load { busy: Some(0.25), ..idle }.share(), 75);
        assert_eq!(Load { queue: Some(4.0), ..idle }.share(), 25);
        assert_eq!(Load { memory: Some(20.0), ..idle }.share(), 50);
        assert_eq!(Load { application: Some(90.0), busy: Some(0.5), ..idle }.share(), 10);
        for load in [Load { busy: Some(1.0), ..idle }, Load { memory: Some(99.0), ..idle }] {
            assert_eq!(load.share(), 1, "who is asked for nothing never shows that it could");
        }
    }
}
