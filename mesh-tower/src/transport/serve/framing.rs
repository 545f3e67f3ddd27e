//! Where HTTP/1.1 messages begin and end in the bytes of a connection, as far as timeouts need to know.
//!
//! The codec reads ahead: a second head may sit half in its buffer, and nobody sees it there. So bytes are handed to it up
//! to the end of a head, the rest waits until the codec asks for more, and then it is known what body follows. This
//! decides nothing but when a timer runs: what is malformed is the codec's to refuse, and whatever is asked for is
//! handed on. RFC 9112 §2.2, §6, §7.1.

use super::target::{RequestLine, TargetForm};

/// The place in the stream of a client's messages.
#[derive(Debug)]
pub(super) struct Framing {
    part: Part,
    /// Of the head that is or was the last to come.
    line: RequestLine,
}

/// The length of a body, as the codec has found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyLength {
    Known(u64),
    Chunked,
}

/// What the bytes so far leave unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfinished {
    /// Nothing, or a body.
    Nothing,
    /// A head has begun.
    Head,
    /// The last chunk is over, the trailers are not.
    Trailers,
}

#[derive(Debug)]
enum Part {
    Head(Lines),
    /// A head is complete; its body is the next to come.
    Body,
    Length(u64),
    ChunkSize {
        size: u64,
        /// Past the digits: an extension, or white space.
        skip: bool,
    },
    ChunkData(u64),
    ChunkEnd,
    Trailers(Lines),
}

/// Lines up to an empty one.
#[derive(Debug, Clone, Copy)]
struct Lines {
    /// Nothing but line ends so far.
    fresh: bool,
    /// The current line has no byte.
    empty: bool,
}

// === impl Framing ===

impl Framing {
    pub(super) const fn new() -> Self {
        Self { part: Part::Head(Lines::new()), line: RequestLine::Fresh }
    }

    /// What is special about the target of the head that was passed on last.
    pub(super) fn target(&self) -> TargetForm {
        self.line.form()
    }

    /// The codec has read a head, after which this body follows.
    pub(super) fn head_read(&mut self, body: BodyLength) {
        self.part = match body {
            BodyLength::Known(0) => Part::Head(Lines::new()),
            BodyLength::Known(length) => Part::Length(length),
            BodyLength::Chunked => Part::ChunkSize { size: 0, skip: false },
        };
    }

    /// Takes note of bytes, and returns how many of them may be handed to the codec: all, or those up to the end of a
    /// head. At least one, if there is one.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        if matches!(self.part, Part::Body) {
            // The codec does not think that the head is complete.
            self.part = Part::Head(Lines { fresh: false, empty: false });
        }
        while !rest.is_empty() && !matches!(self.part, Part::Body) {
            let taken = self.step(rest);
            rest = &rest[taken..];
        }
        bytes.len() - rest.len()
    }

    pub(super) fn unfinished(&self) -> Unfinished {
        match self.part {
            Part::Head(Lines { fresh: false, .. }) | Part::Body => Unfinished::Head,
            Part::Trailers(_) => Unfinished::Trailers,
            _ => Unfinished::Nothing,
        }
    }

    /// Bytes of a body that have not been passed on; more than there can be, where its length is not known.
    pub(super) fn body_left(&self) -> u64 {
        match self.part {
            Part::Length(left) => left,
            Part::Head(_) | Part::Body => 0,
            Part::ChunkSize { .. } | Part::ChunkData(_) | Part::ChunkEnd | Part::Trailers(_) => u64::MAX,
        }
    }

    /// Takes bytes of one part, at least one.
    fn step(&mut self, bytes: &[u8]) -> usize {
        let (next, taken) = match &mut self.part {
            Part::Head(lines) => {
                if lines.fresh {
                    self.line = RequestLine::Fresh;
                }
                let end = lines.end(bytes, true);
                let taken = end.unwrap_or(bytes.len());
                self.line.read(&bytes[..taken]);
                match end {
                    Some(end) => (Part::Body, end),
                    None => return taken,
                }
            }
            Part::Trailers(lines) => match lines.end(bytes, false) {
                Some(end) => (Part::Head(Lines::new()), end),
                None => return bytes.len(),
            },
            Part::Length(left) => match take(left, bytes) {
                (0, taken) => (Part::Head(Lines::new()), taken),
                (_, taken) => return taken,
            },
            Part::ChunkData(left) => match take(left, bytes) {
                (0, taken) => (Part::ChunkEnd, taken),
                (_, taken) => return taken,
            },
            Part::ChunkEnd => match bytes[0] {
                b'\n' => (Part::ChunkSize { size: 0, skip: false }, 1),
                _ => return 1,
            },
            Part::ChunkSize { size, skip } => match (bytes[0], char::from(bytes[0]).to_digit(16)) {
                (b'\n', _) if *size == 0 => (Part::Trailers(Lines { fresh: false, empty: true }), 1),
                (b'\n', _) => (Part::ChunkData(*size), 1),
                (_, Some(digit)) if !*skip => {
                    *size = size.saturating_mul(16).saturating_add(u64::from(digit));
                    return 1;
                }
                _ => {
                    *skip = true;
                    return 1;
                }
            },
            Part::Body => return bytes.len(),
        };
        self.part = next;
        taken
    }
}

