//! `sidegate doctor`: looks at everything that an instance needs, and says what to do about what is wrong.
//!
//! Nothing is changed, started or downloaded, and no secret is shown. One file a subject; each gives [`Finding`]s.

mod environment;
mod files;
mod gateway;
mod remote;
mod running;
mod servers;

use std::fmt;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;
use sidegate::environment::Environment;
use sidegate::mcpserver::Secret;
use sidegate::telemetry::secrets::Secrets;

use super::instance::InstanceArguments;
use super::output::say;
use super::table::pairs;
use super::waiting::patiently;
use super::words::count;
use super::{Exit, Failure, OutputFormat};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidegate doctor
  sidegate doctor --output json

The options are those of `sidegate serve`: what is checked is an instance that
is started with them, and one that runs.

Exit codes: 0 no problem, though there may be warnings, 1 there is one.")]
pub(super) struct DoctorArguments {
    #[command(flatten)]
    instance: InstanceArguments,
    /// How to print what was found
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warning,
    Problem,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        })
    }
}

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Finding {
    level: Level,
    /// What was looked at: `config`, `server time`.
    subject: String,
    /// What it is like.
    message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn ok(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { level: Level::Ok, subject: subject.into(), message: message.into(), advice: None }
    }

    fn warning(subject: impl Into<String>, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Warning, advice: Some(advice.into()), ..Self::ok(subject, message) }
    }

    fn problem(subject: impl Into<String>, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Problem, advice: Some(advice.into()), ..Self::ok(subject, message) }
    }

    /// The finding as it may be shown: servers say what they like.
    fn without(self, secrets: &Secrets) -> Self {
        let shown = |text: String| secrets.redact(&text).into_owned();
        Self { message: shown(self.message), advice: self.advice.map(shown), ..self }
    }

    /// A problem whose message says itself what to do.
    fn explained(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { level: Level::Problem, ..Self::ok(subject, message) }
    }
}

pub(super) fn run(arguments: &DoctorArguments, environment: &Environment) -> Result<ExitCode, Failure> {
    let waiting = async || "waiting for what servers answer".to_owned();
    let findings = super::runtime()?.block_on(patiently(examine(arguments, environment), waiting))?;
    let number = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (problems, warnings) = (number(Level::Problem), number(Level::Warning));
    match arguments.output {
        OutputFormat::Json => {
            let report =
                json!({"schema": 1, "problems": problems, "warnings": warnings, "findings": findings});
            say(&report.to_string())?;
        }
        OutputFormat::Text => {
            say(&text(&findings))?;
            say(&format!("\n{}, {}", count(problems, "problem"), count(warnings, "warning")))?;
        }
    }
    if problems == 0 { Ok(ExitCode::SUCCESS) } else { Err(Failure::silent(Exit::Failed)) }
}

fn text(findings: &[Finding]) -> String {
    let levels: Vec<String> = findings.iter().map(|finding| finding.level.to_string()).collect();
    pairs(levels.iter().zip(findings).map(|(level, finding)| {
        let mut text = format!("{}: {}", finding.subject, finding.message);
        if let Some(advice) = &finding.advice {
            text.push_str(&format!("\nhint: {advice}"));
        }
        (level.as_str(), text)
    }))
}

async fn examine(arguments: &DoctorArguments, environment: &Environment) -> Result<Vec<Finding>, Failure> {
    let config_dir = arguments.instance.config_dir(environment)?;
    let mut findings = files::home(environment);
    findings.extend(files::config_dir(&config_dir));
    let settings = match arguments.instance.settings(false, environment) {
        Ok(settings) => Some(settings),
        Err(failure) => {
            findings.extend(failure.message.lines().map(|mistake| Finding::explained("settings", mistake)));
            None
        }
    };
    if let Some(settings) = &settings {
        findings.extend(files::settings(settings, &config_dir));
        findings.push(files::runtime_dir(&settings.runtime_dir.value));
        let running = running::instance(&settings.runtime_dir.value).await?;
        findings.extend(running.findings);
        findings.extend(running::ports(settings, running.status.as_ref()));
        findings.extend(running::others(&settings.runtime_dir.value).await);
        findings.extend(gateway::binary(settings, arguments.instance.offline(), environment).await);
    }
    findings.extend(environment::misspelt(environment));
    let definitions = servers::definitions(&config_dir, environment)?;
    findings.extend(definitions.findings);
    findings.extend(servers::commands(&definitions.valid, environment));
    findings.extend(remote::reachable(&definitions.valid).await);
    findings.extend(environment::passed_on(&definitions.valid, environment));
    let secrets = Secrets::default();
    secrets.learn(definitions.secrets.iter().map(Secret::expose));
    Ok(findings.into_iter().map(|finding| finding.without(&secrets)).collect())
}
