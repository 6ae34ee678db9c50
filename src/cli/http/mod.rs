//! A small HTTP/1.1 client: one node, one kept-alive connection, JSON in and out; and beside that
//! bodies that are too large to be held ([`Client::download`], [`Client::upload`]).
//!
//! It never follows redirects, never uses a proxy, and never sends a request twice by itself: whether
//! that is safe is for the caller to know. Nodes have no TLS; what stands before them may.

mod stream;

pub use stream::{Answer, Download};

use crate::{
    config::Secret,
    outbound::{Origin, Trust},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    HeaderMap, Method, Request,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST},
    http::request,
};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Mutex,
};

/// Longest answer that is read.
const BODY_BYTES_MAX: usize = 64 << 20;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("`{url}` is not a node's address: {reason}; write it as http://127.0.0.1:8080")]
    BadUrl { url: String, reason: String },
    /// A path or header that cannot be sent, or a body that cannot be read.
    #[error("the request cannot be sent: {0}")]
    BadRequest(String),
    /// Nothing was sent.
    #[error("cannot reach {url}: {reason}")]
    Unreachable { url: String, reason: String },
    /// The request may have been carried out.
    #[error("{url} did not answer within {}", humantime(*.after))]
    TimedOut { url: String, after: Duration },
    /// The request may have been carried out.
    #[error("the connection to {url} broke: {reason}")]
    Broken { url: String, reason: String },
}

fn humantime(duration: Duration) -> String {
    format!("{duration:?}")
}

/// What was answered.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Response {
    /// The body as JSON; `Null` if it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    #[must_use]
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// `host:port` of an `http://` URL; whatever path follows is dropped. Port 80 if there is none. For what
/// asks nodes and nothing that stands before them.
///
/// # Errors
/// [`Error::BadUrl`].
pub fn authority(url: &str) -> Result<String, Error> {
    match origin(url)? {
        Origin { is_https: true, .. } => {
            Err(bad_url(url, "this command asks nodes by their own addresses, and they have no TLS"))
        }
        node => Ok(node.address()),
    }
}

fn bad_url(url: &str, reason: &str) -> Error {
    Error::BadUrl { url: url.to_owned(), reason: reason.to_owned() }
}

/// Whom a URL stands for; whatever path follows is dropped. `http://` if it does not say.
fn origin(url: &str) -> Result<Origin, Error> {
    let bad = |reason: &str| bad_url(url, reason);
    let (is_https, rest) = match url.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        Some(_) => return Err(bad("unknown scheme")),
        None => (false, url),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let parsed: hyper::http::uri::Authority = authority.parse().map_err(|_| bad("no host and port in it"))?;
    if authority.contains('@') {
        return Err(bad("credentials go into --token"));
    }
    Origin::of(is_https, &parsed).ok_or_else(|| bad("its port is none"))
}

/// What requests go over, and answers come.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection for S {}

/// A client for one node. Requests on one client follow one another; for parallel ones, make
/// more clients.
#[derive(Debug)]
pub struct Client {
    origin: Origin,
    trust: Trust,
    token: Option<Secret>,
    timeout: Duration,
    idle: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl Client {
    /// Connects only when the first request is sent.
    ///
    /// # Errors
    /// [`Error::BadUrl`].
    pub fn new(url: &str) -> Result<Self, Error> {
        let (origin, trust) = (origin(url)?, Trust::system());
        Ok(Self { origin, trust, token: None, timeout: TIMEOUT_DEFAULT, idle: Mutex::new(None) })
    }

    /// Sends `Authorization: Bearer …` with every request.
    #[must_use]
    pub fn with_token(mut self, token: Option<&str>) -> Self {
        self.token = token.map(Secret::new);
        self
    }

    /// Longest wait for a whole answer (30 s by default); of a download or an upload, the longest silence.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// `http://host:port`, or `https://…`.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.origin.is_https { "https" } else { "http" };
        format!("{scheme}://{}", self.origin.address())
    }

    /// # Errors
    /// No answer came; an answer of any status is `Ok`.
    pub async fn get(&self, path: &str) -> Result<Response, Error> {
        self.send(Method::GET, path, &[], None).await
    }

    /// # Errors
    /// As [`Self::get`].
    pub async fn post(
        &self,
        path: &str,
        json: &serde_json::Value,
        headers: &[(&str, &str)],
    ) -> Result<Response, Error> {
        self.send(Method::POST, path, headers, Some(json.to_string())).await
    }

    /// # Errors
    /// As [`Self::get`].
    pub async fn put(&self, path: &str, json: &serde_json::Value, headers: &[(&str, &str)]) -> Result<Response, Error> {
        self.send(Method::PUT, path, headers, Some(json.to_string())).await
    }

