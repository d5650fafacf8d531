//! What is to be done about volumes whose helpers have ended, or run from an earlier image: which of them are searched for, together,
//! how many are healed at a time, and how many are swapped. So a hundred deaths at once cost what a hundred cost, and a node with little processor time starts a
//! few helpers after each other rather than all against each other.
//!
//! In the mounter: every thread adds to it, the main thread begins what is due. No call waits.

use super::volume::VolumeId;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many heals are begun at a time. One that lasts is not counted any more: it waits for a server, and the others shall
/// not wait with it.
const AT_ONCE: usize = 16;
/// After this time it lasts.
const LASTS: Duration = Duration::from_secs(1);
/// How many there are in all.
const IN_ALL: usize = 128;
/// After a search the next one rests for so many times as long as it took, unless another helper has ended: the node's mount
/// table changes with every volume that is healed, mounted or unmounted.
const REST: u32 = 10;
/// How long a search that could not be made rests.
const AGAIN: Duration = Duration::from_secs(1);

/// How many volumes are swapped at a time because of an update: nobody waits for that.
const UPGRADES_AT_ONCE: usize = 4;
/// When one that failed is tried again.
pub(super) const UPGRADE_AGAIN: Duration = Duration::from_secs(60);

/// One piece of it, for a thread of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Search the mount tables for these volumes' filesystems.
    Search(Vec<VolumeId>),
    /// Heal this one.
    Heal(VolumeId),
    /// Swap this one, whose helper runs from an earlier image.
    Upgrade(VolumeId),
}

/// All of it.
#[derive(Debug, Default)]
pub struct ToDo(Mutex<Lists>);

#[derive(Debug, Default)]
struct Lists {
    search: BTreeSet<VolumeId>,
    /// A helper has ended: the search shall not rest.
    at_once: bool,
    searching: bool,
    rests_until: Option<Instant>,
    heal: VecDeque<VolumeId>,
    /// When each heal that is under way was begun.
    healing: Vec<Instant>,
    /// Each with when it is due, in that order.
    upgrade: VecDeque<(Instant, VolumeId)>,
    upgrading: usize,
}

/// A task that is under way, until this is dropped.
#[derive(Debug)]
pub struct UnderWay<'a> {
    list: &'a ToDo,
    task: Kind,
    began: Instant,
}

#[derive(Debug)]
enum Kind {
    Search,
    Heal,
    Upgrade,
}

impl ToDo {
    /// A volume's helper has ended: its filesystem is to be searched for.
    pub fn search_at_once(&self, id: VolumeId) {
        let mut lists = self.locked();
        lists.search.insert(id);
        lists.at_once = true;
    }

    /// A volume without a helper may have been unmounted: its filesystem is to be searched for.
    pub fn search(&self, id: VolumeId) {
        self.locked().search.insert(id);
    }

    /// A search could not be made.
    pub fn search_again(&self, ids: impl IntoIterator<Item = VolumeId>) {
        let mut lists = self.locked();
        lists.search.extend(ids);
        lists.rests_until = Some(Instant::now() + AGAIN);
    }

    /// A dead volume is to be healed.
    pub fn heal(&self, id: VolumeId) {
        self.locked().heal.push_back(id);
    }

    /// A volume's helper runs from an earlier image: it is to be swapped.
    pub fn upgrade(&self, id: VolumeId) {
        let mut lists = self.locked();
        let failed = lists.upgrade.iter().position(|(due, _)| *due > Instant::now()).unwrap_or(lists.upgrade.len());
        lists.upgrade.insert(failed, (Instant::now(), id));
    }

    /// That failed.
    pub fn upgrade_again(&self, id: VolumeId) {
        self.locked().upgrade.push_back((Instant::now() + UPGRADE_AGAIN, id));
    }

    /// What can be begun at `now`. The caller begins it, or hands it to [`not_begun`](Self::not_begun).
    pub fn next(&self, now: Instant) -> Option<Task> {
        let mut lists = self.locked();
        if lists.can_search(now) {
            lists.searching = true;
            lists.at_once = false;
            return Some(Task::Search(std::mem::take(&mut lists.search).into_iter().collect()));
        }
        if lists.can_heal(now)
            && let Some(id) = lists.heal.pop_front()
        {
            lists.healing.push(now);
            return Some(Task::Heal(id));
        }
        // Those that are dead come first.
        if lists.upgrading < UPGRADES_AT_ONCE && lists.upgrade.front().is_some_and(|(due, _)| *due <= now) {
            lists.upgrading += 1;
            return lists.upgrade.pop_front().map(|(_, id)| Task::Upgrade(id));
        }
        None
    }

    /// How long until something can be begun that cannot be now, if nothing else happens.
    pub fn next_due(&self, now: Instant) -> Option<Duration> {
        let lists = self.locked();
        let rests = lists.rests_until.filter(|_| !lists.searching && !lists.search.is_empty());
        let room = lists.healing.iter().filter(|began| **began + LASTS > now).min().map(|began| *began + LASTS);
        let room = room.filter(|_| !lists.heal.is_empty() && lists.healing.len() < IN_ALL);
        let upgrade = lists.upgrade.front().filter(|_| lists.upgrading < UPGRADES_AT_ONCE).map(|(due, _)| *due);
        rests.into_iter().chain(room).chain(upgrade).min().map(|at| at.saturating_duration_since(now))
    }

