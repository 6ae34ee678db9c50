//! The search for an order of a register's operations that explains their answers.
//!
//! It is the search of Wing and Gong (*Testing and Verifying Concurrent Objects*, JPDC 1993): again
//! and again take an operation that nothing unplaced had returned before, and whose answer fits the
//! state; go back where none does. As Lowe does (*Testing for Linearizability*, CCPE 2017; Horn and
//! Kroening and the checker *porcupine* after him), a configuration that led nowhere is remembered.
//!
//! A stock item counts its changes, and every answer tells the count. That makes most steps forced:
//!
//! 1. An answer that fits the state without changing it can be placed at once: moved to the front,
//!    it still fits, and whatever must precede it is placed already.
//! 2. When no such answer is left, one that made version *v + 1* out of the present *v* can be
//!    placed at once. Nothing that fits *v* can come before it: the first of those would have been a
//!    candidate for 1. And whatever else makes *v + 1* leaves it no place, unless it writes the
//!    same value without a condition; then the two can trade places.
//! 3. Only when no answer fits, a write of unknown outcome must have taken effect. Which one is a
//!    choice, and the only place that the search comes back to. Of the unconditional ones whose
//!    values nobody saw and nobody else wrote, any is as good as the one sent first: where another
//!    is right, the two can trade places.
//!
//! So a history is checked in nearly linear time, however long, and the work grows with unknown
//! writes that nobody saw, not with operations. The tests compare it with trying every order.

use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Configurations without a forced step that are looked at before it is given up.
const CHOICES_MAX: usize = 20_000;

/// One operation on one register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    pub id: u64,
    pub invoked_us: u64,
    /// `None` if no answer came.
    pub returned_us: Option<u64>,
    pub effect: Effect,
}

/// What was answered, or may have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Version 0 is that of a register that was never written.
    Read { version: u64, on_hand: u64 },
    /// A write was accepted, with the state after it. One of the value that is there changes nothing.
    Written { version: u64, on_hand: u64, if_version: Option<u64> },
    /// A conditional write was refused because of the version.
    Mismatch { version: u64, if_version: u64 },
    /// A write that may take effect once, at any time from its invocation on, or never.
    Maybe { on_hand: u64, if_version: Option<u64> },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Register {
    pub version: u64,
    pub on_hand: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Linearizable,
    Violated {
        /// Answers placed where the search came furthest.
        placed: usize,
        /// Ids of those that had to come next there.
        blocked: Vec<u64>,
        state: Register,
    },
    /// More than the search may try.
    Undecided,
}

/// Looks for an order. Ids must be distinct.
#[must_use]
pub fn search(ops: &[Op]) -> Outcome {
    Search::new(ops).run()
}

impl Effect {
    /// The state after it, if it may happen in `now` and be answered so.
    pub(super) fn apply(self, now: Register) -> Option<Register> {
        let put = |on_hand, if_version: Option<u64>| {
            if if_version.is_some_and(|expected| expected != now.version) {
                return None;
            }
            let changes = on_hand != now.on_hand || now.version == 0;
            Some(Register { version: now.version + u64::from(changes), on_hand })
        };
        match self {
            Self::Read { version, on_hand } => (now == Register { version, on_hand }).then_some(now),
            Self::Written { version, on_hand, if_version } => {
                put(on_hand, if_version).filter(|after| *after == Register { version, on_hand })
            }
            Self::Mismatch { version, if_version } => (now.version == version && version != if_version).then_some(now),
            Self::Maybe { on_hand, if_version } => put(on_hand, if_version),
        }
    }

    /// The latest version in which it may be placed.
    fn version_max(self) -> u64 {
        match self {
            Self::Read { version, .. } | Self::Written { version, .. } | Self::Mismatch { version, .. } => version,
            Self::Maybe { .. } => u64::MAX,
        }
    }

    /// The state that its answer shows.
    fn shows(self) -> Option<Register> {
        match self {
            Self::Read { version, on_hand } | Self::Written { version, on_hand, .. } => {
                Some(Register { version, on_hand })
            }
            Self::Mismatch { .. } | Self::Maybe { .. } => None,
        }
    }

    fn may_write(self) -> Option<u64> {
        match self {
            Self::Maybe { on_hand, .. } => Some(on_hand),
            _ => None,
        }
    }
}

struct Search<'a> {
    /// By invocation.
    answered: Vec<&'a Op>,
    unknown: Vec<&'a Op>,
    /// The least [`Effect::version_max`] from here to the end.
    version_max: Vec<u64>,
    /// Values that some answer showed, by version.
    shown: BTreeMap<u64, u64>,
    /// Which of `unknown` stand for one another.
    alike: Vec<bool>,
}

/// How far one line of the search has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Configuration {
    state: Register,
    /// All answers before this one are placed.
    base: usize,
    /// Those placed beyond it.
    ahead: BTreeSet<usize>,
    /// Unknown writes that took effect.
    used: BTreeSet<usize>,
}

/// The unplaced answers among which the next ones are.
struct Window {
    unplaced: Vec<usize>,
    /// The first answer after all that are placed or in the window.
    end: usize,
    /// When the first of the unplaced returned: nothing invoked later can come before it.
    first_return: u64,
}

