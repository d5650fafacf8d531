//! `X-mount.idmap=`: which owners a volume shows for the ones that its filesystem stores (mount(8), mount_setattr(2)).
//!
//! Runs in the mounter; pure.

use std::fmt::Write;

/// The option's name.
pub(super) const OPTION: &str = "X-mount.idmap";

/// The mapping, as the kernel reads it from /proc/PID/uid_map and gid_map (user_namespaces(7)): lines of the first id
/// stored, the first id shown, and how many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMap {
    /// Of users.
    pub users: String,
    /// Of groups.
    pub groups: String,
}

impl IdMap {
    /// Reads `u:0:1000:1 g:0:1000:1`, quoted or not, or `b:` for both: type, first id stored, first id shown, how many.
    /// `None`: something else, such as the path of a user namespace, which mount(8) also takes.
    pub fn parse(value: &str) -> Option<Self> {
        let mut map = Self::default();
        for range in value.trim_matches('"').split_ascii_whitespace() {
            let mut fields = range.split(':');
            let kind = fields.next()?;
            let mut number = || fields.next()?.parse::<u32>().ok();
            let (stored, shown, count) = (number()?, number()?, number()?);
            let fits = |first: u32| first.checked_add(count).is_some();
            if count == 0 || !fits(stored) || !fits(shown) || fields.next().is_some() {
                return None;
            }
            for (kinds, lines) in [(["u", "b"], &mut map.users), (["g", "b"], &mut map.groups)] {
                if kinds.contains(&kind) {
                    // Writing to a string does not fail.
                    let _ = writeln!(lines, "{stored} {shown} {count}");
                }
            }
            if !["u", "g", "b"].contains(&kind) {
                return None;
            }
        }
        (map != Self::default()).then_some(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_users_groups_and_both() {
        let map = IdMap::parse("\"u:0:1000:1 g:5:6:7 b:10:20:30\"").unwrap();
        assert_eq!(map.users, "0 1000 1\n10 20 30\n");
        assert_eq!(map.groups, "5 6 7\n10 20 30\n");
        assert_eq!(IdMap::parse("u:0:1:1").unwrap().groups, "");
        for bad in
            ["", " ", "u:0:1", "u:0:1:1:1", "x:0:1:1", "u:-1:1:1", "u:0:1:0", "u:4294967295:0:2", "/proc/1/ns/user"]
        {
            assert_eq!(IdMap::parse(bad), None, "{bad:?}");
        }
    }
}
