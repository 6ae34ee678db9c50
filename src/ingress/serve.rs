//! Connections: accepted, bounded, timed, drained.
//!
//! A client that dribbles its request head is cut off by the header timeout, one that dribbles
//! its body by the body timeout of [`super::extract`], one that takes nothing of its answer by the send
//! timeout, and one that opens connections without end by the bound on them. When the shutdown signal comes, nothing new is accepted, requests in
//! flight finish within the drain timeout, idle connections close at once.

use super::{
    Options,
    problem::{Code, MEDIA_TYPE, Problem},
};
use axum::{
    Router,
    body::Body,
    http::{Request, Response, header},
};
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{convert::Infallible, future::Future, io, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};
use tokio_io_timeout::TimeoutStream;

/// Connections that are being told there are too many; beyond that they are just closed.
const REFUSALS_MAX: usize = 64;
/// How long a refused connection may take to send its request and read its refusal.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest request head, and the largest read buffer of a connection.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// A pause after `accept` failed for want of file descriptors or the like.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` until `shutdown` completes and the connections are drained.
///
/// # Errors
/// When the listener's own address cannot be read, that is, when it is no working listener.
/// Failures of single connections end those connections only.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    options: &Options,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    tracing::info!(address = %listener.local_addr()?, "serving HTTP");
    let mut server = Server::new(router, options);
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = server.connections.join_next(), if !server.connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => server.take(stream),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    server.drain().await;
    Ok(())
}

struct Server {
    http: http1::Builder,
    router: Router,
    connections: JoinSet<()>,
    permits: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    stopping: watch::Sender<bool>,
    send_timeout: Duration,
    drain_timeout: Duration,
}

impl Server {
    fn new(router: Router, options: &Options) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(options.header_read_timeout).max_buf_size(HEAD_BYTES_MAX);
        Self {
            http,
            router,
            connections: JoinSet::new(),
            permits: Arc::new(Semaphore::new(options.connections_max.min(Semaphore::MAX_PERMITS))),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            stopping: watch::Sender::new(false),
            send_timeout: options.send_timeout,
            drain_timeout: options.drain_timeout,
        }
    }

    fn take(&mut self, stream: TcpStream) {
        // Small answers must not wait for the acknowledgement of earlier ones.
        _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.send_timeout));
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            let draining = Draining(self.stopping.subscribe());
            let service = Routes { router: TowerToHyperService::new(self.router.clone()), draining };
            let connection = run(self.http.clone(), stream, service, self.stopping.subscribe(), permit);
            self.connections.spawn(connection);
        } else if let Ok(permit) = self.refusals.clone().try_acquire_owned() {
            let mut http = self.http.clone();
            http.keep_alive(false).header_read_timeout(REFUSAL_TIMEOUT);
            let refusing = run(http, stream, Refuse, self.stopping.subscribe(), permit);
            self.connections.spawn(async { _ = tokio::time::timeout(REFUSAL_TIMEOUT, refusing).await });
        }
    }

    async fn drain(mut self) {
        self.stopping.send_replace(true);
        let all_done = async { while self.connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.drain_timeout, all_done).await.is_err() {
            tracing::warn!(connections = self.connections.len(), "cut off connections that did not finish in time");
            self.connections.shutdown().await;
        }
    }
}

/// Told to every request (as an extension), for answers that would go on for ever: a request in
/// flight may take its time when the server stops, but not all of it.
#[derive(Clone)]
pub struct Draining(watch::Receiver<bool>);

impl Draining {
    /// Completes when the server begins to stop.
    pub async fn begun(mut self) {
        stopped(&mut self.0).await;
    }
}

/// The router, for the requests of one connection.
struct Routes {
    router: TowerToHyperService<Router>,
    draining: Draining,
}

impl Service<Request<Incoming>> for Routes {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.draining.clone());
        self.router.call(request)
    }
}

