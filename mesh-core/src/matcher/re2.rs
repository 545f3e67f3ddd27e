//! Where RE2, on bytes, reads a pattern in another way than the `regex` crate, which would accept it.
//!
//! A letter that is not ASCII is several bytes, of which a quantifier repeats the last and a class contains each. There
//! are no possessive quantifiers, no quantifiers of quantifiers, no operators within classes, and fewer flags and escapes.
//! Facts: RE2's own syntax page, and what Envoy does with it.

use std::iter::Peekable;
use std::str::Chars;

/// Walks over a pattern that both accept.
struct Walk<'a> {
    rest: Peekable<Chars<'a>>,
    last: Last,
    /// Within the braces of a repetition.
    repeats: bool,
}

/// What a quantifier would apply to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    /// Something that both read alike.
    Atom,
    /// A letter of several bytes.
    Wide,
    /// A quantifier, its `?` included.
    Quantifier,
}

/// Why a pattern is read otherwise; none if it is not.
pub(super) fn differs(pattern: &str) -> Option<&'static str> {
    let mut walk = Walk { rest: pattern.chars().peekable(), last: Last::Atom, repeats: false };
    while let Some(char) = walk.rest.next() {
        if let Err(reason) = walk.step(char) {
            return Some(reason);
        }
    }
    None
}

// === impl Walk ===

impl Walk<'_> {
    fn step(&mut self, char: char) -> Result<(), &'static str> {
        let last = std::mem::replace(&mut self.last, Last::Atom);
        match char {
            '\\' => self.escape()?,
            '[' => self.class()?,
            '(' => self.group()?,
            '*' | '+' | '?' | '{' => match last {
                Last::Wide => return Err("a quantifier follows a letter that is not ASCII"),
                Last::Quantifier => return Err("a quantifier follows another one"),
                Last::Atom if char == '{' => self.repeats = true,
                Last::Atom => self.quantified(),
            },
            '}' if std::mem::take(&mut self.repeats) => self.quantified(),
            _ if !char.is_ascii() => self.last = Last::Wide,
            _ => {}
        }
        Ok(())
    }

    fn quantified(&mut self) {
        self.rest.next_if_eq(&'?');
        self.last = Last::Quantifier;
    }

    fn escape(&mut self) -> Result<(), &'static str> {
        let Some(escaped) = self.rest.next() else { return Ok(()) };
        match escaped {
            '<' | '>' | 'u' | 'U' => return Err("an escape that RE2 has not, or means otherwise"),
            'b' | 'B' if self.rest.peek() == Some(&'{') => {
                return Err("a word boundary of a kind that RE2 has not");
            }
            'x' if self.rest.peek() == Some(&'{') => {
                let digits = self.rest.by_ref().skip(1).take_while(|digit| *digit != '}').count();
                if digits > 2 {
                    return Err("a code point that is no byte");
                }
            }
            _ if !escaped.is_ascii() => self.last = Last::Wide,
            _ => {}
        }
        Ok(())
    }

    fn class(&mut self) -> Result<(), &'static str> {
        self.rest.next_if_eq(&'^');
        // As the first of a class it is one of its letters.
        let mut previous = self.rest.next_if_eq(&']').unwrap_or('[');
        while let Some(char) = self.rest.next() {
            match char {
                ']' => return Ok(()),
                '\\' => self.escape()?,
                '[' if self.rest.peek() == Some(&':') => {
                    while self.rest.next_if(|char| *char != ']').is_some() {}
                    self.rest.next();
                }
                '[' => return Err("a class within a class"),
                '&' | '~' | '-' if char == previous => return Err("an operator within a class"),
                _ if !char.is_ascii() => return Err("a letter of a class is not ASCII"),
                _ => {}
            }
            previous = if char == '\\' { '[' } else { char };
        }
        Ok(())
    }

    fn group(&mut self) -> Result<(), &'static str> {
        if self.rest.next_if_eq(&'?').is_none() || matches!(self.rest.peek(), Some('<' | 'P')) {
            return Ok(());
        }
        while let Some(flag) = self.rest.next_if(|char| !matches!(char, ':' | ')')) {
            if !matches!(flag, 'i' | 'm' | 's' | 'U' | '-') {
                return Err("a flag that RE2 has not");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_otherwise_is_found() {
        for pattern in [
            "é+",
            "é?x",
            "a|é+",
            "日本+",
            "é{2}",
            r"\é+",
            "x++",
            "x*+",
            "x?+",
            "x??+",
            "x+{2}",
            "x{2}+",
            "x{2}??",
            "x{2}{3}",
            "[é]",
            "[a-é]",
            "[a&&b]",
            "[a--b]",
            "[a~~b]",
            "[a[b]]",
            r"\<a",
            r"a\>",
            r"\b{start}a",
            r"\u{e9}",
            r"\U000000E9",
            r"\x{100}",
            "(?x)a b",
            "(?u)a",
            "(?R)a",
            "(?ix:a)",
        ] {
            assert!(differs(pattern).is_some(), "{pattern}");
        }
    }

    #[test]
    fn what_is_read_alike_is_left() {
        for pattern in [
            "",
            "é",
            "aé",
            "(é)+",
            "(?:日本)+",
            "éa+",
            "x+",
            "x+?",
            "x*?y",
            "x??",
            "x{2}",
            "x{2,3}?",
            "}+",
            "a}",
            r"\}+",
            r"\++",
            "[+]+",
            "[^]a]",
            "[]]",
            "[a-z-]",
            "[-a]",
            "[&~]",
            "[[:alpha:]]+",
            r"[\w-]+",
            r"[\]]+",
            r"\x41+",
            r"\x{41}+",
            r"\bfoo\b",
            "(?i)a",
            "(?i:a)",
            "(?ims-U:a)",
            "(?P<n>a)+",
            "(?<n>a)+",
            "(a|b)*",
            "^/api/v[0-9]+/.*$",
        ] {
            assert_eq!(differs(pattern), None, "{pattern}");
        }
    }
}
