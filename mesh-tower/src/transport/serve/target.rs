//! What a request line says of its target that nobody is told by the parser: whether an absolute form ends with its
//! authority, and whether there is a fragment, which it cuts off. RFC 9112 §3.2.

/// Reads a request line, however its bytes arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestLine {
    /// Nothing yet but line ends, which may come before it.
    Fresh,
    Method,
    /// The target begins with the next byte.
    Begin,
    Scheme,
    /// So many slashes behind the scheme.
    Slashes(u8),
    Authority,
    /// A path, a query, or what is no target.
    Rest,
    Over(TargetForm),
}

/// What is special about a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub(super) enum TargetForm {
    #[default]
    Plain,
    /// An absolute form that has neither a path nor a query.
    AuthorityOnly,
    /// It has a fragment, which no target may have.
    Fragment,
}

// === impl RequestLine ===

impl RequestLine {
    /// Takes note of the next bytes.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Self::Over(_) = self {
                return;
            }
            *self = self.next(*byte);
        }
    }

    /// What it says of its target.
    pub(super) fn form(self) -> TargetForm {
        match self {
            Self::Over(form) => form,
            _ => TargetForm::Plain,
        }
    }

    fn next(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Fresh, b'\r' | b'\n') => Self::Fresh,
            (Self::Fresh | Self::Method, b' ') => Self::Begin,
            (Self::Fresh, _) => Self::Method,
            // The parser takes more than one.
            (Self::Begin, b' ') => Self::Begin,
            (Self::Authority, b' ' | b'\r' | b'\n') => Self::Over(TargetForm::AuthorityOnly),
            (_, b'\n') => Self::Over(TargetForm::Plain),
            (Self::Method, _) => Self::Method,
            (_, b' ' | b'\r') => Self::Over(TargetForm::Plain),
            (_, b'#') => Self::Over(TargetForm::Fragment),
            (Self::Begin, b'a'..=b'z' | b'A'..=b'Z') => Self::Scheme,
            (Self::Scheme, b':') => Self::Slashes(0),
            (Self::Scheme, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.') => Self::Scheme,
            (Self::Slashes(0), b'/') => Self::Slashes(1),
            (Self::Slashes(1), b'/') => Self::Authority,
            (Self::Authority, b'/' | b'?') => Self::Rest,
            (Self::Authority, _) => Self::Authority,
            _ => Self::Rest,
        }
    }
}

// === impl TargetForm ===

impl TargetForm {
    pub(super) const fn of(code: u8) -> Self {
        match code {
            1 => Self::AuthorityOnly,
            2 => Self::Fragment,
            _ => Self::Plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TargetForm::{AuthorityOnly, Fragment, Plain};
    use super::*;

    #[test]
    fn a_target_is_known_whatever_the_size_of_reads() {
        for (line, expected) in [
            ("GET / HTTP/1.1\r\n", Plain),
            ("GET /http://a HTTP/1.1\r\n", Plain),
            ("GET http://a/ HTTP/1.1\r\n", Plain),
            ("GET http://a?q HTTP/1.1\r\n", Plain),
            ("GET http://a HTTP/1.1\r\n", AuthorityOnly),
            ("\r\n\nOPTIONS HTTPS://a:80 HTTP/1.1\r\n", AuthorityOnly),
            ("GET  http://a  HTTP/1.1\r\n", AuthorityOnly),
            ("GET http:/a HTTP/1.1\r\n", Plain),
            ("GET a:443 HTTP/1.1\r\n", Plain),
            ("CONNECT a:443 HTTP/1.1\r\n", Plain),
            ("OPTIONS * HTTP/1.1\r\nx: #\r\n", Plain),
            ("GET /a#b HTTP/1.1\r\n", Fragment),
            ("GET /a?b#c HTTP/1.1\r\n", Fragment),
            ("GET http://a#b HTTP/1.1\r\n", Fragment),
            ("GET http://a/#b HTTP/1.1\r\n", Fragment),
            ("GET # HTTP/1.1\r\n", Fragment),
            ("GET\r\nx: http://a \r\n", Plain),
            ("GE#T / HTTP/1.1\r\n", Plain),
            ("GET / HTTP/1.1\r\nx: y#z\r\n", Plain),
        ] {
            for size in [1, 2, 5, 1000] {
                let mut read = RequestLine::Fresh;
                for piece in line.as_bytes().chunks(size) {
                    read.read(piece);
                }
                assert_eq!(read.form(), expected, "{line:?} by {size}");
            }
        }
        for form in [Plain, AuthorityOnly, Fragment] {
            assert_eq!(TargetForm::of(form as u8), form);
        }
    }
}
