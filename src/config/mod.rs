//! `config.yaml`, environment and flags as one [`Settings`], each value with its [`Origin`].
//!
//! A flag goes before the environment, the environment before the file, the file before the default. Every layer is
//! checked, also where a higher one wins, and all mistakes are reported at once.
//!
//! Invariants: a [`Settings`] that exists is valid; the names of keys, variables and flags are in [`keys`] and nowhere
//! else, and with them [`variables`] has all that are ours; the environment is an argument.
//!
//! Knows nothing of what the settings do.

pub mod dirs;
mod error;
pub mod keys;
mod load;
mod schema;
mod setting;
mod settings;
mod values;
pub mod variables;
mod words;

pub use error::{ConfigError, ConfigMistake, Place};
pub use schema::SCHEMA;
pub use setting::{Origin, Setting};
pub use settings::{
    AggregatorSettings, Described, GatewayPorts, GatewaySettings, Overrides, Settings, TelemetrySettings,
};
pub use values::{ByteSize, GatewayVersion, HostName, InvalidValue, NamePrefix, listen_address};
pub use words::{Exposure, GatewayMode, LogLevel, ManagementTools, OtlpProtocol};
