//! The tools and their schemas.

use chrono::Utc;
use rmcp::handler::server::wrapper::{Json, Parameters};
use rmcp::model::{Implementation, ServerCapabilities, ServerConfig};
use rmcp::schemars::{self, JsonSchema};
use rmcp::{ServerHandler, tool, tool_handler, tool_router};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};
use uuid::Uuid;

use super::arithmetic;
use super::clock::{self, Moment};
use super::text::TextStats;

/// Most UUIDs that one call returns.
const MAX_UUIDS: u32 = 100;

#[derive(Debug, Clone, Copy)]
pub(super) struct ExampleServer;

impl ExampleServer {
    pub(super) fn new() -> Self {
        Self
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NowArguments {
    /// Offset from UTC: `Z`, `UTC` or `+hh:mm`. UTC when absent.
    utc_offset: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CalculateArguments {
    /// Numbers, `+ - * / % ^` and parentheses, such as `(1 + 2) * 3 ^ 2`.
    expression: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Calculated {
    /// The expression's value.
    value: f64,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum HashAlgorithm {
    #[default]
    Sha256,
    Sha512,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HashArguments {
    /// The text; its UTF-8 bytes are hashed.
    text: String,
    /// `sha256` when absent.
    #[serde(default)]
    algorithm: HashAlgorithm,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Hashed {
    algorithm: HashAlgorithm,
    /// The digest in lower-case hexadecimal.
    hex: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UuidArguments {
    /// How many; 1 when absent.
    #[schemars(range(min = 1, max = 100))]
    count: Option<u32>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Uuids {
    /// Version 4 UUIDs.
    uuids: Vec<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RandomNumberArguments {
    /// Smallest possible result; 1 when absent.
    min: Option<i64>,
    /// Largest possible result; 100 when absent.
    max: Option<i64>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct RandomNumber {
    /// A whole number from `min` to `max`, both included.
    value: i64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TextStatsArguments {
    /// The text to count in.
    text: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FormatJsonArguments {
    /// A JSON document.
    json: String,
    /// Print on one line without spaces instead of indented; false when absent.
    #[serde(default)]
    compact: bool,
}

#[tool_router]
impl ExampleServer {
    /// Tell the current date and time, in UTC or at a fixed offset from it.
    #[tool(annotations(title = "Current time", read_only_hint = true, open_world_hint = false))]
    fn now(&self, Parameters(arguments): Parameters<NowArguments>) -> Result<Json<Moment>, String> {
        let offset = clock::parse_offset(arguments.utc_offset.as_deref().unwrap_or("UTC"))
            .map_err(|error| error.to_string())?;
        Ok(Json(Moment::at(Utc::now(), offset)))
    }

    /// Work out an arithmetic expression in double precision: + - * / % ^, parentheses, decimals and exponents.
    #[tool(annotations(
        title = "Calculator",
        read_only_hint = true,
        idempotent_hint = true,
        open_world_hint = false
    ))]
    fn calculate(
        &self,
        Parameters(arguments): Parameters<CalculateArguments>,
    ) -> Result<Json<Calculated>, String> {
        let value = arithmetic::evaluate(&arguments.expression).map_err(|error| error.to_string())?;
        Ok(Json(Calculated { value }))
    }

    /// Compute the SHA-256 or SHA-512 digest of a text.
    #[tool(annotations(
        title = "Hash a text",
        read_only_hint = true,
        idempotent_hint = true,
        open_world_hint = false
    ))]
    fn hash(&self, Parameters(arguments): Parameters<HashArguments>) -> Json<Hashed> {
        let hex = match arguments.algorithm {
            HashAlgorithm::Sha256 => hex::encode(Sha256::digest(&arguments.text)),
            HashAlgorithm::Sha512 => hex::encode(Sha512::digest(&arguments.text)),
        };
        Json(Hashed { algorithm: arguments.algorithm, hex })
    }

    /// Make random (version 4) UUIDs.
    #[tool(annotations(title = "Random UUIDs", read_only_hint = true, open_world_hint = false))]
    fn uuid(&self, Parameters(arguments): Parameters<UuidArguments>) -> Result<Json<Uuids>, String> {
        let count = arguments.count.unwrap_or(1);
        if !(1..=MAX_UUIDS).contains(&count) {
            return Err(format!("count is {count}: ask for 1 to {MAX_UUIDS}"));
        }
        Ok(Json(Uuids { uuids: (0..count).map(|_| Uuid::new_v4().to_string()).collect() }))
    }

    /// Draw a whole number at random from a range, each equally likely.
    #[tool(annotations(title = "Random number", read_only_hint = true, open_world_hint = false))]
    fn random_number(
        &self,
        Parameters(arguments): Parameters<RandomNumberArguments>,
    ) -> Result<Json<RandomNumber>, String> {
        let (min, max) = (arguments.min.unwrap_or(1), arguments.max.unwrap_or(100));
        if min > max {
            return Err(format!("min ({min}) is larger than max ({max})"));
        }
        let value = uniform(min, max).map_err(|error| format!("no randomness from the system: {error}"))?;
        Ok(Json(RandomNumber { value }))
    }

    /// Count the bytes, characters, words and lines of a text.
    #[tool(annotations(
        title = "Text statistics",
        read_only_hint = true,
        idempotent_hint = true,
        open_world_hint = false
    ))]
    fn text_stats(&self, Parameters(arguments): Parameters<TextStatsArguments>) -> Json<TextStats> {
        Json(TextStats::of(&arguments.text))
    }

    /// Check a JSON document and print it indented or compact; the order of keys is kept.
    #[tool(annotations(
        title = "Format JSON",
        read_only_hint = true,
        idempotent_hint = true,
        open_world_hint = false
    ))]
    fn format_json(&self, Parameters(arguments): Parameters<FormatJsonArguments>) -> Result<String, String> {
        let document: serde_json::Value =
            serde_json::from_str(&arguments.json).map_err(|error| format!("not JSON: {error}"))?;
        let printed = if arguments.compact {
            serde_json::to_string(&document)
        } else {
            serde_json::to_string_pretty(&document)
        };
        printed.map_err(|error| error.to_string())
    }
}

/// A number from `min` to `max` inclusive, drawn without bias; `min <= max`.
fn uniform(min: i64, max: i64) -> Result<i64, getrandom::Error> {
    let span = max.abs_diff(min);
    let Some(buckets) = span.checked_add(1) else {
        return Ok(getrandom::u64()?.cast_signed());
    };
    // The draws above the last whole multiple of `buckets` are drawn again: kept, they would favour small results.
    let limit = u64::MAX - u64::MAX % buckets;
    loop {
        let draw = getrandom::u64()?;
        if draw < limit {
            return Ok(min.wrapping_add_unsigned(draw % buckets));
        }
    }
}

#[tool_handler]
impl ServerHandler for ExampleServer {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(
                Implementation::new("sidegate-example", env!("CARGO_PKG_VERSION"))
                    .with_title("Sidegate example server"),
            )
            .with_instructions("Small tools that need no network and change nothing.")
    }
}
