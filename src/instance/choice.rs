//! Which gateway is to run, and what cannot be done at all.

use std::path::Path;

use tracing::warn;

use super::StartError;
use super::gateway_child::Program;
use crate::binary_resolver::{InvalidVersion, Progress, Releases, Request, Resolver, Verified, Version};
use crate::config::{GatewayMode, Settings, dirs};
use crate::environment::Environment;
use crate::error::chain;

/// Which gateway is to run, and why.
pub(super) struct Choice {
    pub(super) program: Program,
    pub(super) reason: String,
    /// What is to be fetched meanwhile, to take its place.
    pub(super) fetch: Option<(Resolver, Version)>,
}

/// Decides by mode, given binary and cache. Waits for a download only where agentgateway was asked for.
pub(super) async fn choose(
    settings: &Settings,
    environment: &Environment,
    helper: Option<&Path>,
    network: Network,
    progress: &dyn Progress,
) -> Result<Choice, StartError> {
    let embedded = |reason: String, fetch| {
        if !settings.gateway.frontend_policies.value.is_empty() {
            return Err(StartError::FrontendPolicies { reason });
        }
        Ok(Choice { program: Program::Embedded(helper.map(Path::to_owned)), reason, fetch })
    };
    let mode = settings.gateway_mode();
    if mode == GatewayMode::Embedded {
        if let Some(binary) = &settings.gateway.binary.value {
            warn!("gateway.binary ({}) is not used: gateway.mode is embedded", binary.display());
        }
        return embedded("as it was asked for".to_owned(), None);
    }
    let (resolver, version) = resolver(settings, environment)?;
    let binary = settings.gateway.binary.value.clone();
    let given = binary.is_some();
    let verified = if given || mode == GatewayMode::Agentgateway {
        let offline = network == Network::Never;
        resolver.resolve(&Request { binary, version, offline }, progress).await?
    } else {
        match resolver.cached(version, progress).await {
            Ok(Some(verified)) => verified,
            Ok(None) if network == Network::InBackground => {
                return embedded("while agentgateway is fetched".to_owned(), Some((resolver, version)));
            }
            Ok(None) => {
                return embedded(
                    "as agentgateway is not in the cache: `sidegate gateway fetch`".to_owned(),
                    None,
                );
            }
            // No release for this platform, say: what runs everywhere is what `auto` means then.
            Err(error) => {
                return embedded(format!("as agentgateway cannot be used: {}", chain(&error)), None);
            }
        }
    };
    warn_of(&verified);
    let reason = if given { "as its binary was given" } else { "from the cache" };
    Ok(Choice { program: Program::Agentgateway(verified), reason: reason.to_owned(), fetch: None })
}

/// The agentgateway at `binary`.
pub(super) async fn given(
    settings: &Settings,
    environment: &Environment,
    binary: &Path,
) -> Result<Program, StartError> {
    let (resolver, version) = resolver(settings, environment)?;
    let verified = resolver.given(binary, version).await?;
    warn_of(&verified);
    Ok(Program::Agentgateway(verified))
}

fn resolver(settings: &Settings, environment: &Environment) -> Result<(Resolver, Version), StartError> {
    let releases = match &settings.gateway.mirror.value {
        Some(mirror) => Releases::from_mirror(mirror.as_str())?,
        None => Releases::official()?,
    };
    let version = settings.gateway.version.value.as_str();
    let version = version.parse().map_err(|error: InvalidVersion| StartError::Internal(error.to_string()))?;
    let cache = dirs::cache_dir(environment).map_err(|error| StartError::Internal(chain(&error)))?;
    Ok((Resolver::new(releases, cache), version))
}

fn warn_of(verified: &Verified) {
    if let Some(warning) = verified.warning() {
        warn!("{warning}");
    }
}

/// When agentgateway may be downloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Never.
    Never,
    /// When it is asked for, and waited for.
    WhenAsked,
    /// And without being asked, while the embedded gateway serves.
    InBackground,
}
