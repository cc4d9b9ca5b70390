//! What policies can say and this version does not enforce yet: each line here goes when its part is built.
//!
//! Until then what carries such an element is refused, with the reason given here.

use crate::Unsupported;
use crate::inbound::InboundRule;
use crate::name::ResourceRef;
use crate::route::filter::Filter;

impl InboundRule {
    /// Why requests may not take this rule of a route, if there is a reason.
    pub fn unenforced(&self, route: &ResourceRef) -> Option<Unsupported> {
        if let Some(why) = &self.unsupported {
            return Some(why.clone());
        }
        let enforced = |filter: &Filter| {
            matches!(
                filter,
                Filter::Fail(_) | Filter::RequestHeaders(_) | Filter::Redirect(_)
            )
        };
        let filter = self.filters.iter().find(|filter| !enforced(filter))?;
        Some(refusal(route, &of_filter(filter), "remove it from the route"))
    }
}

fn of_filter(filter: &Filter) -> String {
    match filter {
        Filter::Fail(failure) => format!("the filter failure_injector ({:?})", failure.message),
        Filter::RequestHeaders(_) => "the filter request_header_modifier".to_owned(),
        Filter::ResponseHeaders(_) => "the filter response_header_modifier".to_owned(),
        Filter::Redirect(_) => "the filter redirect".to_owned(),
        Filter::Rewrite(_) => "the filter rewrite".to_owned(),
        Filter::Delay(_) => "the filter delay".to_owned(),
    }
}

fn refusal(object: &ResourceRef, what: &str, remedy: &str) -> Unsupported {
    Unsupported::new(format!(
        "{object}: {what} is not enforced by this version; {remedy}"
    ))
}