    /// # Errors
    /// As [`Self::get`].
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        json: Option<String>,
    ) -> Result<Response, Error> {
        let request = self.request(method, path, headers, json)?;
        let exchange = tokio::time::timeout(self.timeout, self.exchange(request)).await;
        exchange.unwrap_or_else(|_| Err(self.timed_out(self.timeout)))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        json: Option<String>,
    ) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = self.head(method, path, headers);
        if json.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = Full::new(Bytes::from(json.unwrap_or_default()));
        request.body(body).map_err(|error| Error::BadRequest(error.to_string()))
    }

    /// Everything but the body and its type.
    fn head(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> request::Builder {
        let mut request =
            Request::builder().method(method).uri(path).header(HOST, self.origin.host_header()).header(ACCEPT, "*/*");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response, Error> {
        let mut connection = self.connection().await?;
        let response = connection.send_request(request).await.map_err(|error| self.broken(&error))?;
        let response = self.whole(response).await?;
        *self.idle.lock().await = Some(connection);
        Ok(response)
    }

    /// With the body, up to what is read of one.
    async fn whole(&self, response: hyper::Response<Incoming>) -> Result<Response, Error> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| self.broken(&*error))?;
        Ok(Response { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
    }

    /// The idle connection if the node still holds it open, else a new one.
    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>, Error> {
        if let Some(mut connection) = self.idle.lock().await.take()
            && connection.ready().await.is_ok()
        {
            return Ok(connection);
        }
        let stream = self.dial().await?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.unreachable(&error))?;
        // Ends with the sender; what goes wrong on it reaches whoever waits for the answer.
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn dial(&self) -> Result<Box<dyn Connection>, Error> {
        let stream = TcpStream::connect(self.origin.address()).await.map_err(|error| self.unreachable(&error))?;
        // Small requests and answers take turns: waiting to fill a packet would only delay them.
        stream.set_nodelay(true).map_err(|error| self.unreachable(&error))?;
        if !self.origin.is_https {
            return Ok(Box::new(stream));
        }
        let secured = self.trust.secure(&self.origin.host, stream).await;
        secured.map(|stream| Box::new(stream) as _).map_err(|reason| Error::Unreachable { url: self.url(), reason })
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> Error {
        Error::Unreachable { url: self.url(), reason: error.to_string() }
    }

    fn broken(&self, error: &dyn std::error::Error) -> Error {
        Error::Broken { url: self.url(), reason: error.to_string() }
    }

    fn timed_out(&self, after: Duration) -> Error {
        Error::TimedOut { url: self.url(), after }
    }
}

/// `text` as one segment of a path.
#[must_use]
pub fn segment(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use axum::{Router, routing};
    use tokio::net::TcpListener;

    pub(in crate::cli) async fn serve(router: Router) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    #[test]
    fn urls_become_authorities() {
        assert_eq!(authority("http://127.0.0.1:8080/x?y"), Ok("127.0.0.1:8080".into()));
        assert_eq!(authority("localhost:1"), Ok("localhost:1".into()));
        assert_eq!(authority("http://[::1]"), Ok("[::1]:80".into()));
        let proxy = Client::new("https://shop.example/x").expect("a URL");
        assert_eq!(
            (proxy.url(), proxy.origin.host_header()),
            ("https://shop.example:443".into(), "shop.example".into())
        );
        for bad in ["", "https://a", "a:99999", "http://a:8o", "ftp://a", "http://", "http://u:p@a:1", "http://a b"] {
            assert!(matches!(authority(bad), Err(Error::BadUrl { .. })), "{bad}");
        }
    }

    #[test]
    fn segments_cannot_leave_their_place() {
        assert_eq!(segment("a/b?c%"), "a%2Fb%3Fc%25");
        assert_eq!(segment("ord_1-x.y~"), "ord_1-x.y~");
    }

    #[tokio::test]
    async fn requests_share_a_connection_and_carry_headers_and_body() {
        use axum::extract::ConnectInfo;
        let route = routing::post(
            |ConnectInfo(peer): ConnectInfo<std::net::SocketAddr>, headers: HeaderMap, body: String| async move {
                let header =
                    |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("none").to_owned();
                format!("{peer} {} {} {body}", header("authorization"), header("x-a"))
            },
        );
        let router = Router::new().route("/echo", route);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            axum::serve(listener, router.into_make_service_with_connect_info::<std::net::SocketAddr>()).await
        });
        let client = Client::new(&url).expect("a url").with_token(Some("t"));
        let body = serde_json::json!({"k": 1});
        let first = client.post("/echo", &body, &[("x-a", "b")]).await.expect("an answer");
        let second = client.post("/echo", &body, &[("x-a", "b")]).await.expect("an answer");
        assert_eq!(first.status, 200);
        assert!(first.text().ends_with("Bearer t b {\"k\":1}"), "{}", first.text());
        assert_eq!(first.text(), second.text(), "the peer's port is in it: one connection for both");
    }

    #[tokio::test]
    async fn a_closed_connection_is_replaced() {
        let router = Router::new().route("/", routing::get(|| async { ([("connection", "close")], "x") }));
        let client = Client::new(&serve(router).await).expect("a url");
        for _ in 0..3 {
            assert_eq!(client.get("/").await.expect("an answer").text(), "x");
        }
    }

    #[tokio::test]
    async fn nobody_there_and_nobody_answering_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let silent = format!("http://{}", listener.local_addr().expect("an address"));
        let client = Client::new(&silent).expect("a url").with_timeout(Duration::from_millis(50));
        assert!(matches!(client.get("/").await, Err(Error::TimedOut { .. })));
        drop(listener);
        let client = Client::new(&silent).expect("a url");
        assert!(matches!(client.get("/").await, Err(Error::Unreachable { .. })));
    }
}
