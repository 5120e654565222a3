//! As much of CEL as it takes to put a rule of somebody else between parentheses and be sure that it stays there.
//!
//! Knows nothing of what rules mean: agentgateway judges that. Source: the lexis in the language definition of CEL, section
//! "Syntax".

/// Whether `rule` closes each bracket that it opens, in order, and no other; in parentheses it is one expression then.
/// A comment must end within it, as it would take the closing parenthesis along.
pub(super) fn is_enclosed(rule: &str) -> bool {
    let mut open = Vec::new();
    let mut rest = rule;
    // The word that stands directly before: `r` or `b` before a quote belong to the literal.
    let mut word = "";
    while let Some(first) = rest.chars().next() {
        if let Some(comment) = rest.strip_prefix("//") {
            let Some((comment, after)) = comment.split_once('\n') else { return false };
            // Whether it ends there is not agreed on.
            if comment.trim_end_matches('\r').contains('\r') {
                return false;
            }
            (rest, word) = (after, "");
            continue;
        }
        let after = &rest[first.len_utf8()..];
        match first {
            '"' | '\'' => {
                let Some(after) = after_literal(rest, first, is_raw(word)) else { return false };
                (rest, word) = (after, "");
                continue;
            }
            '(' => open.push(')'),
            '[' => open.push(']'),
            '{' => open.push('}'),
            ')' | ']' | '}' if open.pop() != Some(first) => return false,
            _ => {}
        }
        let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
        if is_word(first) {
            let length = rest.find(|character| !is_word(character)).unwrap_or(rest.len());
            (word, rest) = rest.split_at(length);
        } else {
            (word, rest) = ("", after);
        }
    }
    open.is_empty()
}

/// Whether a literal after this prefix takes backslashes as they are.
fn is_raw(prefix: &str) -> bool {
    prefix.len() <= 2 && prefix.contains(['r', 'R']) && prefix.chars().all(|letter| "rRbB".contains(letter))
}

/// What follows the literal that `text` begins with; `None` where it does not end.
fn after_literal(text: &str, quote: char, raw: bool) -> Option<&str> {
    let mut buffer = [0; 4];
    let one: &str = quote.encode_utf8(&mut buffer);
    let three = one.repeat(3);
    let (end, mut rest) = match text.strip_prefix(three.as_str()) {
        Some(rest) => (three.as_str(), rest),
        None => (one, text.strip_prefix(one)?),
    };
    loop {
        if let Some(after) = rest.strip_prefix(end) {
            return Some(after);
        }
        let mut characters = rest.chars();
        match characters.next()? {
            '\\' if !raw => drop(characters.next()?),
            '\n' | '\r' if end.len() == 1 => return None,
            _ => {}
        }
        rest = characters.as_str();
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("true")]
    #[case(r#"request.headers["x-team"] == "core" && (a || {"b": [1]}.b)"#)]
    #[case(r#""\")" == ')'"#)]
    #[case(r#"r"\" == "(""#)]
    #[case(r#"bR'\' == ''"#)]
    #[case("'''it's ) \n''' == \"\"\"\")\"\"\"")]
    #[case("a // )\n && b")]
    #[case("a / b // c\n")]
    #[case("")]
    fn what_is_whole_is_taken(#[case] rule: &str) {
        assert!(is_enclosed(rule), "{rule}");
    }

    #[rstest]
    #[case("true)) || ((true")]
    #[case("true) || (true")]
    #[case("(true")]
    #[case("true]")]
    #[case("([)]")]
    #[case("true // ")]
    #[case("a // \r) || (true //\n")]
    #[case("a == 'b")]
    #[case("a == 'b\n'")]
    #[case(r#"a == "\""#)]
    // No raw literal: the quote is escaped, and what looks like its end is not.
    #[case(r#"car"\" ) || ("" "#)]
    #[case("'''it's'")]
    fn what_reaches_out_is_not(#[case] rule: &str) {
        assert!(!is_enclosed(rule), "{rule}");
    }
}
