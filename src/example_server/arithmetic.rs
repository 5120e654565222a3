//! Arithmetic expressions: a recursive-descent evaluator over `f64`.
//!
//! ```text
//! sum     = product (("+" | "-") product)*
//! product = unary (("*" | "/" | "%") unary)*
//! unary   = ("-" | "+") unary | power
//! power   = atom ("^" unary)?          right-associative; binds tighter than the sign before it: -2^2 is -4
//! atom    = number | "(" sum ")"
//! ```

/// Deepest nesting of parentheses, signs and powers: bounds the recursion whatever a caller sends.
const MAX_DEPTH: usize = 64;

/// Longest expression in bytes.
const MAX_LENGTH: usize = 4096;

/// Why an expression has no value. Positions count characters from 1.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum ArithmeticError {
    #[error("the expression is longer than {MAX_LENGTH} bytes")]
    TooLong,
    #[error("the expression is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("the expression ends where a number or `(` is expected")]
    UnexpectedEnd,
    #[error("unexpected `{found}` at character {position}: expected {expected}")]
    Unexpected { found: char, position: usize, expected: &'static str },
    #[error("the parenthesis at character {position} is never closed")]
    Unclosed { position: usize },
    #[error("`{text}` at character {position} is not a number")]
    BadNumber { text: String, position: usize },
    #[error("division by zero")]
    DivisionByZero,
    #[error("the result is not a finite number")]
    NotFinite,
}

/// Evaluates `expression`; every intermediate value that matters is finite, or the whole is an error.
pub(super) fn evaluate(expression: &str) -> Result<f64, ArithmeticError> {
    if expression.len() > MAX_LENGTH {
        return Err(ArithmeticError::TooLong);
    }
    let mut parser = Parser { characters: expression.chars().collect(), next: 0, depth: 0 };
    let value = parser.sum()?;
    if let Some(found) = parser.peek() {
        let position = parser.next + 1;
        return Err(ArithmeticError::Unexpected { found, position, expected: "an operator or the end" });
    }
    if value.is_finite() { Ok(value) } else { Err(ArithmeticError::NotFinite) }
}

struct Parser {
    characters: Vec<char>,
    next: usize,
    depth: usize,
}

impl Parser {
    /// The next character that is not white space; skips what is.
    fn peek(&mut self) -> Option<char> {
        while self.characters.get(self.next).is_some_and(|c| c.is_whitespace()) {
            self.next += 1;
        }
        self.characters.get(self.next).copied()
    }

    fn sum(&mut self) -> Result<f64, ArithmeticError> {
        let mut value = self.product()?;
        while let Some(operator @ ('+' | '-')) = self.peek() {
            self.next += 1;
            let right = self.product()?;
            value = if operator == '+' { value + right } else { value - right };
        }
        Ok(value)
    }

    fn product(&mut self) -> Result<f64, ArithmeticError> {
        let mut value = self.unary()?;
        while let Some(operator @ ('*' | '/' | '%')) = self.peek() {
            self.next += 1;
            let right = self.unary()?;
            value = match operator {
                '*' => value * right,
                _ if right == 0.0 => return Err(ArithmeticError::DivisionByZero),
                '/' => value / right,
                _ => value % right,
            };
        }
        Ok(value)
    }

    /// Every way to nest passes here, so this is where depth is counted.
    fn unary(&mut self) -> Result<f64, ArithmeticError> {
        if self.depth == MAX_DEPTH {
            return Err(ArithmeticError::TooDeep);
        }
        self.depth += 1;
        let value = match self.peek() {
            Some('-') => {
                self.next += 1;
                -self.unary()?
            }
            Some('+') => {
                self.next += 1;
                self.unary()?
            }
            _ => self.power()?,
        };
        self.depth -= 1;
        Ok(value)
    }

    fn power(&mut self) -> Result<f64, ArithmeticError> {
        let base = self.atom()?;
        if self.peek() != Some('^') {
            return Ok(base);
        }
        self.next += 1;
        Ok(base.powf(self.unary()?))
    }

    fn atom(&mut self) -> Result<f64, ArithmeticError> {
        match self.peek() {
            None => Err(ArithmeticError::UnexpectedEnd),
            Some('(') => {
                self.next += 1;
                let position = self.next;
                let value = self.sum()?;
                match self.peek() {
                    Some(')') => {
                        self.next += 1;
                        Ok(value)
                    }
                    None => Err(ArithmeticError::Unclosed { position }),
                    Some(found) => Err(ArithmeticError::Unexpected {
                        found,
                        position: self.next + 1,
                        expected: "an operator or `)`",
                    }),
                }
            }
            Some('0'..='9' | '.') => self.number(),
            Some(found) => Err(ArithmeticError::Unexpected {
                found,
                position: self.next + 1,
                expected: "a number or `(`",
            }),
        }
    }

    fn number(&mut self) -> Result<f64, ArithmeticError> {
        let start = self.next;
        while let Some(&c) = self.characters.get(self.next) {
            let after_exponent = matches!(self.characters.get(self.next.wrapping_sub(1)), Some('e' | 'E'));
            let continues = c.is_ascii_digit()
                || matches!(c, '.' | 'e' | 'E')
                || (matches!(c, '+' | '-') && self.next > start && after_exponent);
            if !continues {
                break;
            }
            self.next += 1;
        }
        let text: String = self.characters[start..self.next].iter().collect();
        text.parse().map_err(|_| ArithmeticError::BadNumber { text, position: start + 1 })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("1 + 2 * 3", 7.0)]
    #[case("(1 + 2) * 3", 9.0)]
    #[case("10 - 4 - 3", 3.0)]
    #[case("2 ^ 3 ^ 2", 512.0)]
    #[case("-2 ^ 2", -4.0)]
    #[case("2 ^ -1", 0.5)]
    #[case("17 % 5", 2.0)]
    #[case("1.5e3 + .5", 1500.5)]
    #[case("2e-1*10", 2.0)]
    #[case("--3", 3.0)]
    fn values(#[case] expression: &str, #[case] value: f64) {
        assert_eq!(evaluate(expression), Ok(value));
    }

    #[rstest]
    #[case("", "the expression ends where a number or `(` is expected")]
    #[case("1 +", "the expression ends where a number or `(` is expected")]
    #[case("(1", "the parenthesis at character 1 is never closed")]
    #[case("1 2", "unexpected `2` at character 3: expected an operator or the end")]
    #[case("2 * x", "unexpected `x` at character 5: expected a number or `(`")]
    #[case("(1;", "unexpected `;` at character 3: expected an operator or `)`")]
    #[case("1.2.3", "`1.2.3` at character 1 is not a number")]
    #[case("1/0", "division by zero")]
    #[case("1 % (2 - 2)", "division by zero")]
    #[case("10 ^ 400", "the result is not a finite number")]
    #[case("(0-1) ^ 0.5", "the result is not a finite number")]
    fn mistakes(#[case] expression: &str, #[case] message: &str) {
        assert_eq!(evaluate(expression).unwrap_err().to_string(), message);
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let nested = |depth: usize| format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(evaluate(&nested(MAX_DEPTH - 1)), Ok(1.0));
        assert_eq!(evaluate(&nested(MAX_DEPTH)), Err(ArithmeticError::TooDeep));
        assert_eq!(evaluate(&"-".repeat(MAX_LENGTH)), Err(ArithmeticError::TooDeep));
        assert_eq!(evaluate(&"1".repeat(MAX_LENGTH + 1)), Err(ArithmeticError::TooLong));
    }
}