fn take(left: &mut u64, bytes: &[u8]) -> (u64, usize) {
    let taken = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
    *left -= taken as u64;
    (*left, taken)
}

// === impl Lines ===

impl Lines {
    const fn new() -> Self {
        Self { fresh: true, empty: true }
    }

    /// The end of the empty line, if it is here. Line ends before the first line may be skipped.
    fn end(&mut self, bytes: &[u8], skips: bool) -> Option<usize> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match byte {
                b'\n' if skips && self.fresh => {}
                b'\n' if self.empty => return Some(at + 1),
                b'\n' => self.empty = true,
                b'\r' if self.empty => {}
                _ => {
                    (self.fresh, self.empty) = (false, false);
                    // To the end of the line.
                    match bytes[at..].iter().position(|&byte| byte == b'\n') {
                        Some(rest) => at += rest,
                        None => return None,
                    }
                    continue;
                }
            }
            at += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    /// What is handed on, piece by piece, of bytes that arrive in parts of this size.
    fn pieces(text: &str, size: usize, bodies: &[BodyLength]) -> (Vec<String>, Unfinished) {
        let mut framing = Framing::new();
        let mut bodies = bodies.iter();
        let mut pieces = vec![String::new()];
        for part in text.as_bytes().chunks(size) {
            let mut rest = part;
            while !rest.is_empty() {
                let n = framing.pass(rest);
                assert!(n > 0);
                pieces.last_mut().unwrap().push_str(std::str::from_utf8(&rest[..n]).unwrap());
                rest = &rest[n..];
                if matches!(framing.part, Part::Body) {
                    pieces.push(String::new());
                    framing.head_read(*bodies.next().unwrap());
                }
            }
        }
        (pieces, framing.unfinished())
    }

    #[test]
    fn heads_end_where_they_end_whatever_the_size_of_reads() {
        let none = BodyLength::Known(0);
        let post = "POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\n";
        let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        for size in [1, 2, 3, 7, 1000] {
            for (text, bodies, heads, left) in [
                (GET.to_owned(), vec![none], vec![GET.to_owned(), String::new()], Unfinished::Nothing),
                (format!("{GET}GE"), vec![none], vec![GET.to_owned(), "GE".to_owned()], Unfinished::Head),
                (
                    format!("\r\n{GET}\r\n"),
                    vec![none],
                    vec![format!("\r\n{GET}"), "\r\n".to_owned()],
                    Unfinished::Nothing,
                ),
                (
                    format!("{GET}{GET}"),
                    vec![none; 2],
                    vec![GET.to_owned(), GET.to_owned(), String::new()],
                    Unfinished::Nothing,
                ),
                (
                    format!("{post}\r\n\r\nG"),
                    vec![BodyLength::Known(4)],
                    vec![post.to_owned(), "\r\n\r\nG".to_owned()],
                    Unfinished::Head,
                ),
                (
                    format!("{post}\n\n\n"),
                    vec![BodyLength::Known(4)],
                    vec![post.to_owned(), "\n\n\n".to_owned()],
                    Unfinished::Nothing,
                ),
                (
                    format!("{chunked}a;x=1\r\n0\r\n\r\n56789\r\n0\r\n\r\nG"),
                    vec![BodyLength::Chunked],
                    vec![chunked.to_owned(), "a;x=1\r\n0\r\n\r\n56789\r\n0\r\n\r\nG".to_owned()],
                    Unfinished::Head,
                ),
                (
                    format!("{chunked}1\r\na\r\n0\r\n"),
                    vec![BodyLength::Chunked],
                    vec![chunked.to_owned(), "1\r\na\r\n0\r\n".to_owned()],
                    Unfinished::Trailers,
                ),
                (
                    format!("{chunked}0\r\nx-a: b\r\nx-c"),
                    vec![BodyLength::Chunked],
                    vec![chunked.to_owned(), "0\r\nx-a: b\r\nx-c".to_owned()],
                    Unfinished::Trailers,
                ),
                (
                    format!("{chunked}0\r\nx-a: b\r\n\r\n"),
                    vec![BodyLength::Chunked],
                    vec![chunked.to_owned(), "0\r\nx-a: b\r\n\r\n".to_owned()],
                    Unfinished::Nothing,
                ),
            ] {
                assert_eq!(pieces(&text, size, &bodies), (heads, left), "{text:?} by {size}");
            }
        }
    }

    #[test]
    fn a_head_that_the_codec_wants_more_of_goes_on() {
        let mut framing = Framing::new();
        assert_eq!(framing.pass(b"x\n\nmore"), 3);
        assert_eq!(framing.pass(b"more\r\n\r\nrest"), 8);
        assert_eq!(framing.unfinished(), Unfinished::Head);
    }
}
