//! ServiceProfiles: `DestinationProfile` to [`Profile`].

use std::collections::HashMap;
use std::sync::Arc;

use outrigger_policy::Unsupported;
use outrigger_policy::classify::{Class, ResponseClass, ResponseCondition};
use outrigger_policy::profile::{Override, Profile, ProfileRoute};
use outrigger_policy::route::condition::Condition;
use outrigger_policy::route::pattern::Pattern;

use super::backend::is_name_and_port;
use super::endpoint::{MAX_ENDPOINTS, labels, weighted_addr};
use super::error::{DecodeError, bounded, each, required};
use super::retry;
use super::route::{MAX_PATTERNS, MAX_ROUTES, method};
use crate::destination::{
    self, DestinationProfile, RequestMatch, ResponseMatch, Route, WeightedDst, request_match, response_match,
};

/// Conditions accepted in the routes and response classes of one profile.
const MAX_CONDITIONS: usize = 10_000;

/// What the profile of a destination says. The references name objects only: they are passed over.
///
/// A route without a condition makes the whole profile unsupported: nobody can tell what it was for.
pub fn profile(profile: DestinationProfile) -> Result<Profile, DecodeError> {
    let name = profile.fully_qualified_name.as_str();
    let endpoint = profile.endpoint.as_ref();
    let endpoint =
        endpoint.map(|addr| weighted_addr(addr, &HashMap::new()).map_err(|e| e.within("endpoint")));
    check_size(&profile)?;
    let unsupported = profile.routes.iter().any(|route| route.condition.is_none());
    let routes = match unsupported {
        true => Vec::new(),
        false => each("routes", &profile.routes, route)?,
    };
    let budget = profile.retry_budget.as_ref();
    Ok(Profile {
        fully_qualified_name: (!name.is_empty()).then(|| name.into()),
        opaque: profile.opaque_protocol,
        endpoint: endpoint.transpose()?,
        routes,
        overrides: each("dst_overrides", &profile.dst_overrides, override_of)?,
        budget: match budget {
            Some(budget) => retry::budget(budget).map_err(|e| e.within("retry_budget"))?,
            None => None,
        },
        unsupported: unsupported.then(|| {
            Unsupported::new(format!(
                "profile of {name:?}: a route without a condition is not enforced by this version; \
                 give it one in the ServiceProfile, or remove it"
            ))
        }),
    })
}

/// Refuses a profile that is too large, before anything is made of it.
fn check_size(profile: &DestinationProfile) -> Result<(), DecodeError> {
    bounded("routes", profile.routes.len(), MAX_ROUTES)?;
    bounded("dst_overrides", profile.dst_overrides.len(), MAX_ENDPOINTS)?;
    let (mut conditions, mut patterns) = (0, 0);
    for route in &profile.routes {
        route.condition.iter().for_each(|condition| {
            conditions += count(condition, &mut patterns);
        });
        let classes = route
            .response_classes
            .iter()
            .filter_map(|class| class.condition.as_ref());
        conditions += classes.map(count_responses).sum::<usize>();
    }
    bounded("routes.condition.path.regex", patterns, MAX_PATTERNS)?;
    bounded("routes.condition", conditions, MAX_CONDITIONS)
}

fn count(condition: &RequestMatch, patterns: &mut usize) -> usize {
    use request_match::Match;
    match &condition.r#match {
        Some(Match::All(seq) | Match::Any(seq)) => {
            1 + seq.matches.iter().map(|c| count(c, patterns)).sum::<usize>()
        }
        Some(Match::Not(not)) => 1 + count(not, patterns),
        Some(Match::Path(_)) => {
            *patterns += 1;
            1
        }
        Some(Match::Method(_)) | None => 1,
    }
}

fn count_responses(condition: &ResponseMatch) -> usize {
    use response_match::Match;
    match &condition.r#match {
        Some(Match::All(seq) | Match::Any(seq)) => 1 + seq.matches.iter().map(count_responses).sum::<usize>(),
        Some(Match::Not(not)) => 1 + count_responses(not),
        Some(Match::Status(_)) | None => 1,
    }
}

fn route(route: &Route) -> Result<ProfileRoute, DecodeError> {
    let classes = each("response_classes", &route.response_classes, response_class)?;
    Ok(ProfileRoute {
        condition: condition(required("condition", &route.condition)?).map_err(|e| e.within("condition"))?,
        classes: classes.into(),
        labels: labels(&HashMap::new(), &route.metrics_labels)?,
        retryable: route.is_retryable,
        timeout: retry::optional("timeout", &route.timeout)?,
    })
}

fn condition(message: &RequestMatch) -> Result<Condition, DecodeError> {
    use request_match::Match;
    Ok(match required("match", &message.r#match)? {
        Match::All(seq) => Condition::All(each("all", &seq.matches, condition)?),
        Match::Any(seq) => Condition::Any(each("any", &seq.matches, condition)?),
        Match::Not(not) => Condition::Not(Box::new(condition(not).map_err(|e| e.within("not"))?)),
        Match::Path(path) => {
            let pattern = Pattern::new(path.regex.trim());
            Condition::Path(pattern.map_err(|why| DecodeError::new("path.regex", &*why.0))?)
        }
        Match::Method(m) => Condition::Method(method(m).map_err(|e| e.within("method"))?),
    })
}

fn response_class(class: &destination::ResponseClass) -> Result<ResponseClass, DecodeError> {
    let condition = required("condition", &class.condition)?;
    Ok(ResponseClass {
        condition: response_condition(condition).map_err(|e| e.within("condition"))?,
        class: match class.is_failure {
            true => Class::Failure,
            false => Class::Success,
        },
    })
}

fn response_condition(message: &ResponseMatch) -> Result<ResponseCondition, DecodeError> {
    use response_match::Match;
    Ok(match required("match", &message.r#match)? {
        Match::All(seq) => ResponseCondition::All(each("all", &seq.matches, response_condition)?),
        Match::Any(seq) => ResponseCondition::Any(each("any", &seq.matches, response_condition)?),
        Match::Not(not) => {
            ResponseCondition::Not(Box::new(response_condition(not).map_err(|e| e.within("not"))?))
        }
        Match::Status(range) => {
            let bound = |value: u32, absent: u16| match value {
                0 => Some(absent),
                value => u16::try_from(value).ok().filter(|n| (100..=599).contains(n)),
            };
            match (bound(range.min, 100), bound(range.max, 599)) {
                (Some(min), Some(max)) if min <= max => ResponseCondition::Status(min..=max),
                _ => {
                    let reason = format!("{}–{} is no range of statuses", range.min, range.max);
                    return Err(DecodeError::new("status", reason));
                }
            }
        }
    })
}

fn override_of(dst: &WeightedDst) -> Result<Override, DecodeError> {
    if !is_name_and_port(&dst.authority) {
        let reason = format!("{:?} is not `name:port`", dst.authority);
        return Err(DecodeError::new("authority", reason));
    }
    Ok(Override {
        authority: Arc::from(dst.authority.as_str()),
        weight: dst.weight,
    })
}
