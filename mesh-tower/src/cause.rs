//! What is at the bottom of an error, in a form that callers can downcast to.
//!
//! `std::io::Error` does not show what it wraps as its source, so a TLS alert inside one would be out of reach, and `h2`
//! keeps nothing but the text of it. [`Counted`](crate::transport::io::Counted) notes how its stream broke before any codec
//! sees it.

use std::error::Error;
use std::io;
use std::sync::Arc;

use crate::body::BoxError;

/// An error that can be shared.
pub(crate) type Cause = Arc<dyn Error + Send + Sync>;

/// The same error as a value of its own: rustls's where it is one (with its alert), an [`io::Error`] otherwise.
pub(crate) fn of_io(error: &io::Error) -> Cause {
    match error.get_ref().map(|inner| (inner.downcast_ref::<rustls::Error>(), inner)) {
        Some((Some(tls), _)) => Arc::new(tls.clone()),
        Some((None, inner)) => Arc::new(io::Error::new(error.kind(), inner.to_string())),
        None => {
            Arc::new(error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error))
        }
    }
}

/// The error of the byte stream that this one comes from; this one where there is none.
pub(crate) fn of(error: BoxError) -> Cause {
    let mut next: Option<&(dyn Error + 'static)> = Some(&*error);
    while let Some(current) = next {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            return of_io(io);
        }
        #[cfg(feature = "http2")]
        if let Some(io) = current.downcast_ref::<::h2::Error>().and_then(::h2::Error::get_io) {
            return of_io(io);
        }
        next = current.source();
    }
    error.into()
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use rustls::AlertDescription;

    use super::*;

    fn io(cause: &Cause) -> Option<&io::Error> {
        (**cause).downcast_ref()
    }

    #[test]
    fn what_an_io_error_wraps_is_found() {
        let alert = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
        let tls = of_io(&io::Error::new(ErrorKind::InvalidData, alert.clone()));
        assert_eq!((*tls).downcast_ref(), Some(&alert));
        let os = of_io(&io::Error::from_raw_os_error(111));
        assert_eq!(io(&os).and_then(io::Error::raw_os_error), Some(111));
        let plain = of_io(&ErrorKind::UnexpectedEof.into());
        assert_eq!(io(&plain).map(io::Error::kind), Some(ErrorKind::UnexpectedEof));
        let text = of_io(&io::Error::new(ErrorKind::TimedOut, "too late"));
        assert_eq!(
            io(&text).map(|e| (e.kind(), e.to_string())),
            Some((ErrorKind::TimedOut, "too late".into()))
        );
    }

    #[test]
    fn an_error_of_another_kind_stays_what_it_is() {
        #[derive(Debug, thiserror::Error)]
        #[error("a wrapper")]
        struct Wrapper(#[source] BoxError);

        let plain = of(Box::new(std::fmt::Error));
        assert!((*plain).is::<std::fmt::Error>());
        let deep = of(Box::new(Wrapper(Box::new(Wrapper(Box::new(io::Error::from(ErrorKind::BrokenPipe)))))));
        assert_eq!(io(&deep).map(io::Error::kind), Some(ErrorKind::BrokenPipe));
    }
}