    /// The task, which was begun at `began`, is under way for as long as what is returned.
    pub fn under_way(&self, task: &Task, began: Instant) -> UnderWay<'_> {
        let task = match task {
            Task::Search(_) => Kind::Search,
            Task::Heal(_) => Kind::Heal,
            Task::Upgrade(_) => Kind::Upgrade,
        };
        UnderWay { list: self, task, began }
    }

    fn locked(&self) -> MutexGuard<'_, Lists> {
        // Every change here is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lists {
    fn can_search(&self, now: Instant) -> bool {
        let rests = self.rests_until.is_some_and(|until| now < until) && !self.at_once;
        !self.searching && !rests && !self.search.is_empty()
    }

    fn can_heal(&self, now: Instant) -> bool {
        let young = self.healing.iter().filter(|began| **began + LASTS > now).count();
        young < AT_ONCE && self.healing.len() < IN_ALL
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut lists = self.list.locked();
        match self.task {
            Kind::Search => {
                let now = Instant::now();
                let rest = now + now.saturating_duration_since(self.began).saturating_mul(REST);
                lists.searching = false;
                lists.rests_until = lists.rests_until.max(Some(rest));
            }
            Kind::Heal => {
                if let Some(at) = lists.healing.iter().position(|began| *began == self.began) {
                    lists.healing.swap_remove(at);
                }
            }
            Kind::Upgrade => lists.upgrading -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: std::ops::Range<u64>) -> Vec<VolumeId> {
        numbers.map(VolumeId::for_test).collect()
    }

    #[test]
    fn all_that_wait_are_searched_for_together_and_one_search_is_made_at_a_time() {
        let (list, now) = (ToDo::default(), Instant::now());
        ids(1..4).into_iter().for_each(|id| list.search_at_once(id));
        let task = list.next(now).unwrap();
        assert_eq!(task, Task::Search(ids(1..4)));
        let under_way = list.under_way(&task, now);
        ids(2..6).into_iter().for_each(|id| list.search_at_once(id));
        assert_eq!(list.next(now), None);
        drop(under_way);
        assert_eq!(list.next(Instant::now()), Some(Task::Search(ids(2..6))));
    }

    #[test]
    fn a_search_rests_unless_a_helper_has_ended() {
        let (list, began) = (ToDo::default(), Instant::now() - Duration::from_secs(1));
        let [id, other] = ids(1..3)[..] else { unreachable!() };
        list.search(id);
        let task = list.next(began).unwrap();
        drop(list.under_way(&task, began));
        list.search(id);
        let now = Instant::now();
        assert_eq!(list.next(now), None);
        let due = list.next_due(now).unwrap();
        assert!(due > Duration::from_secs(9) && due <= Duration::from_secs(11), "{due:?}");
        assert!(list.next(now + due).is_some());
        drop(list.under_way(&task, began));
        list.search(id);
        list.search_at_once(other);
        assert_eq!(list.next(now), Some(Task::Search(vec![id, other])));
    }

    #[test]
    fn a_few_upgrades_are_under_way_at_a_time_and_one_that_failed_waits() {
        let list = ToDo::default();
        ids(0..9).into_iter().for_each(|id| list.upgrade(id));
        let now = Instant::now();
        let begun: Vec<_> = std::iter::from_fn(|| list.next(now)).collect();
        assert_eq!((begun.len(), list.next_due(now)), (UPGRADES_AT_ONCE, None), "one that ends wakes the main thread");
        list.upgrade_again(ids(0..1)[0]);
        begun.iter().for_each(|task| drop(list.under_way(task, now)));
        // Who is dead comes first.
        list.heal(ids(99..100)[0]);
        assert_eq!(list.next(now), Some(Task::Heal(ids(99..100)[0])));
        let rest: Vec<_> = std::iter::from_fn(|| list.next(now)).collect();
        rest.iter().for_each(|task| drop(list.under_way(task, now)));
        let last: Vec<_> = std::iter::from_fn(|| list.next(now)).collect();
        last.iter().for_each(|task| drop(list.under_way(task, now)));
        assert_eq!(rest.len() + last.len(), 5);
        assert!(list.next_due(now).is_some_and(|due| due >= UPGRADE_AGAIN));
        assert_eq!(list.next(now + UPGRADE_AGAIN * 2), Some(Task::Upgrade(ids(0..1)[0])));
    }

    #[test]
    fn a_few_heals_are_begun_at_a_time_and_those_that_last_keep_nobody() {
        let (list, now) = (ToDo::default(), Instant::now());
        ids(0..500).into_iter().for_each(|id| list.heal(id));
        let begin = |now| std::iter::from_fn(|| list.next(now)).count();
        assert_eq!(begin(now), AT_ONCE);
        assert_eq!(list.next_due(now), Some(LASTS));
        drop(list.under_way(&Task::Heal(ids(0..1)[0]), now));
        assert_eq!(begin(now), 1);
        let mut begun = AT_ONCE + 1;
        for seconds in 1..100 {
            begun += begin(now + LASTS * seconds);
        }
        // One of them has ended.
        assert_eq!(begun, IN_ALL + 1);
    }
}
