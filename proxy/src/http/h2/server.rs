//! Serving HTTP/2: a task for each connection accepts its streams, and a task for each stream answers its request.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response, Version};
use http_body::Body as _;
use outrigger_http2::server::{self, Accepted, Config};
use outrigger_http2::{Reason, Send as SendStream};
use tokio::time::{sleep, timeout};

use crate::config::Http2Server;
use crate::drain::Drain;
use crate::error::{self, BoxError};
use crate::http::body::{Body, Track, Tracked};
use crate::http::closing::Closing;
use crate::http::h2::backlog::{Backlog, Share};
use crate::http::h2::flood::RAPID_RESETS;
use crate::http::h2::guard::Guarded;
use crate::http::h2::window::Windows;
use crate::http::h2::{keep_alive, reason, recv, send};
use crate::http::interim::{Interims, Pending};
use crate::http::rarely::rarely;
use crate::net::io::Io;

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client went away, it broke the protocol, or the connection failed.
    #[error("the HTTP/2 connection broke off")]
    Connection(#[from] outrigger_http2::Error),
    /// The client is not there any more.
    #[error("the client left a PING unanswered")]
    Unanswered,
    /// The client has not begun.
    #[error("the client sent no HTTP/2 preface in time")]
    Silent,
}

/// Serves HTTP/2 until the client goes, an error, or the drain's end.
///
/// A connection that is to end says so twice (RFC 9113 §6.8): first that it wants no more streams, and when the client
/// knows, which was the last one. All up to that one are served, and it ends with them. One whose client never says that
/// it knows ends when it has had no stream for a while.
pub async fn serve<S, F, T>(
    mut io: Io,
    service: S,
    settings: &Http2Server,
    backlog: &Arc<Backlog>,
    closing: Closing,
    mut drain: Drain,
) -> Result<(), Error>
where
    S: Fn(Request<Body>, Interims) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<Tracked<T>>, BoxError>> + Send + 'static,
    T: Track + Unpin + Send + 'static,
{
    let peer = settings.keep_alive.map(|keep_alive| (keep_alive, io.activity()));
    let streams = settings.max_concurrent_streams;
    let windows = Windows::configured(settings.flow_control, streams);
    let share = Share::of_client(backlog, windows.spare(streams));
    let io = Guarded::from_client(io, settings.flood_scale, share.clone());
    let config = config(settings, windows);
    let opening = timeout(settings.preface_timeout, server::handshake(io, &config));
    let mut connection = opening.await.map_err(|_elapsed| Error::Silent)??;
    let pings = peer.map(|(keep_alive, peer)| (keep_alive, peer, connection.pings()));
    let interims = Arc::<Pending>::default();
    let mut silent = pin!(rarely(async move {
        match pings {
            Some((keep_alive, peer, pings)) => keep_alive::unanswered(pings, peer, keep_alive, || true).await,
            None => pending().await,
        }
    }));
    let mut end = pin!(rarely(async {
        tokio::select! {
            () = closing.or_drain(&mut drain) => {}
            () = after(settings.max_age.map(around)) => {}
        }
    }));
    let mut round = pin!(rarely(after(settings.max_idle)));
    let (mut ending, mut used) = (false, true);
    loop {
        tokio::select! {
            biased; // What has arrived before the drain is still served.
            accepted = connection.accept() => {
                let Some(stream) = accepted else { return Ok(()) };
                let (request, stream) = received(stream?, &share);
                let answer = answer(service.clone(), interims.clone(), request, stream);
                // A task is moved about while it is made, and this is large.
                tokio::spawn(Box::pin(answer));
                used = true;
            }
            () = silent.as_mut() => return Err(Error::Unanswered),
            () = end.as_mut(), if !ending => {
                connection.graceful_shutdown();
                ending = true;
                round.set(rarely(after(Some(PATIENCE))));
            }
            () = round.as_mut() => {
                let idle = !used && !connection.has_streams();
                if idle && ending {
                    // The client does not answer the PING that asks it whether it knows.
                    connection.abrupt_shutdown(Reason::NO_ERROR);
                } else if idle {
                    connection.graceful_shutdown();
                    ending = true;
                }
                used = false;
                round.set(rarely(after(if ending { Some(PATIENCE) } else { settings.max_idle })));
            }
        }
    }
}

