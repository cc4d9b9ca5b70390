//! ServiceProfiles.

use outrigger_policy::classify::{Class, ResponseClass, ResponseCondition};
use outrigger_policy::name::ResourceRef;
use outrigger_policy::profile::{Profile, ProfileRoute};
use outrigger_policy::route::condition::Condition;

use super::endpoint::weighted_addr;
use super::meta::{duration, reference};
use super::{retry, route};
use crate::destination::{
    self, DestinationProfile, HttpStatusRange, PathMatch, RequestMatch, ResponseMatch, Route, WeightedDst,
    request_match, response_match,
};

/// A profile.
///
/// `parent` is the Service that the destination is, `profile_ref` the ServiceProfile. A profile that this version
/// does not enforce is written with one route without a condition.
pub fn profile(
    profile: &Profile,
    parent: Option<&ResourceRef>,
    profile_ref: Option<&ResourceRef>,
) -> DestinationProfile {
    let routes = match &profile.unsupported {
        Some(_) => vec![Route::default()],
        None => profile.routes.iter().map(of_route).collect(),
    };
    let overrides = profile.overrides.iter().map(|over| WeightedDst {
        authority: over.authority.to_string(),
        weight: over.weight,
        backend_ref: None,
    });
    DestinationProfile {
        fully_qualified_name: profile
            .fully_qualified_name
            .as_deref()
            .unwrap_or_default()
            .to_owned(),
        opaque_protocol: profile.opaque,
        routes,
        retry_budget: profile.budget.as_ref().map(retry::written_budget),
        dst_overrides: overrides.collect(),
        endpoint: profile.endpoint.as_ref().map(weighted_addr),
        parent_ref: parent.map(reference),
        profile_ref: profile_ref.map(reference),
    }
}

fn of_route(route: &ProfileRoute) -> Route {
    Route {
        condition: Some(condition(&route.condition)),
        response_classes: route.classes.iter().map(response_class).collect(),
        metrics_labels: route
            .labels
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        is_retryable: route.retryable,
        timeout: route.timeout.map(duration),
    }
}

fn condition(of: &Condition) -> RequestMatch {
    use request_match::{Match, Seq};
    let seq = |list: &[Condition]| Seq {
        matches: list.iter().map(condition).collect(),
    };
    let one = match of {
        Condition::All(all) => Match::All(seq(all)),
        Condition::Any(any) => Match::Any(seq(any)),
        Condition::Not(not) => Match::Not(Box::new(condition(not))),
        Condition::Path(pattern) => Match::Path(PathMatch {
            regex: pattern.as_str().to_owned(),
        }),
        Condition::Method(method) => Match::Method(route::method(method)),
    };
    RequestMatch { r#match: Some(one) }
}

fn response_class(class: &ResponseClass) -> destination::ResponseClass {
    destination::ResponseClass {
        condition: Some(response_condition(&class.condition)),
        is_failure: class.class == Class::Failure,
    }
}

fn response_condition(of: &ResponseCondition) -> ResponseMatch {
    use response_match::{Match, Seq};
    let seq = |list: &[ResponseCondition]| Seq {
        matches: list.iter().map(response_condition).collect(),
    };
    let one = match of {
        ResponseCondition::All(all) => Match::All(seq(all)),
        ResponseCondition::Any(any) => Match::Any(seq(any)),
        ResponseCondition::Not(not) => Match::Not(Box::new(response_condition(not))),
        ResponseCondition::Status(range) => Match::Status(HttpStatusRange {
            min: (*range.start()).into(),
            max: (*range.end()).into(),
        }),
    };
    ResponseMatch { r#match: Some(one) }
}
