//! Which gateway an instance would start with.

use sidegate::binary_resolver::{Platform, Releases, ResolveError, Resolver, Version};
use sidegate::config::{GatewayMode, Settings, dirs};
use sidegate::environment::Environment;

use super::Finding;

const SUBJECT: &str = "gateway binary";

/// The gateway that the settings lead to.
pub(super) async fn binary(settings: &Settings, offline: bool, environment: &Environment) -> Option<Finding> {
    let mode = settings.gateway_mode();
    match mode {
        GatewayMode::Embedded => return Some(Finding::ok(SUBJECT, "the embedded gateway needs none")),
        GatewayMode::External => return Some(Finding::ok(SUBJECT, "the gateway runs elsewhere")),
        GatewayMode::Auto | GatewayMode::Agentgateway => {}
    }
    Some(match examine(settings, mode, offline, environment).await {
        Ok(finding) => finding,
        Err(error) => {
            let hint = error.hint().unwrap_or("use --gateway embedded");
            let why = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Finding::problem(SUBJECT, format!("{error}{why}"), hint)
        }
    })
}

async fn examine(
    settings: &Settings,
    mode: GatewayMode,
    offline: bool,
    environment: &Environment,
) -> Result<Finding, ResolveError> {
    let releases = match &settings.gateway.mirror.value {
        Some(mirror) => Releases::from_mirror(mirror.as_str())?,
        None => Releases::official()?,
    };
    let version = settings.gateway.version.value.as_str();
    let Ok(version) = version.parse::<Version>() else {
        let message = format!("there is no pinned agentgateway {version}");
        return Ok(Finding::problem(SUBJECT, message, "choose one of `sidegate gateway pins`"));
    };
    let cache = match dirs::cache_dir(environment) {
        Ok(cache) => cache,
        Err(error) => return Ok(Finding::problem(SUBJECT, error.to_string(), "set HOME")),
    };
    let resolver = Resolver::new(releases, cache);
    if let Some(binary) = &settings.gateway.binary.value {
        let verified = resolver.given(binary, version).await?;
        let path = verified.path().display();
        return Ok(match verified.warning() {
            Some(warning) => {
                Finding::warning(SUBJECT, warning.to_string(), format!("give agentgateway {version}"))
            }
            None => Finding::ok(SUBJECT, format!("{path} is agentgateway {version}")),
        });
    }
    match resolver.verify(version).await {
        Ok(verified) => {
            let path = verified.path().display();
            Ok(Finding::ok(
                SUBJECT,
                format!("agentgateway {version} is in the cache, as it is pinned: {path}"),
            ))
        }
        Err(ResolveError::NotCached { .. }) => Ok(not_cached(mode, offline, version)),
        // What everybody's machine can do is what `auto` means then.
        Err(error @ (ResolveError::NotPinned { .. } | ResolveError::UnsupportedPlatform { .. }))
            if mode == GatewayMode::Auto =>
        {
            Ok(Finding::ok(SUBJECT, format!("the embedded gateway is used: {error}")))
        }
        Err(error) => Err(error),
    }
}

fn not_cached(mode: GatewayMode, offline: bool, version: Version) -> Finding {
    let platform = Platform::current().map(|platform| format!(" for {platform}")).unwrap_or_default();
    let missing = format!("agentgateway {version} is not in the cache; its digest{platform} is pinned");
    match (mode, offline) {
        (GatewayMode::Auto, true) => Finding::ok(SUBJECT, format!("{missing}; the embedded gateway is used")),
        (GatewayMode::Auto, false) => {
            Finding::ok(SUBJECT, format!("{missing}; the embedded gateway is used until it has been fetched"))
        }
        (_, true) => Finding::problem(SUBJECT, missing, "fetch it with a network: `sidegate gateway fetch`"),
        (_, false) => Finding::warning(
            SUBJECT,
            format!("{missing}, so `sidegate serve` fetches it first"),
            "fetch it now: `sidegate gateway fetch`",
        ),
    }
}
