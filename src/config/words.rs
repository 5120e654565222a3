//! Settings that are one of a few words.

use std::fmt;
use std::str::FromStr;

use super::values::{Configured, InvalidValue};
use crate::yaml::{Value, shown};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// Every value with its word.
            pub const ALL: &[(&str, Self)] = &[$(($word, Self::$variant)),*];

            /// The word for it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;

            fn from_str(text: &str) -> Result<Self, InvalidValue> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(InvalidValue::new(
                        format!("unknown value {}", shown(text)),
                        format!("write one of {}", [$($word),*].join(", ")),
                    )),
                }
            }
        }

        impl Configured for $name {
            fn from_text(text: &str) -> Result<Self, InvalidValue> {
                text.parse()
            }

            fn from_yaml(value: &Value<'_>) -> Option<Self> {
                value.one_of(Self::ALL)
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    };
}

words! {
    /// Which gateway carries the calls.
    GatewayMode {
        /// agentgateway if given or cached; otherwise the embedded gateway until agentgateway is fetched.
        Auto = "auto",
        /// agentgateway, waiting for its download.
        Agentgateway = "agentgateway",
        /// The embedded gateway.
        Embedded = "embedded",
        /// One that runs elsewhere, at `upstreamUrl`.
        External = "external",
    }
}

words! {
    /// How the aggregate's tools are offered to clients that do not say how they want them.
    Exposure {
        /// Every tool is listed.
        Direct = "direct",
        /// A few tools find and call the others.
        Meta = "meta",
    }
}

words! {
    /// Which of our own tools are offered.
    ManagementTools {
        /// Those that only look.
        Read = "read",
        /// And those that start and stop servers.
        Lifecycle = "lifecycle",
        /// And those that write definitions, which are command lines.
        Full = "full",
        /// None.
        Off = "off",
    }
}

words! {
    /// How OTLP is sent.
    OtlpProtocol {
        /// gRPC.
        Grpc = "grpc",
        /// Protobuf over HTTP.
        HttpProtobuf = "http/protobuf",
    }
}

words! {
    /// How much the gateway logs.
    LogLevel {
        /// Errors.
        Error = "error",
        /// And warnings.
        Warn = "warn",
        /// And what happens.
        Info = "info",
        /// And how.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}
