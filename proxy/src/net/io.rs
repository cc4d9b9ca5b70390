//! Byte streams: a bare socket or one of the two TLS streams, with what detection has read put back in front.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

use crate::room::Place;

/// Bytes up to which a head and a body are copied together: one `send` costs the kernel less than one `writev`.
const SMALL_WRITE: usize = 1_024;

/// A TCP connection whose first bytes may have been read already; they are read again.
#[derive(Debug)]
pub struct Socket {
    tcp: TcpStream,
    prefix: Bytes,
    place: Option<Place>,
}

/// Whatever bytes are exchanged over. An enum, so that no call is dynamic.
#[derive(Debug)]
enum Stream {
    Plain(Socket),
    Server(Box<server::TlsStream<Socket>>),
    Client(Box<client::TlsStream<Socket>>),
    Pipe(DuplexStream),
}

/// Counts the bytes of a connection, and its end. `net` reports, it does not know what the labels are.
pub trait Meter: Send + Sync + std::fmt::Debug {
    /// The connection counts from now on.
    fn opened(&self);
    /// Bytes read from the peer.
    fn read(&self, bytes: usize);
    /// Bytes written to the peer.
    fn written(&self, bytes: usize);
    /// The peer did what ends the connection; `reason` is one of few.
    fn abused(&self, reason: &'static str);
    /// A connection was asked for again, since nobody had answered in time.
    fn asked_again(&self) {}
    /// The connection is gone, with the operating system's error if one ended it.
    fn closed(&self, errno: Option<i32>);
}

/// Whether a peer is heard from.
#[derive(Clone, Debug, Default)]
pub struct Activity(Arc<AtomicBool>);

impl Activity {
    /// Whether something has come since this was last asked.
    pub fn since(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// One side of a proxied connection.
#[derive(Debug)]
pub struct Io {
    stream: Stream,
    prefix: Bytes,
    meter: Option<Arc<dyn Meter>>,
    activity: Option<Activity>,
    errno: Option<i32>,
}

impl Socket {
    /// A fresh connection.
    pub fn new(tcp: TcpStream) -> Self {
        Self {
            tcp,
            prefix: Bytes::new(),
            place: None,
        }
    }

    /// Gives back its place when it is closed.
    #[must_use]
    pub fn in_place(mut self, place: Option<Place>) -> Self {
        self.place = place;
        self
    }

    /// From now on it ends by being cut (RST) and not closed.
    fn cut(&self) {
        if let Err(error) = outrigger_sys::reset_on_close(&self.tcp) {
            tracing::debug!(%error, "a connection is closed that was to be cut");
        }
    }

    /// Puts bytes that were read back in front.
    pub fn unread(&mut self, bytes: BytesMut) {
        self.prefix = join(bytes, &self.prefix);
    }

    /// The TCP connection itself.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.place.as_ref().is_some_and(Place::is_cut) {
            self.cut();
        }
    }
}

impl Io {
    /// A connection without mesh TLS.
    pub fn plain(socket: Socket) -> Self {
        Self::over(Stream::Plain(socket))
    }

    /// A connection from a peer, whose TLS ends here.
    pub fn server(tls: server::TlsStream<Socket>) -> Self {
        Self::over(Stream::Server(Box::new(tls)))
    }

    /// A connection to a peer, with TLS.
    pub fn client(tls: client::TlsStream<Socket>) -> Self {
        Self::over(Stream::Client(Box::new(tls)))
    }

    /// A pipe in memory, for benches and tests: no kernel is involved.
    pub fn pipe(pipe: DuplexStream) -> Self {
        Self::over(Stream::Pipe(pipe))
    }

    /// Reports bytes and the end to `meter` from now on; what was read and put back counts as read.
    #[must_use]
    pub fn metered(mut self, meter: Arc<dyn Meter>) -> Self {
        meter.opened();
        if !self.prefix.is_empty() {
            meter.read(self.prefix.len());
        }
        self.meter = Some(meter);
        self
    }

    /// Puts bytes that were read back in front.
    pub fn unread(&mut self, bytes: BytesMut) {
        self.prefix = join(bytes, &self.prefix);
    }

    /// Reports that the peer did what ends the connection.
    pub fn abused(&self, reason: &'static str) {
        if let Some(meter) = &self.meter {
            meter.abused(reason);
        }
    }

    /// Tells from now on whether the peer is heard from.
    pub fn activity(&mut self) -> Activity {
        self.activity.get_or_insert_default().clone()
    }

