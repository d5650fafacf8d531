//! A configuration that is changed while the mounter runs: what of it can be taken over.
//!
//! Pure. Sockets, cgroups' limits, uids and kubelet's directory are made, or looked for, once at the start; and what no type's helpers keep of
//! the capabilities is taken from all that the mounter starts.

use super::Config;
use std::sync::Arc;

impl Config {
    /// What is in force when `written` is in the file while a mounter runs, and the keys whose values wait for a restart.
    pub fn changed_to(&self, written: Self) -> (Self, Vec<&'static str>) {
        let fixed = |config: &Self| {
            let Self { kubelet_dir, uids, doors, all_memory, all_processes, program_timeout, .. } = config.clone();
            (kubelet_dir, (uids, all_memory, all_processes), doors, program_timeout)
        };
        let (now, then) = (fixed(self), fixed(&written));
        let changed = [
            ("kubelet_dir", now.0 != then.0),
            ("[helpers]", now.1 != then.1),
            ("[doors]", now.2 != then.2),
            ("program_timeout_seconds", now.3 != then.3),
            ("capabilities", !written.capabilities().is_subset(&self.capabilities())),
        ];
        let Self { policy, types, others, log, .. } = written;
        let mut next = Self { policy, types, others, log, ..self.clone() };
        let had = self.capabilities();
        for settings in next.types.values_mut().filter(|settings| !settings.capabilities.is_subset(&had)) {
            Arc::make_mut(settings).capabilities.retain(|capability| had.contains(capability));
        }
        (next, changed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn what_was_made_at_the_start_stays() {
        let config = |text: &str| Config::parse(text, Path::new("config.toml")).unwrap();
        let (next, fixed) = config("").changed_to(config("heal = false\nlog = 'debug'\n[policy.csi]\ntypes = []"));
        assert_eq!((next, fixed), (config("heal = false\nlog = 'debug'\n[policy.csi]\ntypes = []"), vec![]));
        let written = "heal = false\nkubelet_dir = '/k'\nprogram_timeout_seconds = 9\n[doors]\nkubelet = false\n[helpers]\nprocess_limit = 9";
        let (next, fixed) = config("").changed_to(config(written));
        assert_eq!(next, config("heal = false"));
        assert_eq!(fixed, ["kubelet_dir", "[helpers]", "[doors]", "program_timeout_seconds"]);
        let keeps = |names: &str| config(&format!("[filesystem.x]\nsysfs = true\ncapabilities = [{names}]\n"));
        let (next, fixed) = keeps("'CAP_CHOWN'").changed_to(keeps("'CAP_CHOWN', 'CAP_KILL'"));
        assert_eq!((next, fixed), (keeps("'CAP_CHOWN'"), vec!["capabilities"]));
        assert_eq!(keeps("'CAP_CHOWN'").changed_to(keeps("")), (keeps(""), vec![]));
    }
}
