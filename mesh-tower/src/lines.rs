//! Headers in several lines that have to be one.

use http::HeaderMap;
#[cfg(any(feature = "http1", feature = "http2"))]
use http::header::COOKIE;
use http::header::{HeaderName, HeaderValue};

/// The lines of a header as one; none where there are not several.
pub(crate) fn joined(headers: &HeaderMap, name: &HeaderName, between: &[u8]) -> Option<HeaderValue> {
    let lines = || headers.get_all(name).iter();
    lines().nth(1)?;
    let parts: Vec<&[u8]> = lines().map(HeaderValue::as_bytes).collect();
    // Parts that are valid make a whole that is.
    HeaderValue::from_bytes(&parts.join(between)).ok()
}

/// `cookie`: several lines in HTTP/2, which compresses them one by one, and one line everywhere else (RFC 9113 §8.2.3).
#[cfg(any(feature = "http1", feature = "http2"))]
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    if let Some(mut joined) = joined(headers, &COOKIE, b"; ") {
        joined.set_sensitive(true);
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_one_in_their_order() {
        for (lines, expected) in [
            (&[][..], &[][..]),
            (&["a=1"], &["a=1"]),
            (&["a=1", "b=2"], &["a=1; b=2"]),
            (&["a=1; b=2", "c=3", "a=4"], &["a=1; b=2; c=3; a=4"]),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(COOKIE, HeaderValue::from_str(line).unwrap());
            }
            join_cookies(&mut headers);
            assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), expected);
        }
    }
}
