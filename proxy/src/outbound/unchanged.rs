//! The rules of the router before, which a new policy keeps as they are where it does not change them: with what they
//! report to, their mirrors, and their copies of requests.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use outrigger_policy::name::ResourceRef;
use outrigger_policy::outbound::OutboundRule;
use outrigger_policy::route::index::Indexed;

use crate::outbound::rule::Rule;

/// Rules that were live before, by their routes, each in order.
#[derive(Debug, Default)]
pub(super) struct Unchanged<'a>(HashMap<&'a ResourceRef, VecDeque<&'a Arc<Rule>>>);

impl<'a> Unchanged<'a> {
    /// Those of a table; none are kept without it.
    pub(super) fn of(before: Option<&'a Indexed<Arc<Rule>>>) -> Self {
        let mut rules = Self::default();
        for (meta, rule) in before.into_iter().flat_map(Indexed::rules) {
            rules.0.entry(meta).or_default().push_back(rule);
        }
        rules
    }

    /// The rule of this route that says the same.
    pub(super) fn take(&mut self, meta: &ResourceRef, rule: &OutboundRule) -> Option<Arc<Rule>> {
        let before = self.0.get_mut(meta)?;
        // Most stay in their places, so that the first is the one.
        let same = before.iter().position(|old| old.policy == *rule)?;
        before.remove(same).cloned()
    }
}
