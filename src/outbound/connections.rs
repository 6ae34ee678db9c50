//! Connections to one host: dialled when needed, kept while they are idle, within a bound.

use super::{Error, Origin, Trust};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, StatusCode,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::{fmt::Display, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::Instant,
};

/// Idle connections that are kept; one more is closed after its answer.
const IDLE_MAX: usize = 32;
/// An idle connection that is older is not used: what is on the way may have forgotten it without a word.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);
/// The longest answer that is read.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;

pub type Outgoing = Request<Full<Bytes>>;

pub struct Connections {
    origin: Origin,
    trust: Trust,
    /// For TLS, too.
    connect_timeout: Duration,
    idle_time_max: Duration,
    /// With when each was last used; the one used last comes last.
    idle: Mutex<Vec<(Instant, SendRequest<Full<Bytes>>)>>,
}

impl Connections {
    pub fn new(origin: Origin, trust: Trust, connect_timeout: Duration) -> Self {
        Self { origin, trust, connect_timeout, idle_time_max: IDLE_TIME_MAX, idle: Mutex::default() }
    }

    /// Sends a request once and reads the whole answer. An error says nothing about whether it was
    /// carried out.
    pub async fn exchange(&self, request: Outgoing) -> Result<(StatusCode, Bytes), Error> {
        let (status, body) = self.send(request).await?;
        Ok((status, body?))
    }

    /// Sends a request once. What can be known from the status is known even where the rest of the
    /// answer is too long, or does not come.
    pub async fn send(&self, request: Outgoing) -> Result<(StatusCode, Result<Bytes, Error>), Error> {
        let mut connection = match self.idle().await {
            Some(connection) => connection,
            None => self.dial().await?,
        };
        let response = connection.send_request(request).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(broken);
        if body.is_ok() {
            self.keep(connection);
        }
        Ok((head.status, body.map(|body| body.to_bytes())))
    }

    /// A kept connection that is still open.
    async fn idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        loop {
            let (used, mut connection) = self.idle.lock().pop()?;
            if used.elapsed() > self.idle_time_max {
                // So are all the others.
                self.idle.lock().clear();
                return None;
            }
            if connection.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    fn keep(&self, connection: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push((Instant::now(), connection));
        }
    }

    async fn dial(&self) -> Result<SendRequest<Full<Bytes>>, Error> {
        if self.origin.is_https {
            // Nobody is connected to meanwhile, and it takes none of the time that there is for it.
            self.trust.ready().await.map_err(|why| Error(format!("cannot be reached: {why}")))?;
        }
        let dialled = tokio::time::timeout(self.connect_timeout, self.connect()).await;
        let late = |_| format!("not within {:?}", self.connect_timeout);
        dialled.map_err(late).flatten().map_err(|why| Error(format!("cannot be reached: {why}")))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let stream = TcpStream::connect(self.origin.address()).await.map_err(|error| error.to_string())?;
        // Small requests and answers take turns: waiting to fill a packet would only delay them.
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        match self.origin.is_https {
            true => begin(self.trust.secure(&self.origin.host, stream).await?).await,
            false => begin(stream).await,
        }
    }
}

async fn begin<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends with the sender; what goes wrong on it reaches whoever waits for the answer.
    tokio::spawn(connection);
    Ok(sender)
}

fn broken(error: impl Display) -> Error {
    Error(format!("the connection broke: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::{Response, body::Incoming, server::conn::http1::Builder, service::service_fn};
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };
    use tokio::{net::TcpListener, sync::Barrier};

    const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

    /// A server whose answers are as long as the path says; counts its connections. With a
    /// barrier, it answers only when so many have asked.
    async fn server(together: usize) -> (Connections, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let connections = to(&listener);
        let (accepted, barrier) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(together)));
        let count = accepted.clone();
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                count.fetch_add(1, Ordering::SeqCst);
                let barrier = barrier.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let barrier = barrier.clone();
                    async move {
                        barrier.wait().await;
                        let length = request.uri().path().trim_start_matches('/').parse().unwrap_or(0);
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(vec![b'x'; length]))))
                    }
                });
                tokio::spawn(Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        (connections, accepted)
    }

    fn to(listener: &TcpListener) -> Connections {
        let address = listener.local_addr().expect("an address");
        let origin = Origin { is_https: false, host: address.ip().to_string(), port: address.port() };
        Connections::new(origin, Trust::system(), CONNECT_TIMEOUT)
    }

    fn request(path: &str) -> Outgoing {
        Request::get(path).header("host", "x").body(Full::default()).expect("a request")
    }

    #[tokio::test]
    async fn idle_connections_are_reused_within_their_bound() {
        let many = IDLE_MAX + 8;
        let (connections, accepted) = server(many).await;
        for _ in 0..2 {
            let all = futures::future::join_all((0..many).map(|_| connections.exchange(request("/1")))).await;
            assert!(all.iter().all(Result::is_ok), "{all:?}");
            assert_eq!(connections.idle.lock().len(), IDLE_MAX);
        }
        // The second round dials only for what was not kept.
        assert_eq!(accepted.load(Ordering::SeqCst), many + 8);
    }

    #[tokio::test]
    async fn a_connection_that_was_idle_for_too_long_is_not_used_again() {
        for (idle_time_max, dialled) in [(IDLE_TIME_MAX, 1), (Duration::ZERO, 3)] {
            let (connections, accepted) = server(1).await;
            let connections = Connections { idle_time_max, ..connections };
            for _ in 0..3 {
                assert!(connections.exchange(request("/1")).await.is_ok());
            }
            assert_eq!(accepted.load(Ordering::SeqCst), dialled, "{idle_time_max:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_without_end_is_not_read() {
        let (connections, _) = server(1).await;
        assert!(connections.exchange(request(&format!("/{ANSWER_BYTES_MAX}"))).await.is_ok());
        let endless = connections.exchange(request(&format!("/{}", ANSWER_BYTES_MAX + 1))).await;
        assert!(endless.is_err(), "{endless:?}");
        let (status, body) = connections.send(request(&format!("/{}", ANSWER_BYTES_MAX + 1))).await.expect("a status");
        assert_eq!((status, body.is_err()), (StatusCode::OK, true));
    }

    #[tokio::test]
    async fn a_host_that_is_not_there_is_said_to_be_out_of_reach() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let connections = to(&listener);
        drop(listener);
        let refused = connections.exchange(request("/1")).await;
        assert!(matches!(&refused, Err(Error(why)) if why.contains("cannot be reached")), "{refused:?}");
    }
}
