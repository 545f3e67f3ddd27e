//! Call credentials towards a control plane: a JWT that is read from a file (gRFC A97).
//!
//! A token is read when a stream is opened, and kept until 30 s before its `exp`; within a minute of that the file is read
//! again, and the old token used where that fails. The signature is the control plane's to check. A file that cannot be
//! used is a connection that failed: its back-off (the same as A97 asks for) is that of the connection, and requests
//! that lack configuration are UNAVAILABLE with the file and the reason.
//!
//! Deviations: the file is waited for also while the old token is still good, because streams are opened rarely. No
//! environment variable has to switch this on: the field of the bootstrap does.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tonic::metadata::{Ascii, MetadataValue};

use super::render;

/// How long before it expires a token is no longer used: clocks differ, and a call takes time.
const MARGIN: Duration = Duration::from_secs(30);

/// How long before that its file is read again.
const REFRESH: Duration = Duration::from_secs(60);

/// The largest file that is taken for a token.
const MAX_BYTES: u64 = 64 << 10;

/// Why there is no token.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("JWT file {file:?} cannot be read")]
    File {
        file: PathBuf,
        #[source]
        source: Arc<std::io::Error>,
    },
    #[error("JWT file {file:?} holds no usable token: {what}")]
    Token { file: PathBuf, what: &'static str },
}

/// The token of one file.
#[derive(Debug)]
pub(crate) struct JwtFile {
    file: PathBuf,
    /// Protects the token alone; held for a look, never across an await.
    cached: Mutex<Option<Token>>,
}

/// A token as it is sent.
#[derive(Debug, Clone)]
struct Token {
    /// Marked as sensitive, so that it is never shown.
    header: MetadataValue<Ascii>,
    /// From when on it is not used: its own end, less [`MARGIN`].
    until: SystemTime,
}

// === impl JwtFile ===

