//! Makes a plan's settings and takes them back.
//!
//! What was in a setting's place is written down before the setting is made, so that even a command that is killed leaves enough
//! behind for [`down`]. A setting that cannot be made takes all of this run's back with it.

use std::io;

use thiserror::Error;

use crate::setting::{Found, Setting};
use crate::store::{State, Store, StoreError};
use crate::wish::Wish;

/// Looks at settings of a host and makes them.
pub trait Host {
    /// What is in the setting's place?
    fn look(&mut self, setting: &Setting) -> io::Result<Found>;
    /// Makes it.
    fn make(&mut self, setting: &Setting) -> io::Result<()>;
    /// Puts back what was found in its place.
    fn put_back(&mut self, setting: &Setting, before: &Found) -> io::Result<()>;
}

/// Why something could not be done.
#[derive(Debug, Error)]
pub enum Trouble {
    /// The state file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody else's program is in a tunnel end's place.
    #[error(
        "{0} already runs another XDP program; remove it (`ip link set dev {0} xdp off`) or name another interface: --interface"
    )]
    Foreign(String),
    /// A setting could not be made; what this run had made was taken back.
    #[error("`{0}` failed: {1}; everything is as it was before")]
    Make(String, io::Error),
    /// The same, and taking back failed too.
    #[error("`{what}` failed: {why}; {left} settings could not be taken back: `xlvs rs down` tries it again")]
    Stuck {
        /// The setting.
        what: String,
        /// Why.
        why: io::Error,
        /// How many.
        left: usize,
    },
}

/// A setting that was left as it is.
#[derive(Debug, PartialEq, Eq)]
pub enum Left {
    /// Somebody else has changed it since.
    Changed(Setting),
    /// It could not be put back.
    Failed(Setting, String),
}

/// What [`up`] has done.
#[derive(Debug)]
pub struct Done {
    /// The settings that had to be made.
    pub made: Vec<Setting>,
    /// What of the earlier wish was left.
    pub left: Vec<Left>,
    /// What is kept for [`down`].
    pub state: State,
}

/// Makes these settings for this wish. Settings of an earlier wish (`old`) that are not among them are taken back; those that hold
/// already are not touched.
pub fn up(
    host: &mut dyn Host,
    store: &Store,
    old: Option<State>,
    wish: &Wish,
    plan: Vec<Setting>,
) -> Result<Done, Trouble> {
    let old_made = old.as_ref().map(|state| state.made.clone()).unwrap_or_default();
    let mut made = Vec::new();
    let mut to_make = Vec::new();
    for setting in plan {
        let found = host.look(&setting).map_err(|why| Trouble::Make(setting.in_words(), why))?;
        if let (Setting::TunnelEnd(setup), Found::Foreign) = (&setting, &found) {
            return Err(Trouble::Foreign(setup.device.clone()));
        }
        let known = old_made.iter().find(|(other, _)| other.is_place_of(&setting));
        made.push((setting.clone(), known.map_or_else(|| found.clone(), |(_, before)| before.clone())));
        if !setting.holds(&found) {
            to_make.push((setting, found));
        }
    }
    let outlived: Vec<_> = old_made
        .into_iter()
        .filter(|(setting, _)| !made.iter().any(|(new, _)| new.is_place_of(setting)))
        .collect();
    let both = outlived.iter().chain(&made).cloned().collect();
    store.write(Some(&State { wish: wish.clone(), made: both }))?;
    make_all(host, store, old.as_ref(), &to_make)?;

    let (kept, left) = take_back(host, outlived);
    let state = State { wish: wish.clone(), made: kept.into_iter().chain(made).collect() };
    store.write(Some(&state))?;
    Ok(Done { made: to_make.into_iter().map(|(setting, _)| setting).collect(), left, state })
}

fn make_all(
    host: &mut dyn Host,
    store: &Store,
    old: Option<&State>,
    settings: &[(Setting, Found)],
) -> Result<(), Trouble> {
    for (number, (setting, _)) in settings.iter().enumerate() {
        let Err(why) = host.make(setting) else { continue };
        let left = undo(host, old, &settings[..number]);
        if left != 0 {
            return Err(Trouble::Stuck { what: setting.in_words(), why, left });
        }
        store.write(old)?;
        return Err(Trouble::Make(setting.in_words(), why));
    }
    Ok(())
}

/// Takes back what this run has made. Returns how much of it could not be.
fn undo(host: &mut dyn Host, old: Option<&State>, settings: &[(Setting, Found)]) -> usize {
    let undone = settings.iter().rev().map(|(setting, found)| {
        let earlier = old.and_then(|state| state.made.iter().find(|(other, _)| other.is_place_of(setting)));
        match (found, earlier) {
            // What cannot be seen of an earlier setting is known from the state.
            (Found::OtherSetup, Some((earlier, _))) => host.make(earlier),
            _ => host.put_back(setting, found),
        }
    });
    undone.filter(Result::is_err).count()
}

