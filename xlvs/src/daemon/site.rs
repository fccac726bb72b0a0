//! What rules besides services and servers: where, how they are looked after, and which file says so.

use std::path::PathBuf;

use xlvs_model::{Config, Model};

use super::revisions::{Revisions, replace};
use super::{Daemon, Options};

/// See the module.
pub struct Site {
    /// The file that the daemon was started with.
    pub file: Option<PathBuf>,
    /// What the command line names; the file's interfaces do not count then.
    pub fixed_interfaces: bool,
    /// What was applied.
    pub revisions: Revisions,
    policy: Config,
    kept_at: PathBuf,
}

impl Site {
    /// As an earlier daemon left it, if one did.
    pub fn resume(options: &Options, fixed_interfaces: bool, earlier: bool) -> Self {
        let kept_at = options.paths.policy();
        let read = || Config::read(&std::fs::read_to_string(&kept_at).ok()?).ok();
        let mut policy = if earlier { read().unwrap_or_default() } else { Config::default() };
        if !earlier {
            let _none = std::fs::remove_file(&kept_at);
        }
        policy.model = Model::default();
        policy.interfaces.clone_from(&options.interfaces);
        Self {
            file: options.config.clone(),
            fixed_interfaces,
            revisions: Revisions::in_directory(options.paths.revisions()),
            policy,
            kept_at,
        }
    }

    /// Interfaces that the director is to be on.
    pub fn interfaces(&self) -> &[String] {
        &self.policy.interfaces
    }

    /// All of it but services and servers.
    pub fn policy(&self) -> &Config {
        &self.policy
    }

    /// From now on, this rules. The next daemon finds it.
    pub fn rule(&mut self, config: &Config) {
        let kept = replace(&self.kept_at, &config.to_toml());
        if let Err(why) = kept {
            let path = self.kept_at.display();
            tracing::error!(%path, %why, "a daemon that takes over will not know how servers are looked after");
        }
        self.policy = Config {
            interfaces: config.interfaces.clone(),
            hook: config.hook,
            sizes: config.sizes,
            http: config.http.clone(),
            pools: config.pools.clone(),
            model: Model::default(),
        };
    }
}

/// All that has been said and not taken back, by files and commands.
pub fn stated(daemon: &Daemon) -> Config {
    let site = daemon.site.borrow();
    let Config { interfaces, hook, sizes, http, pools, .. } = site.policy.clone();
    let model = daemon.checks.keeper.borrow().stated(daemon.engine.borrow().model());
    Config { interfaces, hook, sizes, http, pools, model }.pruned()
}
