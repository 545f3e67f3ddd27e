//! The client's preface leaves together with the SETTINGS that follow it at once (RFC 9113 §3.4): a packet, a system
//! call and a wake-up of the peer less for each connection.
//!
//! The codec writes the two apart. The preface is held here until the next write, or until a flush.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Slices that are passed on beside a held preface; the rest is for the next write.
const SLICES: usize = 4;

/// A byte stream whose first write may wait for the second.
pub(super) struct HoldsPreface<T> {
    io: T,
    state: State,
}

enum State {
    Fresh,
    /// What of the preface has not been written.
    Held(&'static [u8]),
    Written,
}

// === impl HoldsPreface ===

impl<T: AsyncWrite + Unpin> HoldsPreface<T> {
    pub(super) fn new(io: T) -> Self {
        Self { io, state: State::Fresh }
    }

    /// Writes what is held and as much of `bufs` as goes with it. Ready with how much of `bufs` was written.
    fn poll_write_held(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        while let State::Held(held) = self.state {
            let mut slices = [IoSlice::new(held); SLICES + 1];
            let (_, beside) = slices.split_at_mut(1);
            let count = beside.len().min(bufs.len());
            beside.iter_mut().zip(bufs).for_each(|(place, buf)| *place = IoSlice::new(buf));
            let slices = slices.get(..=count).unwrap_or_default();
            let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, slices))?;
            let beside = self.advance(held, written)?;
            // The codec takes "nothing was written" for the end of the stream.
            if beside > 0 {
                return Poll::Ready(Ok(beside));
            }
        }
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn poll_write_all_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let State::Held(held) = self.state {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, held))?;
            self.advance(held, written)?;
        }
        Poll::Ready(Ok(()))
    }

    /// So much was written, beginning with what was held. Returns how much of it was not held.
    fn advance(&mut self, held: &'static [u8], written: usize) -> io::Result<usize> {
        self.state = match held.get(written..) {
            Some(_) if written == 0 => return Err(io::ErrorKind::WriteZero.into()),
            Some(left) if !left.is_empty() => State::Held(left),
            Some(_) | None => State::Written,
        };
        Ok(written.saturating_sub(held.len()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for HoldsPreface<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for HoldsPreface<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.state {
            State::Written => Pin::new(&mut self.io).poll_write(cx, buf),
            State::Fresh if buf == PREFACE => {
                self.state = State::Held(PREFACE);
                Poll::Ready(Ok(buf.len()))
            }
            State::Fresh => {
                self.state = State::Written;
                Pin::new(&mut self.io).poll_write(cx, buf)
            }
            State::Held(_) => self.poll_write_held(cx, &[IoSlice::new(buf)]),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.state {
            State::Fresh | State::Written => {
                self.state = State::Written;
                Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
            }
            State::Held(_) => self.poll_write_held(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_all_held(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_all_held(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// Takes at most so many bytes at each write, waits where that is none, and remembers what came in one write.
    struct Narrow {
        vectored: bool,
        takes: VecDeque<usize>,
        writes: Vec<Vec<u8>>,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let take = self.takes.pop_front().unwrap_or(usize::MAX).min(buf.len());
            if take == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.writes.push(buf[..take].to_vec());
            Poll::Ready(Ok(take))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            // As the default of the trait has it: the first that is not empty.
            let bufs = if self.vectored { bufs } else { bufs.get(..1).unwrap_or_default() };
            self.poll_write(cx, &bufs.iter().flat_map(|buf| buf.to_vec()).collect::<Vec<_>>())
        }

        fn is_write_vectored(&self) -> bool {
            self.vectored
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn writes(takes: &[usize], what: &[&[u8]]) -> Vec<Vec<u8>> {
        writes_to(true, takes, what).await
    }

    async fn writes_to(vectored: bool, takes: &[usize], what: &[&[u8]]) -> Vec<Vec<u8>> {
        let narrow = Narrow { vectored, takes: takes.iter().copied().collect(), writes: Vec::new() };
        let mut io = HoldsPreface::new(narrow);
        for bytes in what {
            io.write_all(bytes).await.unwrap();
        }
        io.flush().await.unwrap();
        io.io.writes
    }

    #[tokio::test]
    async fn the_preface_leaves_with_what_follows_it() {
        let found = writes(&[], &[PREFACE, b"settings", b"more"]).await;
        assert_eq!(found, [[PREFACE, b"settings"].concat(), b"more".to_vec()]);
    }

    #[tokio::test]
    async fn a_flush_does_not_leave_the_preface_behind() {
        assert_eq!(writes(&[], &[PREFACE]).await, [PREFACE]);
        assert_eq!(writes(&[5, 0, 1], &[PREFACE]).await.concat(), PREFACE);
    }

    #[tokio::test]
    async fn nothing_is_lost_or_doubled_where_little_is_taken_at_a_time() {
        for first in 1..PREFACE.len() + 9 {
            for vectored in [true, false] {
                let takes = [0, first, 0, 1, 3];
                let found = writes_to(vectored, &takes, &[PREFACE, b"settings", b"more"]).await;
                assert_eq!(found.concat(), [PREFACE, b"settingsmore"].concat(), "{first} bytes at first");
            }
        }
    }

    #[tokio::test]
    async fn many_slices_at_once_follow_in_order() {
        let narrow = Narrow { vectored: true, takes: VecDeque::new(), writes: Vec::new() };
        let mut io = HoldsPreface::new(narrow);
        io.write_all(PREFACE).await.unwrap();
        let letters = b"abcdefghij".map(|letter| [letter]);
        let mut left: &[[u8; 1]] = &letters;
        while !left.is_empty() {
            let slices: Vec<_> = left.iter().map(|letter| IoSlice::new(letter)).collect();
            left = &left[io.write_vectored(&slices).await.unwrap()..];
        }
        assert_eq!(io.io.writes.concat(), [PREFACE, b"abcdefghij"].concat());
    }

    #[tokio::test]
    async fn other_bytes_are_not_held() {
        assert_eq!(writes(&[], &[b"PRI", b"x"]).await, [b"PRI".to_vec(), b"x".to_vec()]);
    }
}