/// Puts everything back as it was before the first [`up`]. Returns what was left as it is; what failed stays in the state file, to be
/// tried again. `None`: nothing was set.
pub fn down(host: &mut dyn Host, store: &Store) -> Result<Option<Vec<Left>>, Trouble> {
    let Some(State { wish, made }) = store.read()? else { return Ok(None) };
    let (kept, left) = take_back(host, made);
    let rest = State { wish, made: kept };
    store.write(if rest.made.is_empty() { None } else { Some(&rest) })?;
    Ok(Some(left))
}

/// The last that was made first. Returns what is to be tried again, and what was left.
fn take_back(host: &mut dyn Host, made: Vec<(Setting, Found)>) -> (Vec<(Setting, Found)>, Vec<Left>) {
    let (mut kept, mut left) = (Vec::new(), Vec::new());
    for (setting, before) in made.into_iter().rev() {
        if setting.holds(&before) {
            continue;
        }
        match take_one_back(host, &setting, &before) {
            Ok(true) => {}
            Ok(false) => left.push(Left::Changed(setting)),
            Err(why) => {
                left.push(Left::Failed(setting.clone(), why.to_string()));
                kept.push((setting, before));
            }
        }
    }
    kept.reverse();
    (kept, left)
}

/// `false`: somebody else has changed it since.
fn take_one_back(host: &mut dyn Host, setting: &Setting, before: &Found) -> io::Result<bool> {
    let now = host.look(setting)?;
    if now == *before {
        return Ok(true);
    }
    // A device that has gone has taken its settings with it.
    let gone = now == Found::Nothing;
    if gone && !matches!(before, Found::OtherRoute(_)) {
        return Ok(true);
    }
    if !gone && !setting.holds(&now) && now != Found::OtherSetup {
        return Ok(false);
    }
    host.put_back(setting, before).map(|()| true)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::wish::Mode;

    /// Parameters only, of which one may be broken.
    #[derive(Default)]
    struct Memory {
        values: BTreeMap<String, String>,
        broken: Option<&'static str>,
        writes: usize,
    }

    impl Memory {
        fn of(values: &[(&str, &str)]) -> Self {
            let values = values.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
            Self { values, ..Self::default() }
        }

        fn write(&mut self, key: &str, value: &str) -> io::Result<()> {
            if self.broken == Some(key) {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            self.writes += 1;
            self.values.insert(key.to_owned(), value.to_owned());
            Ok(())
        }
    }

    impl Host for Memory {
        fn look(&mut self, setting: &Setting) -> io::Result<Found> {
            let Setting::Sysctl { key, .. } = setting else { unreachable!("parameters only") };
            Ok(self.values.get(key).map_or(Found::Nothing, |value| Found::Value(value.clone())))
        }
        fn make(&mut self, setting: &Setting) -> io::Result<()> {
            let Setting::Sysctl { key, value } = setting else { unreachable!("parameters only") };
            self.write(key, value)
        }
        fn put_back(&mut self, setting: &Setting, before: &Found) -> io::Result<()> {
            let (Setting::Sysctl { key, .. }, Found::Value(value)) = (setting, before) else {
                unreachable!("parameters only")
            };
            self.write(key, value)
        }
    }

    fn sysctl(key: &str, value: &str) -> Setting {
        Setting::Sysctl { key: key.into(), value: value.into() }
    }

    fn wish() -> Wish {
        Wish::new([Mode::Dr], ["192.0.2.10".parse().unwrap()])
    }

    fn set_up(host: &mut Memory, store: &Store, plan: Vec<Setting>) -> Result<Vec<Setting>, Trouble> {
        up(host, store, store.read()?, &wish(), plan).map(|done| done.made)
    }

    /// A store of the test's own, removed with it.
    struct Place(std::path::PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("xlvs-rs-{}-{name}", std::process::id())))
        }
        fn store(&self) -> Store {
            Store::in_directory(&self.0)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn down_puts_back_what_was_there_before_the_first_up() {
        let place = Place::new("back");
        let mut host = Memory::of(&[("a", "0"), ("b", "2"), ("c", "7")]);
        let plan = || vec![sysctl("a", "1"), sysctl("b", "2")];
        let made = set_up(&mut host, &place.store(), plan()).unwrap();
        assert_eq!(made, [sysctl("a", "1")], "b is right already");
        let made = set_up(&mut host, &place.store(), plan()).unwrap();
        assert_eq!((made.len(), host.writes), (0, 1), "again does nothing");
        assert_eq!(down(&mut host, &place.store()).unwrap(), Some(vec![]));
        assert_eq!(host.values, Memory::of(&[("a", "0"), ("b", "2"), ("c", "7")]).values);
        assert_eq!(down(&mut host, &place.store()).unwrap(), None, "again says that nothing was set");
    }

    #[test]
    fn another_wish_takes_the_place_of_the_first() {
        let place = Place::new("another");
        let mut host = Memory::of(&[("a", "0"), ("b", "0"), ("c", "0")]);
        set_up(&mut host, &place.store(), vec![sysctl("a", "1"), sysctl("b", "1")]).unwrap();
        set_up(&mut host, &place.store(), vec![sysctl("b", "2"), sysctl("c", "2")]).unwrap();
        assert_eq!(host.values, Memory::of(&[("a", "0"), ("b", "2"), ("c", "2")]).values);
        down(&mut host, &place.store()).unwrap();
        assert_eq!(host.values, Memory::of(&[("a", "0"), ("b", "0"), ("c", "0")]).values);
    }

    #[test]
    fn a_setting_that_fails_takes_the_others_with_it() {
        let place = Place::new("fails");
        let mut host = Memory::of(&[("a", "0"), ("b", "0")]);
        set_up(&mut host, &place.store(), vec![sysctl("a", "1")]).unwrap();
        host.values.insert("c".into(), "0".into());
        host.broken = Some("b");
        let plan = vec![sysctl("a", "2"), sysctl("c", "2"), sysctl("b", "2")];
        let trouble = set_up(&mut host, &place.store(), plan).unwrap_err();
        assert!(trouble.to_string().contains("`sysctl -w b=2` failed"), "{trouble}");
        assert_eq!(host.values, Memory::of(&[("a", "1"), ("b", "0"), ("c", "0")]).values);
        host.broken = None;
        down(&mut host, &place.store()).unwrap();
        assert_eq!(host.values, Memory::of(&[("a", "0"), ("b", "0"), ("c", "0")]).values);
    }

    #[test]
    fn what_a_file_of_sysctl_d_has_set_is_put_back_to_what_it_remembers() {
        let place = Place::new("remembered");
        let mut host = Memory::of(&[("a", "1")]);
        let remembered = State { wish: wish(), made: vec![(sysctl("a", "1"), Found::Value("0".into()))] };
        let done = up(&mut host, &place.store(), Some(remembered), &wish(), vec![sysctl("a", "1")]).unwrap();
        assert_eq!((done.made, host.writes), (vec![], 0));
        down(&mut host, &place.store()).unwrap();
        assert_eq!(host.values, Memory::of(&[("a", "0")]).values);
    }

    #[test]
    fn what_somebody_else_changed_is_left_and_told() {
        let place = Place::new("changed");
        let mut host = Memory::of(&[("a", "0"), ("b", "0")]);
        set_up(&mut host, &place.store(), vec![sysctl("a", "1"), sysctl("b", "1")]).unwrap();
        host.values.insert("a".into(), "5".into());
        host.values.remove("b");
        assert_eq!(down(&mut host, &place.store()).unwrap(), Some(vec![Left::Changed(sysctl("a", "1"))]));
        assert_eq!(host.values, Memory::of(&[("a", "5")]).values);
        assert_eq!(place.store().read().unwrap(), None);
    }

    #[test]
    fn what_cannot_be_put_back_is_kept_to_be_tried_again() {
        let place = Place::new("kept");
        let mut host = Memory::of(&[("a", "0"), ("b", "0")]);
        set_up(&mut host, &place.store(), vec![sysctl("a", "1"), sysctl("b", "1")]).unwrap();
        host.broken = Some("a");
        let left = down(&mut host, &place.store()).unwrap().unwrap();
        assert!(matches!(&left[..], [Left::Failed(setting, _)] if *setting == sysctl("a", "1")));
        host.broken = None;
        assert_eq!(down(&mut host, &place.store()).unwrap(), Some(vec![]));
        assert_eq!(host.values, Memory::of(&[("a", "0"), ("b", "0")]).values);
    }

    #[test]
    fn a_damaged_state_file_is_not_believed() {
        let place = Place::new("damaged");
        std::fs::create_dir_all(&place.0).unwrap();
        std::fs::write(place.0.join("rs.json"), "{").unwrap();
        let trouble = down(&mut Memory::default(), &place.store()).unwrap_err();
        assert!(trouble.to_string().contains("damaged"), "{trouble}");
    }
}
