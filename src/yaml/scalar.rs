//! What a plain scalar means.

/// The meaning of a scalar by the core schema, YAML 1.2.2 section 10.3.2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Resolved {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text,
}

/// Resolves a plain (unquoted) scalar.
///
/// Integers that do not fit `i128` become floats, as JSON readers do.
pub(super) fn resolve(text: &str) -> Resolved {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Resolved::Null,
        "true" | "True" | "TRUE" => return Resolved::Bool(true),
        "false" | "False" | "FALSE" => return Resolved::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Resolved::Float(f64::NAN),
        _ => {}
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Resolved::Float(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY });
    }
    if !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit()) {
        if let Ok(integer) = text.parse() {
            return Resolved::Integer(integer);
        }
    } else if !is_float(unsigned) {
        return Resolved::Text;
    }
    text.parse().map_or(Resolved::Text, Resolved::Float)
}

fn radix(digits: &str, radix: u32) -> Resolved {
    // `from_str_radix` takes a sign, the schema does not.
    if digits.starts_with(['-', '+']) {
        return Resolved::Text;
    }
    i128::from_str_radix(digits, radix).map_or(Resolved::Text, Resolved::Integer)
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(unsigned: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let exponent_is_right = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    let mantissa_is_right = match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && digits(fraction),
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    exponent_is_right && mantissa_is_right
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("~", Resolved::Null)]
    #[case("", Resolved::Null)]
    #[case("True", Resolved::Bool(true))]
    #[case("no", Resolved::Text)]
    #[case("on", Resolved::Text)]
    #[case("tRue", Resolved::Text)]
    #[case("30", Resolved::Integer(30))]
    #[case("+30", Resolved::Integer(30))]
    #[case("-30", Resolved::Integer(-30))]
    #[case("007", Resolved::Integer(7))]
    #[case("0o17", Resolved::Integer(15))]
    #[case("0x1F", Resolved::Integer(31))]
    #[case("0x-1", Resolved::Text)]
    #[case("0x", Resolved::Text)]
    #[case("1_000", Resolved::Text)]
    #[case("1.5", Resolved::Float(1.5))]
    #[case("1.", Resolved::Float(1.0))]
    #[case(".5", Resolved::Float(0.5))]
    #[case(".", Resolved::Text)]
    #[case("-", Resolved::Text)]
    #[case("1e3", Resolved::Float(1000.0))]
    #[case("1e", Resolved::Text)]
    #[case("1.2.1", Resolved::Text)]
    #[case("12:30:45", Resolved::Text)]
    #[case("2026-01-01", Resolved::Text)]
    #[case("-.inf", Resolved::Float(f64::NEG_INFINITY))]
    #[case("inf", Resolved::Text)]
    #[case("nan", Resolved::Text)]
    #[case("10000000000000000000000000000000000000000", Resolved::Float(1e40))]
    fn scalars_follow_the_core_schema(#[case] text: &str, #[case] expected: Resolved) {
        assert_eq!(resolve(text), expected);
    }
}