/// How long a client that was said goodbye to may have no stream before it is left.
const PATIENCE: Duration = Duration::from_secs(10);

fn config(settings: &Http2Server, windows: Windows) -> Config {
    // Clients of one pod share a connection, and a busy proxy may find many of their resets before it has looked at the
    // first request. CVE-2023-44487 is for `Guarded` to tell, which lets no more of them through at once; where it is
    // switched off, this is what is left.
    let early_resets = RAPID_RESETS.saturating_mul(settings.flood_scale.max(1)) as usize;
    let defaults = Config::default();
    Config {
        max_streams: settings.max_concurrent_streams,
        stream_window: windows.stream,
        connection_window: windows.connection,
        max_frame_size: settings.max_frame_size.unwrap_or(defaults.max_frame_size),
        max_header_list_size: settings.max_header_list_size,
        send_buffer: settings.max_send_buf_size.unwrap_or(defaults.send_buffer).max(1),
        early_resets: settings.max_pending_accept_reset_streams.unwrap_or(early_resets),
        ..defaults
    }
}

/// Waits this long, if at all.
async fn after(time: Option<Duration>) {
    match time {
        Some(time) => sleep(time).await,
        None => pending().await,
    }
}

/// This long, give or take a tenth: connections that were opened together do not end together.
fn around(time: Duration) -> Duration {
    time.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// Answers one request. It ends where the client resets the stream or goes away, and with it whatever it waits for.
async fn answer<S, F, T>(service: S, interims: Arc<Pending>, request: Request<Body>, mut stream: SendStream)
where
    S: Fn(Request<Body>, Interims) -> F,
    F: Future<Output = Result<Response<Tracked<T>>, BoxError>>,
    T: Track + Unpin,
{
    let begun = {
        let exchange = stream.id();
        let passed = Interims::of(&interims, exchange, Version::HTTP_2);
        let mut responding = pin!(service(request, passed));
        poll_fn(|cx| {
            let response = responding.as_mut().poll(cx);
            while let Some(interim) = interims.take(exchange) {
                inform(&interim, &mut stream);
            }
            match response {
                Poll::Ready(response) => Poll::Ready(begin(response, &mut stream)),
                Poll::Pending => stream.poll_reset(cx).map(|_gone| None),
            }
        })
        .await
    };
    if let Some(body) = begun
        && let Err(error) = send::send(stream, body, Reason::INTERNAL_ERROR).await
    {
        tracing::debug!(error = error::chain(&error), "a response broke off");
    }
}

fn received(accepted: Accepted, share: &Arc<Share>) -> (Request<Body>, SendStream) {
    let (head, ()) = accepted.request.into_parts();
    let body = recv::body(accepted.recv, &head.headers, |stream| share.accept(stream));
    (Request::from_parts(head, body), accepted.send)
}

/// Sends an interim head, which a client that has gone does not miss.
fn inform(interim: &Response<()>, stream: &mut SendStream) {
    if let Err(error) = stream.send_head(interim, false) {
        tracing::debug!(%error, "an interim answer could not be sent");
    }
}

/// Sends the head of a response, and says what is left to send. An error is one that a reset says better.
fn begin<T: Track + Unpin>(
    response: Result<Response<Tracked<T>>, BoxError>,
    stream: &mut SendStream,
) -> Option<Tracked<T>> {
    let response = match response {
        Ok(response) => response,
        Err(error) => {
            stream.reset(reason::of(&*error).unwrap_or(Reason::INTERNAL_ERROR));
            return None;
        }
    };
    let ended = response.body().is_end_stream();
    if let Err(error) = stream.send_head(&response, ended) {
        tracing::debug!(%error, "a response could not be sent");
        return None;
    }
    (!ended).then(|| response.into_body())
}

#[cfg(test)]
mod tests {
    use ::h2::client::{self, SendRequest};
    use bytes::Bytes;
    use http::HeaderMap;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::{Notify, Semaphore};
    use tokio::task::JoinHandle;

    use super::*;
    use crate::config::{FlowControl, KeepAlive};
    use crate::drain::{self, Drainer};
    use crate::http::body::End;
    use crate::http::h2::backlog::testing::boundless;

    const SETTINGS: Http2Server = Http2Server {
        preface_timeout: Duration::from_secs(10),
        flow_control: FlowControl::Streams(65_535),
        keep_alive: None,
        max_concurrent_streams: 100,
        max_age: None,
        max_idle: None,
        max_frame_size: None,
        max_header_list_size: 16 << 10,
        max_pending_accept_reset_streams: None,
        max_send_buf_size: None,
        flood_scale: 1,
    };

    const HEADERS: u8 = 1;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    /// What a connection begins with: the preface and empty SETTINGS (RFC 9113 §3.4).
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    struct Untold;

    impl Track for Untold {
        fn first_frame(&mut self) {}

        fn trailers(&mut self, _trailers: &HeaderMap) {}

        fn finish(self, _end: End<'_>) {}
    }

    type Answer = Result<Response<Tracked<Untold>>, BoxError>;

    fn ok(body: Body) -> Answer {
        Ok(Response::new(Tracked::new(body, Untold)))
    }

    /// Serves one end of a pipe; the other end, what drains it, and what comes of it.
    fn serving<S, F>(
        settings: Http2Server,
        service: S,
    ) -> (DuplexStream, Drainer, JoinHandle<Result<(), Error>>)
    where
        S: Fn(Request<Body>, Interims) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let (near, far) = duplex(1 << 20);
        let (drainer, drain) = drain::channel();
        let backlog = boundless();
        let served = tokio::spawn(async move {
            serve(
                Io::pipe(far),
                service,
                &settings,
                &backlog,
                Closing::default(),
                drain,
            )
            .await
        });
        (near, drainer, served)
    }

    /// A client on the other end.
    async fn client(pipe: DuplexStream) -> SendRequest<Bytes> {
        let (sender, connection) = client::handshake(pipe).await.unwrap();
        tokio::spawn(connection);
        sender.ready().await.unwrap()
    }

    fn get(path: &str) -> Request<()> {
        Request::get(format!("http://app{path}")).body(()).unwrap()
    }

    #[tokio::test]
    async fn a_response_without_a_body_ends_in_its_headers() {
        let (pipe, _drainer, _served) = serving(SETTINGS, async |_request, _interims| ok(Body::Empty));
        let mut client = client(pipe).await;
        let (response, _) = client.send_request(get("/"), true).unwrap();
        assert!(response.await.unwrap().body().is_end_stream());
    }

    #[tokio::test]
    async fn interim_answers_go_out_before_the_answer() {
        let service = async |_request, interims: Interims| {
            for status in [100, 103] {
                let interim = Response::builder().status(status).body(()).unwrap();
                interims.pass(interim).unwrap();
            }
            ok(Body::Empty)
        };
        let (pipe, _drainer, _served) = serving(SETTINGS, service);
        let mut client = client(pipe).await;
        let (mut response, _) = client.send_request(get("/"), true).unwrap();
        for status in [100, 103] {
            let interim = poll_fn(|cx| response.poll_informational(cx)).await;
            assert_eq!(interim.unwrap().unwrap().status(), status);
        }
        assert_eq!(response.await.unwrap().status(), 200);
    }

    #[tokio::test]
    async fn a_body_is_served_as_it_comes() {
        let echo = async |request: Request<Body>, _interims| ok(request.into_body());
        let (pipe, _drainer, _served) = serving(SETTINGS, echo);
        let mut client = client(pipe).await;
        let (response, mut upload) = client.send_request(get("/"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        for text in ["there", "and back"] {
            upload.send_data(Bytes::from(text), false).unwrap();
            assert_eq!(body.data().await.unwrap().unwrap(), text);
        }
        upload.send_data(Bytes::new(), true).unwrap();
        assert!(body.data().await.is_none_or(|data| data.unwrap().is_empty()));
    }

    #[tokio::test]
    async fn an_error_that_a_reset_says_better_is_that_reset() {
        let refuse = async |_request, _interims| -> Answer {
            Err(outrigger_http2::Error::from(Reason::ENHANCE_YOUR_CALM).into())
        };
        let (pipe, _drainer, _served) = serving(SETTINGS, refuse);
        let mut client = client(pipe).await;
        let (response, _) = client.send_request(get("/"), true).unwrap();
        assert_eq!(
            response.await.unwrap_err().reason(),
            Some(::h2::Reason::ENHANCE_YOUR_CALM)
        );
    }

    #[tokio::test]
    async fn a_stream_that_the_client_resets_ends_what_answers_it() {
        let (begun, dropped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (begins, drops) = (begun.clone(), dropped.clone());
        let hang = move |_request, _interims| {
            let (begins, drops) = (begins.clone(), drops.clone());
            async move {
                let _told = scopeguard(drops);
                begins.notify_one();
                pending().await
            }
        };
        let (pipe, _drainer, _served) = serving(SETTINGS, hang);
        let mut client = client(pipe).await;
        let (response, mut stream) = client.send_request(get("/"), true).unwrap();
        begun.notified().await;
        stream.send_reset(::h2::Reason::CANCEL);
        drop(response);
        dropped.notified().await;
    }

    /// Notifies when it is dropped.
    fn scopeguard(notify: Arc<Notify>) -> impl Drop {
        struct Told(Arc<Notify>);
        impl Drop for Told {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        Told(notify)
    }

    #[tokio::test]
    async fn a_panic_ends_its_stream_and_no_other() {
        let service = async |request: Request<Body>, _interims| {
            assert_ne!(request.uri().path(), "/panic");
            ok(Body::Empty)
        };
        let (pipe, _drainer, _served) = serving(SETTINGS, service);
        let mut client = client(pipe).await;
        let (broken, _) = client.send_request(get("/panic"), true).unwrap();
        assert!(broken.await.unwrap_err().is_reset());
        let (whole, _) = client.send_request(get("/"), true).unwrap();
        assert_eq!(whole.await.unwrap().status(), 200);
    }

    /// `GET http://app/` on a stream, and its end (RFC 9113 §6.2, RFC 7541 §6).
    fn request(stream: u8) -> Vec<u8> {
        let fields = b"\x82\x86\x84\x41\x03app";
        [&[0, 0, 8, HEADERS, 0x05, 0, 0, 0, stream], &fields[..]].concat()
    }

    /// The next frame: its type, its stream, and what it carries.
    async fn frame(pipe: &mut DuplexStream) -> (u8, u8, Vec<u8>) {
        let mut head = [0; 9];
        pipe.read_exact(&mut head).await.unwrap();
        let mut content = vec![0; usize::from(head[2])];
        pipe.read_exact(&mut content).await.unwrap();
        (head[3], head[8], content)
    }

    /// What a frame of this type carries; others are passed over.
    async fn until(pipe: &mut DuplexStream, kind: u8) -> (u8, Vec<u8>) {
        loop {
            let (found, stream, content) = frame(pipe).await;
            if found == kind {
                return (stream, content);
            }
        }
    }

    #[tokio::test]
    async fn a_drain_serves_what_has_begun_and_what_races_with_it() {
        let gate = Arc::new(Semaphore::new(0));
        let opened = gate.clone();
        let service = move |_request, _interims| {
            let opened = opened.clone();
            async move {
                opened.acquire().await.unwrap().forget();
                ok(Body::Empty)
            }
        };
        let (mut pipe, drainer, served) = serving(SETTINGS, service);
        pipe.write_all(PREFACE).await.unwrap();
        pipe.write_all(&request(1)).await.unwrap();
        let draining = tokio::spawn(drainer.drain());
        let (_, goodbye) = until(&mut pipe, GOAWAY).await;
        assert_eq!(goodbye, [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        let (_, ping) = until(&mut pipe, PING).await;
        // The client has not heard of it yet when it sends this.
        pipe.write_all(&request(3)).await.unwrap();
        let pong = [&[0, 0, 8, PING, 0x01, 0, 0, 0, 0], &ping[..]].concat();
        pipe.write_all(&pong).await.unwrap();
        let (_, goodbye) = until(&mut pipe, GOAWAY).await;
        assert_eq!(goodbye, [0, 0, 0, 3, 0, 0, 0, 0]);
        gate.add_permits(2);
        let mut answered = [
            until(&mut pipe, HEADERS).await.0,
            until(&mut pipe, HEADERS).await.0,
        ];
        answered.sort_unstable();
        assert_eq!(answered, [1, 3]);
        served.await.unwrap().unwrap();
        draining.await.unwrap();
    }

    // The clock stands still, but for waits that nothing else can end.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_gets_old_or_idle_is_closed() {
        let time = Some(Duration::from_secs(600));
        let old = Http2Server {
            max_age: time,
            ..SETTINGS
        };
        let idle = Http2Server {
            max_idle: time,
            ..SETTINGS
        };
        for settings in [old, idle] {
            let (pipe, _drainer, served) = serving(settings, async |_request, _interims| ok(Body::Empty));
            let mut client = client(pipe).await;
            let (response, _) = client.send_request(get("/"), true).unwrap();
            response.await.unwrap();
            let within = Duration::from_secs(1_800);
            assert!(timeout(within, served).await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_client_that_answers_no_ping_is_given_up() {
        let settings = Http2Server {
            keep_alive: Some(KeepAlive {
                interval: Duration::from_secs(10),
                timeout: Duration::from_secs(3),
            }),
            max_age: Some(Duration::from_secs(600)),
            ..SETTINGS
        };
        let (pipe, _drainer, served) = serving(settings.clone(), async |_request, _interims| ok(Body::Empty));
        let _answers = client(pipe).await;
        let ended = served.await.unwrap();
        assert!(!matches!(ended, Err(Error::Unanswered)), "{ended:?}");
        let (mut pipe, _drainer, served) = serving(settings, async |_request, _interims| ok(Body::Empty));
        pipe.write_all(PREFACE).await.unwrap();
        assert!(matches!(served.await.unwrap(), Err(Error::Unanswered)));
        pipe.read_to_end(&mut Vec::new()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_says_that_it_knows_of_the_goodbye_is_left() {
        let old = Http2Server {
            max_age: Some(Duration::from_secs(60)),
            ..SETTINGS
        };
        let idle = Http2Server {
            max_idle: Some(Duration::from_secs(60)),
            ..SETTINGS
        };
        for settings in [old, idle] {
            let (mut pipe, _drainer, served) = serving(settings, async |_request, _interims| ok(Body::Empty));
            pipe.write_all(PREFACE).await.unwrap();
            let (_, goodbye) = until(&mut pipe, GOAWAY).await;
            assert_eq!(goodbye, [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
            until(&mut pipe, PING).await;
            pipe.write_all(&request(1)).await.unwrap();
            // It was not left while it asked for something.
            let (_, last) = until(&mut pipe, GOAWAY).await;
            assert_eq!(last, [0, 0, 0, 1, 0, 0, 0, 0]);
            served.await.unwrap().unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_begins_is_given_up() {
        for begun in [0, 10, PREFACE.len() - 10] {
            let (mut pipe, _drainer, served) = serving(SETTINGS, async |_request, _interims| ok(Body::Empty));
            pipe.write_all(&PREFACE[..begun]).await.unwrap();
            assert!(matches!(served.await.unwrap(), Err(Error::Silent)), "{begun}");
        }
    }

    #[tokio::test]
    async fn a_tunnel_is_a_stream_with_bodies_both_ways() {
        let echo = async |request: Request<Body>, _interims| {
            let protocol = request.extensions().get::<outrigger_http2::Protocol>().cloned();
            assert_eq!(protocol.unwrap().as_str(), "websocket");
            ok(request.into_body())
        };
        let (pipe, _drainer, _served) = serving(SETTINGS, echo);
        let mut client = client(pipe).await;
        let (settings, _) = client.send_request(get("/"), true).unwrap();
        drop(settings.await);
        assert!(client.is_extended_connect_protocol_enabled());
        let mut connect = get("/chat");
        *connect.method_mut() = http::Method::CONNECT;
        let websocket = ::h2::ext::Protocol::from_static("websocket");
        connect.extensions_mut().insert(websocket);
        let (response, mut upload) = client.send_request(connect, false).unwrap();
        let mut body = response.await.unwrap().into_body();
        upload.send_data(Bytes::from_static(b"frame"), false).unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), "frame");
    }
}