    /// Ready when a read may find something, as far as that can be known without one.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.stream {
            Stream::Plain(socket) if self.prefix.is_empty() && socket.prefix.is_empty() => {
                socket.tcp.poll_read_ready(cx).map(|_the_next_reads_to_report| ())
            }
            _ => Poll::Ready(()),
        }
    }

    /// When it is dropped, the connection ends so that the peer can't take what it has got for all there was: by a reset
    /// (RST), and by no farewell in TLS (RFC 8446 §6.1).
    pub fn cut(&self) {
        match &self.stream {
            Stream::Plain(socket) => socket.cut(),
            Stream::Server(tls) => tls.get_ref().0.cut(),
            Stream::Client(tls) => tls.get_ref().0.cut(),
            Stream::Pipe(_) => {}
        }
    }

    fn over(stream: Stream) -> Self {
        Self {
            stream,
            prefix: Bytes::new(),
            meter: None,
            activity: None,
            errno: None,
        }
    }

    /// Remembers which error ended the connection, for `tcp_close_total`.
    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.errno = error.raw_os_error().or(self.errno);
        }
        result
    }

    fn note_written(&mut self, result: io::Result<usize>) -> io::Result<usize> {
        if let (Ok(bytes), Some(meter)) = (&result, &self.meter) {
            meter.written(*bytes);
        }
        self.note(result)
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        if let Some(meter) = &self.meter {
            meter.closed(self.errno);
        }
    }
}

/// `first` followed by `rest`.
fn join(mut first: BytesMut, rest: &Bytes) -> Bytes {
    first.extend_from_slice(rest);
    first.freeze()
}

/// Serves a read from `prefix`, as far as it goes. `false`: there is nothing left in it.
fn read_prefix(prefix: &mut Bytes, buf: &mut ReadBuf<'_>) -> bool {
    if prefix.is_empty() {
        return false;
    }
    let n = prefix.len().min(buf.remaining());
    buf.put_slice(&prefix[..n]);
    prefix.advance(n);
    if prefix.is_empty() {
        *prefix = Bytes::new(); // gives the buffer back
    }
    true
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if read_prefix(&mut self.prefix, buf) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        match bufs {
            [only] => Pin::new(&mut self.tcp).poll_write(cx, only),
            _ if total <= SMALL_WRITE => {
                let (mut joined, mut end) = ([0; SMALL_WRITE], 0);
                for buf in bufs {
                    joined[end..end + buf.len()].copy_from_slice(buf);
                    end += buf.len();
                }
                Pin::new(&mut self.tcp).poll_write(cx, &joined[..end])
            }
            _ => Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// Calls the same method on whichever stream it is.
macro_rules! each {
    ($io:expr, $stream:ident => $call:expr) => {
        match &mut $io.stream {
            Stream::Plain($stream) => $call,
            Stream::Server($stream) => $call,
            Stream::Client($stream) => $call,
            Stream::Pipe($stream) => $call,
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let io = &mut *self;
        if read_prefix(&mut io.prefix, buf) {
            return Poll::Ready(Ok(())); // counted when it was read for the first time
        }
        let before = buf.filled().len();
        let result = ready!(each!(io, s => Pin::new(s).poll_read(cx, buf)));
        io.note(result)?;
        if let Some(meter) = &io.meter {
            meter.read(buf.filled().len() - before);
        }
        if let Some(activity) = &io.activity {
            activity.0.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let io = &mut *self;
        let result = ready!(each!(io, s => Pin::new(s).poll_write(cx, buf)));
        Poll::Ready(io.note_written(result))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let io = &mut *self;
        let result = ready!(each!(io, s => Pin::new(s).poll_write_vectored(cx, bufs)));
        Poll::Ready(io.note_written(result))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(s) => s.is_write_vectored(),
            Stream::Server(s) => s.is_write_vectored(),
            Stream::Client(s) => s.is_write_vectored(),
            Stream::Pipe(s) => s.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = &mut *self;
        let result = ready!(each!(io, s => Pin::new(s).poll_flush(cx)));
        Poll::Ready(io.note(result))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = &mut *self;
        let result = ready!(each!(io, s => Pin::new(s).poll_shutdown(cx)));
        Poll::Ready(io.note(result))
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Counts nothing.
    #[derive(Debug)]
    pub(crate) struct Unmetered;

    impl Meter for Unmetered {
        fn opened(&self) {}
        fn read(&self, _bytes: usize) {}
        fn written(&self, _bytes: usize) {}
        fn abused(&self, _reason: &'static str) {}
        fn closed(&self, _errno: Option<i32>) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn parts_arrive_in_order_whether_they_are_joined_or_not() {
        for size in [1, SMALL_WRITE / 2, SMALL_WRITE] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let mut far = listener.accept().await.unwrap().0;
            let parts = [vec![b'a'; size], Vec::new(), vec![b'b'; size]];
            let slices: Vec<_> = parts.iter().map(|part| io::IoSlice::new(part)).collect();
            let written = Socket::new(near).write_vectored(&slices).await.unwrap();
            let mut read = vec![0; written];
            far.read_exact(&mut read).await.unwrap();
            assert_eq!(read, parts.concat());
        }
    }
}
