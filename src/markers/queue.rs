//! The order in which the directories of several walks are listed.

use std::collections::BTreeMap;

/// The rank of walks that somebody waits for begins here.
const WANTED: u64 = 1 << 63;

/// The place of a walk in a queue: the greatest is next. Of the walks that somebody waits for that is the one that was
/// begun last, of the others the one that was begun first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(u64);

/// What there is to do for each walk.
#[derive(Debug)]
pub(super) struct Queue<T> {
    tasks: BTreeMap<Rank, Vec<T>>,
    /// Ranks that were given.
    ranks: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { tasks: BTreeMap::new(), ranks: 0 }
    }
}

impl<T> Queue<T> {
    /// A rank for a walk. `wanted`: somebody waits for it.
    pub(super) fn rank(&mut self, wanted: bool) -> Rank {
        self.ranks += 1;
        Rank(if wanted { WANTED + self.ranks } else { WANTED - self.ranks })
    }

    /// Somebody waits now for the walk of this rank: returns the one that it has instead.
    pub(super) fn hurry(&mut self, rank: Rank) -> Rank {
        if rank.0 > WANTED {
            return rank;
        }
        let wanted = self.rank(true);
        if let Some(tasks) = self.tasks.remove(&rank) {
            self.tasks.insert(wanted, tasks);
        }
        wanted
    }

    pub(super) fn push(&mut self, rank: Rank, tasks: impl IntoIterator<Item = T>) {
        self.tasks.entry(rank).or_default().extend(tasks);
    }

    /// The next task: the last one of the walk with the greatest rank, so that a tree is walked in depth.
    pub(super) fn pop(&mut self) -> Option<T> {
        while let Some(mut last) = self.tasks.last_entry() {
            match last.get_mut().pop() {
                Some(task) => return Some(task),
                None => drop(last.remove()),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut queue: Queue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn those_that_are_waited_for_come_first() {
        let mut queue = Queue::default();
        for (name, wanted) in [("ahead 1", false), ("wanted 1", true), ("ahead 2", false), ("wanted 2", true)] {
            let rank = queue.rank(wanted);
            queue.push(rank, [name]);
        }
        assert_eq!(all(queue), ["wanted 2", "wanted 1", "ahead 1", "ahead 2"]);
    }

    #[test]
    fn one_that_somebody_begins_to_wait_for_comes_before_the_others() {
        let mut queue = Queue::default();
        let ranks = ["ahead", "hurried"].map(|name| {
            let rank = queue.rank(false);
            queue.push(rank, [name]);
            rank
        });
        let hurried = queue.hurry(ranks[1]);
        assert_eq!(queue.hurry(hurried), hurried, "once");
        queue.push(hurried, ["hurried later"]);
        assert_eq!(all(queue), ["hurried later", "hurried", "ahead"]);
    }

    #[test]
    fn a_walk_without_tasks_at_the_moment_keeps_its_rank() {
        let mut queue = Queue::default();
        let ahead = queue.rank(false);
        let hurried = queue.hurry(ahead);
        let other = queue.rank(false);
        queue.push(other, ["other"]);
        queue.push(hurried, ["hurried"]);
        assert_eq!(all(queue), ["hurried", "other"]);
    }
}
