//! Finds the routes that a gateway would refuse, before it sees them.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::Map;

use super::plan::{GatewaySettings, Plan, RoutePlan};
use super::render::{RenderError, Rendered};
use super::route_name::RouteName;

/// Says whether a gateway would take a configuration; for agentgateway a run of `--validate-only`.
pub trait Validator: Send + Sync + 'static {
    /// Judges one candidate. The future is dropped when the answer is no longer wanted, so a process behind it must end then.
    fn validate<'a>(
        &'a self,
        candidate: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<(), ValidateError>> + Send + 'a>>;
}

/// Why a candidate did not pass.
#[derive(Debug, thiserror::Error)]
pub enum ValidateError {
    /// The gateway refuses it, in its own words.
    #[error("the gateway refuses the configuration: {reason}")]
    Refused {
        /// The gateway's own words.
        reason: String,
    },
    /// The gateway refuses the operator's `frontendPolicies`, in its own words.
    #[error("the gateway refuses frontendPolicies: {reason}")]
    FrontendPolicies {
        /// The gateway's own words.
        reason: String,
    },
    /// It could not be asked.
    #[error("the gateway cannot be asked whether it takes the configuration")]
    Unavailable(#[source] io::Error),
}

/// The largest part of a plan that passes, and what was left out.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) rendered: Rendered,
    pub(super) refused: BTreeMap<RouteName, String>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum AcceptError {
    #[error(transparent)]
    Render(#[from] RenderError),
    #[error(transparent)]
    Validate(#[from] ValidateError),
}

/// Routes that were refused before. They are not asked about again until they change, as agentgateway names only the first of
/// several bad routes and finding the culprits takes a run for each halving.
#[derive(Debug, Default)]
pub(super) struct KnownBad(BTreeMap<RouteName, (RoutePlan, String)>);

impl KnownBad {
    fn note(&mut self, plan: &mut Plan, name: RouteName, reason: String) {
        if let Some(route) = plan.routes.remove(&name) {
            self.0.insert(name, (route, reason));
        }
    }
}

/// Renders `plan` and has it judged. Routes that are refused are left out, and the others go ahead without them.
pub(super) async fn accept(
    mut plan: Plan,
    validator: Option<&dyn Validator>,
    known: &mut KnownBad,
) -> Result<Accepted, AcceptError> {
    known.0.retain(|name, (route, _)| plan.routes.get(name) == Some(route));
    plan.routes.retain(|name, _| !known.0.contains_key(name));
    let rendered = loop {
        match plan.render() {
            Ok(rendered) => break rendered,
            Err(RenderError::Policy { route, source }) => known.note(&mut plan, route, source.to_string()),
            Err(error) => return Err(error.into()),
        }
    };
    let Some(validator) = validator else { return Ok(accepted(rendered, known)) };
    match validator.validate(&rendered.text).await {
        Ok(()) => return Ok(accepted(rendered, known)),
        Err(ValidateError::Refused { .. }) if !plan.routes.is_empty() => {}
        Err(error) => return Err(blame_settings(&plan, error, validator).await),
    }
    // Without any route it must pass, or the fault is not a server's.
    let without = |plan: &Plan| Plan { routes: BTreeMap::new(), ..plan.clone() };
    if let Err(error) = validator.validate(&without(&plan).render()?.text).await {
        return Err(blame_settings(&without(&plan), error, validator).await);
    }
    let mut groups = vec![plan.routes.keys().cloned().collect::<Vec<_>>()];
    while let Some(mut group) = groups.pop() {
        let mut part = without(&plan);
        part.routes
            .extend(group.iter().filter_map(|name| Some((name.clone(), plan.routes.get(name)?.clone()))));
        match validator.validate(&part.render()?.text).await {
            Ok(()) => {}
            Err(ValidateError::Refused { reason }) => {
                let half = group.split_off(group.len() / 2);
                match (group.is_empty(), half.as_slice()) {
                    (true, [culprit]) => known.note(&mut plan, culprit.clone(), of_the_route(&reason)),
                    _ => groups.extend([group, half]),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    let rendered = plan.render()?;
    validator.validate(&rendered.text).await?;
    Ok(accepted(rendered, known))
}

/// Names the part of the settings that is at fault for `error`, which `plan` was refused with.
async fn blame_settings(plan: &Plan, error: ValidateError, validator: &dyn Validator) -> AcceptError {
    let ValidateError::Refused { reason } = error else { return error.into() };
    if !plan.settings.frontend_policies.is_empty() {
        let mut settings = GatewaySettings::clone(&plan.settings);
        settings.frontend_policies = Map::new();
        let without = Plan { settings: Arc::new(settings), ..plan.clone() };
        let passes = match without.render() {
            Ok(rendered) => validator.validate(&rendered.text).await.is_ok(),
            Err(_) => false,
        };
        if passes {
            return ValidateError::FrontendPolicies { reason }.into();
        }
    }
    ValidateError::Refused { reason }.into()
}

/// The gateway's words without the places that only the rendered file has: the path down to the route, and line and
/// column of a text that agentgateway makes for itself.
fn of_the_route(reason: &str) -> String {
    let reason = reason.strip_prefix("Error: ").unwrap_or(reason);
    let inner = reason.strip_prefix("binds[0].listeners[0].routes[").and_then(|rest| rest.split_once("]."));
    let reason = inner.map_or(reason, |(_, inner)| inner);
    match reason.rsplit_once(" at line 1 column ") {
        Some((reason, column)) if column.bytes().all(|byte| byte.is_ascii_digit()) => reason.to_owned(),
        _ => reason.to_owned(),
    }
}

fn accepted(rendered: Rendered, known: &KnownBad) -> Accepted {
    let refused = known.0.iter().map(|(name, (_, reason))| (name.clone(), reason.clone())).collect();
    Accepted { rendered, refused }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::yaml_applier::render::tests::{plan_of, route_to};

    /// Refuses every candidate that holds one of the words, and names only the first, as agentgateway does.
    struct Picky(&'static [&'static str], AtomicUsize);

    impl Validator for Picky {
        fn validate<'a>(
            &'a self,
            candidate: &'a str,
        ) -> Pin<Box<dyn Future<Output = Result<(), ValidateError>> + Send + 'a>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            let found = self.0.iter().find(|word| candidate.contains(**word));
            let verdict =
                found.map_or(Ok(()), |word| Err(ValidateError::Refused { reason: format!("no {word}") }));
            Box::pin(async move { verdict })
        }
    }

    fn names(refused: &BTreeMap<RouteName, String>) -> Vec<(&str, &str)> {
        refused.iter().map(|(name, reason)| (name.server().as_str(), reason.as_str())).collect()
    }

    #[tokio::test]
    async fn the_culprits_are_left_out_and_remembered_until_they_change() {
        let mut plan = plan_of((0..20).map(|n| (format!("s{n}"), route_to(&format!("host{n}.test")))));
        let picky = Picky(&["host7.test", "host12.test"], AtomicUsize::new(0));
        let mut known = KnownBad::default();
        let accepted = accept(plan.clone(), Some(&picky), &mut known).await.unwrap();
        assert_eq!(names(&accepted.refused), [("s12", "no host12.test"), ("s7", "no host7.test")]);
        assert_eq!(accepted.rendered.text.matches("pathPrefix").count(), 18);

        picky.1.store(0, Ordering::Relaxed);
        let again = accept(plan.clone(), Some(&picky), &mut known).await.unwrap();
        assert_eq!(again.rendered, accepted.rendered);
        assert_eq!(picky.1.load(Ordering::Relaxed), 1);

        plan.routes
            .insert("s7".parse::<crate::mcpserver::ServerName>().unwrap().into(), route_to("better.test"));
        let mended = accept(plan, Some(&picky), &mut known).await.unwrap();
        assert_eq!(names(&mended.refused), [("s12", "no host12.test")]);
    }

    #[test]
    fn places_in_the_rendered_file_mean_nothing_to_users() {
        let said = "Error: binds[0].listeners[0].routes[12].policies.brew: unknown field `brew` at line 1 column 1142";
        assert_eq!(of_the_route(said), "policies.brew: unknown field `brew`");
        for other in ["no host7.test", "something at line 1 column x", "binds[0].listeners[0]: unknown"] {
            assert_eq!(of_the_route(other), other);
        }
    }

    #[tokio::test]
    async fn a_fault_that_is_no_servers_is_an_error() {
        let plan = plan_of([("a".to_owned(), route_to("a.test"))]);
        let picky = Picky(&["adminAddr"], AtomicUsize::new(0));
        let error = accept(plan, Some(&picky), &mut KnownBad::default()).await.unwrap_err();
        assert_eq!(error.to_string(), "the gateway refuses the configuration: no adminAddr");
    }

    #[tokio::test]
    async fn policies_for_all_servers_are_named_when_they_are_at_fault() {
        let with_policies = |mut plan: Plan| {
            let mut settings = GatewaySettings::clone(&plan.settings);
            settings.frontend_policies.insert("brew".to_owned(), "tea".into());
            plan.settings = Arc::new(settings);
            plan
        };
        for routes in [vec![], vec![("a".to_owned(), route_to("a.test"))]] {
            let refused = async |words: &'static [&'static str]| {
                let picky = Picky(words, AtomicUsize::new(0));
                let plan = with_policies(plan_of(routes.clone()));
                accept(plan, Some(&picky), &mut KnownBad::default()).await.unwrap_err().to_string()
            };
            assert_eq!(refused(&["brew"]).await, "the gateway refuses frontendPolicies: no brew");
            let both = refused(&["adminAddr", "brew"]).await;
            assert_eq!(both, "the gateway refuses the configuration: no adminAddr");
        }
    }
}