impl<'a> Search<'a> {
    fn new(ops: &'a [Op]) -> Self {
        let mut sorted: Vec<&Op> = ops.iter().collect();
        sorted.sort_by_key(|op| (op.invoked_us, op.id));
        let (answered, unknown): (Vec<_>, Vec<_>) = sorted.into_iter().partition(|op| op.returned_us.is_some());
        let mut version_max = vec![u64::MAX; answered.len() + 1];
        for (at, op) in answered.iter().enumerate().rev() {
            version_max[at] = version_max[at + 1].min(op.effect.version_max());
        }
        let shown = answered.iter().filter_map(|op| op.effect.shows()).map(|shown| (shown.version, shown.on_hand));
        let shown: BTreeMap<u64, u64> = shown.collect();
        let alike = alike(&unknown, &answered);
        Self { shown, alike, answered, unknown, version_max }
    }

    fn run(&self) -> Outcome {
        let mut tried: HashSet<Configuration> = HashSet::new();
        let mut furthest = Configuration::default();
        let mut next = Configuration::default();
        // Configurations to come back to, with the unknown writes not tried there.
        let mut open: Vec<(Configuration, Vec<usize>)> = Vec::new();
        loop {
            self.place_all(&mut next);
            if next.base == self.answered.len() {
                return Outcome::Linearizable;
            }
            if furthest.placed() < next.placed() {
                furthest = next.clone();
            }
            if tried.insert(next.clone()) {
                let choices = self.choices(&next);
                open.push((next, choices));
            }
            if tried.len() > CHOICES_MAX {
                return Outcome::Undecided;
            }
            let Some(chosen) = self.choose(&mut open) else { break };
            next = chosen;
        }
        let window = self.window(&furthest);
        let blocked = self.candidates(&window).map(|at| self.answered[at].id).collect();
        Outcome::Violated { placed: furthest.placed(), blocked, state: furthest.state }
    }

    /// Places answers as long as any fits: first those that change nothing, then those that can
    /// only be placed in this very version.
    fn place_all(&self, at: &mut Configuration) {
        loop {
            let window = self.window(at);
            let fits = |index: usize| Some((index, self.answered[index].effect.apply(at.state)?));
            let rank = |(index, after): &(usize, Register)| {
                let conditional = matches!(self.answered[*index].effect, Effect::Written { if_version: Some(_), .. });
                (*after != at.state, !conditional)
            };
            let Some((index, after)) = self.candidates(&window).filter_map(fits).min_by_key(rank) else { return };
            at.state = after;
            at.place(index);
        }
    }

    fn window(&self, at: &Configuration) -> Window {
        let mut window = Window { unplaced: Vec::new(), end: at.base, first_return: u64::MAX };
        for (index, op) in self.answered.iter().enumerate().skip(at.base) {
            if op.invoked_us > window.first_return {
                break;
            }
            window.end = index + 1;
            if !at.ahead.contains(&index) {
                window.first_return = window.first_return.min(op.returned_us.unwrap_or(u64::MAX));
                window.unplaced.push(index);
            }
        }
        window
    }

    /// Answers that no unplaced one had returned before.
    fn candidates(&self, window: &Window) -> impl Iterator<Item = usize> {
        window.unplaced.iter().copied().filter(|index| self.answered[*index].invoked_us <= window.first_return)
    }

    /// Unknown writes that may take effect now, the likeliest last.
    fn choices(&self, at: &Configuration) -> Vec<usize> {
        let window = self.window(at);
        let in_window = window.unplaced.iter().map(|index| self.answered[*index].effect.version_max()).min();
        let version_max = self.version_max[window.end].min(in_window.unwrap_or(u64::MAX));
        let (mut choices, mut one_of_those_alike) = (Vec::new(), false);
        for (index, op) in self.unknown.iter().enumerate() {
            if op.invoked_us > window.first_return {
                break;
            }
            let Some(after) = op.effect.apply(at.state).filter(|after| *after != at.state) else { continue };
            let contradicted = self.shown.get(&after.version).is_some_and(|shown| *shown != after.on_hand);
            if at.used.contains(&index) || after.version > version_max || contradicted {
                continue;
            }
            if !self.alike[index] || !one_of_those_alike {
                choices.push(index);
            }
            one_of_those_alike |= self.alike[index];
        }
        choices.reverse();
        choices
    }

    /// The next one to try, and where it leads.
    fn choose(&self, open: &mut Vec<(Configuration, Vec<usize>)>) -> Option<Configuration> {
        while let Some((at, choices)) = open.last_mut() {
            if let Some(index) = choices.pop()
                && let Some(state) = self.unknown[index].effect.apply(at.state)
            {
                let mut next = Configuration { state, ..at.clone() };
                next.used.insert(index);
                return Some(next);
            }
            if choices.is_empty() {
                open.pop();
            }
        }
        None
    }
}

/// Unconditional writes of values that no answer showed and nobody else wrote.
fn alike(unknown: &[&Op], answered: &[&Op]) -> Vec<bool> {
    let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
    let values = answered.iter().filter_map(|op| op.effect.shows()).map(|shown| shown.on_hand);
    let written = unknown.iter().filter_map(|op| op.effect.may_write());
    values.chain(written).for_each(|value| *seen.entry(value).or_default() += 1);
    let is_alike = |op: &&Op| match op.effect {
        Effect::Maybe { on_hand, if_version: None } => seen.get(&on_hand) == Some(&1),
        _ => false,
    };
    unknown.iter().map(is_alike).collect()
}

impl Configuration {
    fn placed(&self) -> usize {
        self.base + self.ahead.len()
    }

    fn place(&mut self, index: usize) {
        self.ahead.insert(index);
        while self.ahead.remove(&self.base) {
            self.base += 1;
        }
    }
}
