//! Moments as text, at a fixed offset from UTC.

use chrono::{DateTime, FixedOffset, SecondsFormat, Utc};
use rmcp::schemars::{self, JsonSchema};
use serde::Serialize;

/// A moment in the forms that callers ask for.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Moment {
    /// RFC 3339 with milliseconds, such as `2026-02-03T04:05:06.789+01:00`.
    pub(super) rfc3339: String,
    /// Whole seconds since 1970-01-01T00:00:00Z.
    pub(super) unix_seconds: i64,
    /// The English name of the weekday at that offset.
    pub(super) weekday: String,
    /// The offset from UTC the other fields are in, such as `+01:00`.
    pub(super) utc_offset: String,
}

/// Why a text is no offset from UTC.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("`{0}` is not an offset from UTC: write `Z`, `UTC` or `+hh:mm`, from -23:59 to +23:59")]
pub(super) struct OffsetError(String);

impl Moment {
    /// `moment` as seen at `offset`.
    pub(super) fn at(moment: DateTime<Utc>, offset: FixedOffset) -> Self {
        let local = moment.with_timezone(&offset);
        Self {
            rfc3339: local.to_rfc3339_opts(SecondsFormat::Millis, true),
            unix_seconds: local.timestamp(),
            weekday: local.format("%A").to_string(),
            utc_offset: offset.to_string(),
        }
    }
}

/// Reads `Z`, `UTC` or `±hh:mm`.
pub(super) fn parse_offset(text: &str) -> Result<FixedOffset, OffsetError> {
    let invalid = || OffsetError(text.to_owned());
    if text.eq_ignore_ascii_case("z") || text.eq_ignore_ascii_case("utc") {
        return FixedOffset::east_opt(0).ok_or_else(invalid);
    }
    let &[sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] = text.as_bytes() else {
        return Err(invalid());
    };
    let two_digits = |tens: u8, ones: u8| {
        (tens.is_ascii_digit() && ones.is_ascii_digit())
            .then(|| i32::from(tens - b'0') * 10 + i32::from(ones - b'0'))
    };
    let (Some(hours @ 0..=23), Some(minutes @ 0..=59)) = (two_digits(h1, h2), two_digits(m1, m2)) else {
        return Err(invalid());
    };
    let seconds = (hours * 60 + minutes) * 60;
    FixedOffset::east_opt(if sign == b'-' { -seconds } else { seconds }).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("Z", "2026-02-03T23:30:00.250Z", "Tuesday", "+00:00")]
    #[case("utc", "2026-02-03T23:30:00.250Z", "Tuesday", "+00:00")]
    #[case("+05:45", "2026-02-04T05:15:00.250+05:45", "Wednesday", "+05:45")]
    #[case("-08:00", "2026-02-03T15:30:00.250-08:00", "Tuesday", "-08:00")]
    fn a_moment_at_an_offset(
        #[case] offset: &str,
        #[case] rfc3339: &str,
        #[case] weekday: &str,
        #[case] utc_offset: &str,
    ) {
        let moment = DateTime::from_timestamp_millis(1_770_161_400_250).unwrap();
        let expected = Moment {
            rfc3339: rfc3339.to_owned(),
            unix_seconds: 1_770_161_400,
            weekday: weekday.to_owned(),
            utc_offset: utc_offset.to_owned(),
        };
        assert_eq!(Moment::at(moment, parse_offset(offset).unwrap()), expected);
    }

    #[rstest]
    fn not_an_offset(
        #[values("", "+1:00", "+24:00", "+01:60", "01:00", "+01-00", "Europe/Paris", "+0a:00", "+01:00 ")]
        text: &str,
    ) {
        assert_eq!(parse_offset(text), Err(OffsetError(text.to_owned())));
    }
}