impl JwtFile {
    pub(crate) fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), cached: Mutex::default() }
    }

    /// The value of the `authorization` header at the time `now`.
    pub(crate) async fn header(&self, now: SystemTime) -> Result<MetadataValue<Ascii>, TokenError> {
        let cached = self.lock().clone().filter(|token| now < token.until);
        if let Some(token) = &cached
            && token.until.duration_since(now).is_ok_and(|left| left > REFRESH)
        {
            return Ok(token.header.clone());
        }
        match (self.read().await, cached) {
            (Ok(token), _) => {
                let header = token.header.clone();
                *self.lock() = Some(token);
                Ok(header)
            }
            (Err(error), Some(token)) => {
                tracing::warn!(error = render(&error), "the JWT that was read before stays in use");
                Ok(token.header)
            }
            (Err(error), None) => Err(error),
        }
    }

    async fn read(&self) -> Result<Token, TokenError> {
        let unreadable = |error| TokenError::File { file: self.file.clone(), source: Arc::new(error) };
        let wrong = |what| TokenError::Token { file: self.file.clone(), what };
        let size = tokio::fs::metadata(&self.file).await.map_err(unreadable)?.len();
        if size > MAX_BYTES {
            return Err(wrong("it is larger than 64 KiB"));
        }
        let text = tokio::fs::read(&self.file).await.map_err(unreadable)?;
        let text = std::str::from_utf8(&text).map_err(|_| wrong("it is not text"))?;
        parse(text.trim()).map_err(wrong)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Token>> {
        // The token is replaced whole, so it is valid after any panic.
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(token: &str) -> Result<Token, &'static str> {
    if token.is_empty() {
        return Err("it is empty");
    }
    let payload = token.split('.').nth(1).ok_or("it is not of the form header.payload.signature")?;
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('='));
    let payload = payload.map_err(|_| "its payload is not base64url")?;
    let payload: serde_json::Value =
        serde_json::from_slice(&payload).map_err(|_| "its payload is not JSON")?;
    let exp = payload.get("exp").and_then(serde_json::Value::as_f64);
    let exp = exp.ok_or("its payload has no `exp` that is a number")?;
    let exp = Duration::try_from_secs_f64(exp).ok().and_then(|exp| SystemTime::UNIX_EPOCH.checked_add(exp));
    let until = exp.and_then(|exp| exp.checked_sub(MARGIN)).ok_or("its `exp` is no point in time")?;
    let header = MetadataValue::try_from(format!("Bearer {token}"));
    let mut header = header.map_err(|_| "it holds characters that a header cannot")?;
    header.set_sensitive(true);
    Ok(Token { header, until })
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: SystemTime = SystemTime::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        T0 + Duration::from_secs(seconds)
    }

    fn jwt(payload: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2lnbmF0dXJl", part(r#"{"alg":"none"}"#), part(payload))
    }

    struct File {
        directory: tempfile::TempDir,
        jwt: JwtFile,
    }

    impl File {
        fn new(text: &str) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let jwt = JwtFile::new(&directory.path().join("token"));
            let file = Self { directory, jwt };
            file.write(text);
            file
        }

        fn write(&self, text: &str) {
            std::fs::write(self.directory.path().join("token"), text).unwrap();
        }

        fn remove(&self) {
            std::fs::remove_file(self.directory.path().join("token")).unwrap();
        }

        async fn header(&self, now: SystemTime) -> Result<String, String> {
            let header = self.jwt.header(now).await;
            header.map(|header| header.to_str().unwrap().to_owned()).map_err(|error| render(&error))
        }
    }

    #[tokio::test]
    async fn the_token_is_sent_as_bearer_without_the_white_space_around_it() {
        let token = jwt(r#"{"exp": 1000}"#);
        let file = File::new(&format!("  {token}\n"));
        assert_eq!(file.header(at(0)).await, Ok(format!("Bearer {token}")));
        assert!(!format!("{:?}", file.jwt).contains(&token), "never shown");
    }

    #[tokio::test]
    async fn a_token_is_kept_until_a_minute_before_its_margin_and_then_read_again() {
        let (old, new) = (jwt(r#"{"exp": 1000}"#), jwt(r#"{"exp": 5000}"#));
        let file = File::new(&old);
        file.header(at(0)).await.unwrap();
        file.write(&new);
        assert_eq!(file.header(at(909)).await, Ok(format!("Bearer {old}")), "cached");
        assert_eq!(file.header(at(910)).await, Ok(format!("Bearer {new}")), "970 is its end");
    }

    #[tokio::test]
    async fn a_file_that_fails_leaves_the_old_token_until_it_expires() {
        let token = jwt(r#"{"exp": 1000}"#);
        let file = File::new(&token);
        file.header(at(0)).await.unwrap();
        file.remove();
        assert_eq!(file.header(at(969)).await, Ok(format!("Bearer {token}")));
        let error = file.header(at(970)).await.unwrap_err();
        assert!(error.contains("cannot be read") && error.contains("token"), "{error}");
        file.write(&token.replace('.', ","));
        assert!(file.header(at(970)).await.unwrap_err().contains("header.payload.signature"));
    }

    #[tokio::test]
    async fn what_is_no_token_is_an_error_that_says_why() {
        let cases = [
            (String::new(), "empty"),
            ("abc".to_owned(), "header.payload.signature"),
            ("a.!.c".to_owned(), "base64url"),
            (format!("a.{}.c", URL_SAFE_NO_PAD.encode("no")), "not JSON"),
            (jwt("{}"), "`exp`"),
            (jwt(r#"{"exp": "soon"}"#), "`exp`"),
            (jwt(r#"{"exp": -5}"#), "point in time"),
            (jwt(r#"{"exp": 1e300}"#), "point in time"),
            (format!("{}\u{7f}", jwt(r#"{"exp": 1000}"#)), "header cannot"),
            ("x".repeat(100_000), "64 KiB"),
        ];
        for (text, expected) in cases {
            let error = File::new(&text).header(at(0)).await.unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
