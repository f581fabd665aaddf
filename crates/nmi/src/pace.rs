//! A connection's pace: who sends a request's head slowly, or takes an answer slowly, is cut off. And what hyper answers
//! by itself to what it cannot read, without a body, is said in our shape. It knows nothing of requests.
//!
//! Waiting ─ first byte ─▶ Head ─ request handed over ─▶ Busy ─ answer handed back ─▶ Waiting

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::answer;

/// From a head's first byte to its last. Clients send it in one piece.
pub(crate) const HEAD: Duration = Duration::from_secs(10);
/// For the client to take what was written, up to a few hundred KiB of an answer. Tokens fit into the kernel's buffer.
pub(crate) const TAKE: Duration = Duration::from_secs(30);

/// Where a connection is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Waiting,
    Head,
    Busy,
}

/// Tells the connection when a request was read and when it was answered.
#[derive(Clone, Debug)]
pub(crate) struct Beat(Arc<AtomicU8>);

impl Beat {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU8::new(Phase::Waiting as u8)))
    }

    /// A request's head has been read.
    pub(crate) fn asked(&self) {
        self.set(Phase::Busy);
    }

    /// The request's answer is ready to be written.
    pub(crate) fn answered(&self) {
        self.set(Phase::Waiting);
    }

    fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Relaxed);
    }

    fn is(&self, phase: Phase) -> bool {
        self.0.load(Ordering::Relaxed) == phase as u8
    }
}

/// A connection with its time limits.
#[derive(Debug)]
pub(crate) struct Paced<I> {
    io: I,
    beat: Beat,
    /// Runs while a head is incomplete.
    head: Option<Pin<Box<Sleep>>>,
    /// Runs while something is written and not taken.
    take: Option<Pin<Box<Sleep>>>,
    /// What is written instead of hyper's own answer, and how much of hyper's it stands for.
    instead: Option<(&'static [u8], usize)>,
}

impl<I> Paced<I> {
    pub(crate) fn new(io: I, beat: Beat) -> Self {
        Self {
            io,
            beat,
            head: None,
            take: None,
            instead: None,
        }
    }
}

/// Polls the clock, which is started by the first call after it was reset.
fn late(clock: &mut Option<Pin<Box<Sleep>>>, limit: Duration, cx: &mut Context<'_>) -> bool {
    clock
        .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + limit)))
        .as_mut()
        .poll(cx)
        .is_ready()
}

impl<I: AsyncRead + Unpin> AsyncRead for Paced<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(read) => {
                if buf.filled().len() > before && this.beat.is(Phase::Waiting) {
                    this.beat.set(Phase::Head);
                    this.head = None;
                }
                Poll::Ready(read)
            }
            Poll::Pending if this.beat.is(Phase::Head) && late(&mut this.head, HEAD, cx) => Poll::Ready(Err(
                io::Error::new(io::ErrorKind::TimedOut, "the head did not come in time"),
            )),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<I: AsyncWrite + Unpin> Paced<I> {
    /// Writes what is to be written instead, then says that all of hyper's own was written.
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        while let Some((bytes, stands_for)) = self.instead {
            if bytes.is_empty() {
                self.instead = None;
                return Poll::Ready(Ok(stands_for));
            }
            let written = ready!(self.poll_taken(cx, |io, cx| io.poll_write(cx, bytes)))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.instead = bytes.get(written..).map(|rest| (rest, stands_for));
        }
        Poll::Ready(Ok(0))
    }

    fn poll_taken(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut I>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match write(Pin::new(&mut self.io), cx) {
            Poll::Pending if late(&mut self.take, TAKE, cx) => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the answer was not taken in time",
            ))),
            other => other,
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Paced<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.instead.is_none()
            && let Some(ours) = bufs.first().and_then(|first| answer::unread(first))
        {
            this.instead = Some((ours, bufs.iter().map(|buf| buf.len()).sum()));
        }
        if this.instead.is_some() {
            return this.poll_instead(cx);
        }
        this.poll_taken(cx, |io, cx| io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// All that was to be written has been.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.take = None;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