/// One connection from its first byte to its last.
async fn run<S>(
    http: http1::Builder,
    stream: TimeoutStream<TcpStream>,
    service: S,
    mut stopping: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
{
    let mut connection = pin!(http.serve_connection(TokioIo::new(Box::pin(stream)), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stopped(&mut stopping) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which is a stop as well.
    _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Answers everything with 503 `too-many-connections`.
struct Refuse;

impl Service<Request<Incoming>> for Refuse {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let trace = super::headers::Trace::of(request.headers());
        let code = Code::TooManyConnections;
        let body = Problem::new(code, code.title()).render(&trace.trace_id).to_string();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = code.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        headers.insert(super::headers::REQUEST_ID, trace.request_id);
        if let Ok(trace_id) = header::HeaderValue::from_str(&trace.trace_id) {
            headers.insert(super::headers::TRACE_ID, trace_id);
        }
        std::future::ready(Ok(response))
    }
}

/// Errors that say something about the one connection that was to be accepted, not about us.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused | K::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use bytes::Bytes;
    use futures::Stream;
    use std::{
        net::SocketAddr,
        pin::Pin,
        task::{Context, Poll},
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::{Notify, oneshot},
        task::JoinHandle,
        time::timeout,
    };

    const PATIENCE: Duration = Duration::from_secs(10);

    struct Running {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        server: JoinHandle<io::Result<()>>,
        /// Told when a request reached `/slow`.
        reached: Arc<Notify>,
        /// Lets a request to `/slow` go on.
        release: Arc<Notify>,
        /// Told when an answer of `/endless` is given up.
        dropped: Arc<Notify>,
    }

    /// More than any client takes.
    struct Endless(Arc<Notify>);

    impl Stream for Endless {
        type Item = Result<Bytes, Infallible>;

        fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            Poll::Ready(Some(Ok(Bytes::from_static(&[b'x'; 1 << 16]))))
        }
    }

    impl Drop for Endless {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }

    async fn start(options: Options) -> Running {
        let (reached, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = {
            let (reached, release) = (reached.clone(), release.clone());
            move || async move {
                reached.notify_one();
                release.notified().await;
                "slow"
            }
        };
        let dropped = Arc::new(Notify::new());
        let endless = {
            let dropped = dropped.clone();
            move || async move { Body::from_stream(Endless(dropped)) }
        };
        let router = Router::new().route("/", get(|| async { "hello" })).route("/slow", get(slow));
        let router = router.route("/endless", get(endless));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(async move { serve(listener, router, &options, async { _ = stopped.await }).await });
        Running { address, stop, server, reached, release, dropped }
    }

    async fn connect(address: SocketAddr) -> TcpStream {
        TcpStream::connect(address).await.expect("a connection")
    }

    async fn send(stream: &mut TcpStream, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
    }

    /// Reads until the response has ended with `end`, or the connection has.
    async fn read_until(stream: &mut TcpStream, end: &str) -> String {
        let mut read = Vec::new();
        let reading = async {
            let mut chunk = [0; 1024];
            while !String::from_utf8_lossy(&read).ends_with(end) || end.is_empty() {
                match stream.read(&mut chunk).await {
                    Ok(0) | Err(_) => break,
                    Ok(n) => read.extend_from_slice(&chunk[..n]),
                }
            }
        };
        timeout(PATIENCE, reading).await.expect("the response or the end in time");
        String::from_utf8_lossy(&read).into_owned()
    }

    #[tokio::test]
    async fn a_connection_beyond_the_bound_is_told_so_and_the_bound_frees_up() {
        let running = start(Options { connections_max: 1, ..Options::default() }).await;
        let mut first = connect(running.address).await;
        send(&mut first, "/").await;
        assert!(read_until(&mut first, "hello").await.starts_with("HTTP/1.1 200"));
        let mut second = connect(running.address).await;
        send(&mut second, "/").await;
        let refusal = read_until(&mut second, "").await;
        assert!(refusal.starts_with("HTTP/1.1 503") && refusal.contains("too-many-connections"), "{refusal}");
        drop(first);
        let accepted = async {
            loop {
                let mut next = connect(running.address).await;
                send(&mut next, "/").await;
                if read_until(&mut next, "hello").await.starts_with("HTTP/1.1 200") {
                    break;
                }
            }
        };
        timeout(PATIENCE, accepted).await.expect("a free connection after the first one closed");
    }

    #[tokio::test]
    async fn a_client_that_dribbles_its_head_is_cut_off() {
        let options = Options { header_read_timeout: Duration::from_millis(100), ..Options::default() };
        let running = start(options).await;
        let mut slow = connect(running.address).await;
        slow.write_all(b"GET / HTTP/1.1\r\nhost:").await.expect("written");
        let ended = read_until(&mut slow, "").await;
        assert!(!ended.contains("200"), "{ended}");
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_of_its_answer_is_cut_off() {
        let running = start(Options { send_timeout: Duration::from_millis(100), ..Options::default() }).await;
        let mut client = connect(running.address).await;
        send(&mut client, "/endless").await;
        timeout(PATIENCE, running.dropped.notified()).await.expect("the answer given up");
        // What was on its way can be read, and then there is no more, though the answer has no end.
        _ = timeout(PATIENCE, client.read_to_end(&mut Vec::new())).await.expect("the end of the connection");
    }

    #[tokio::test]
    async fn an_answer_may_take_longer_to_be_made_than_to_be_taken() {
        let send_timeout = Duration::from_millis(50);
        let running = start(Options { send_timeout, ..Options::default() }).await;
        let mut stream = connect(running.address).await;
        send(&mut stream, "/slow").await;
        timeout(PATIENCE, running.reached.notified()).await.expect("the request in the handler");
        tokio::time::sleep(send_timeout * 3).await;
        running.release.notify_one();
        assert!(read_until(&mut stream, "slow").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn a_request_in_flight_finishes_when_the_node_stops() {
        let running = start(Options::default()).await;
        let mut stream = connect(running.address).await;
        send(&mut stream, "/slow").await;
        timeout(PATIENCE, running.reached.notified()).await.expect("the request in the handler");
        running.stop.send(()).expect("the server runs");
        let refused = async {
            while TcpStream::connect(running.address).await.is_ok() {
                tokio::task::yield_now().await
            }
        };
        timeout(PATIENCE, refused).await.expect("no new connections while draining");
        running.release.notify_one();
        assert!(read_until(&mut stream, "").await.ends_with("slow"));
        timeout(PATIENCE, running.server).await.expect("the end in time").expect("no panic").expect("no error");
    }

    #[tokio::test]
    async fn a_request_that_never_finishes_does_not_hold_up_the_end() {
        let running = start(Options { drain_timeout: Duration::from_millis(50), ..Options::default() }).await;
        let mut stream = connect(running.address).await;
        send(&mut stream, "/slow").await;
        timeout(PATIENCE, running.reached.notified()).await.expect("the request in the handler");
        running.stop.send(()).expect("the server runs");
        timeout(PATIENCE, running.server).await.expect("the end in time").expect("no panic").expect("no error");
    }

    #[tokio::test]
    async fn an_idle_connection_does_not_hold_up_the_end() {
        let running = start(Options::default()).await;
        let mut idle = connect(running.address).await;
        send(&mut idle, "/").await;
        read_until(&mut idle, "hello").await;
        running.stop.send(()).expect("the server runs");
        timeout(PATIENCE, running.server).await.expect("the end in time").expect("no panic").expect("no error");
    }
}
