//! Bodies that are too large to be held: had and sent piece by piece.
//!
//! Each transfer has a connection of its own, which ends with it. The client's timeout is the longest *silence*, not
//! the longest transfer: of a download, until its head or the next bytes are there; of an upload, until more is taken
//! or the answer is there. Buffers on both sides hold megabytes, so that an upload is out of sight long before the
//! node has all of it: silence in its middle and behind its end cannot be told apart, and are bounded alike.

use super::{Client, Connection, Error, Response, TIMEOUT_DEFAULT};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    HeaderMap, Method,
    body::{Body, Frame, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use std::{
    error::Error as _,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

/// Longest wait for a connection, also where silence may last longer.
const CONNECT_MAX: Duration = TIMEOUT_DEFAULT;

/// What came of asking for a download.
#[derive(Debug)]
pub enum Answer {
    Download(Download),
    /// Any status that is no success, with its body.
    Refusal(Response),
}

/// A body on its way.
#[derive(Debug)]
pub struct Download {
    pub status: u16,
    pub headers: HeaderMap,
    body: Incoming,
    url: String,
    silence_max: Duration,
    _connection: AbortOnDropHandle<()>,
}

impl Download {
    /// The next bytes; `None` when it ended as the node meant it to.
    ///
    /// # Errors
    /// It broke off, or nothing came for too long.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let timed_out = |_| Error::TimedOut { url: self.url.clone(), after: self.silence_max };
        let frame = timeout(self.silence_max, self.body.frame()).await.map_err(timed_out)?;
        match frame {
            // Trailers carry no bytes, and come last.
            Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
            Some(Err(error)) => Err(Error::Broken { url: self.url.clone(), reason: error.to_string() }),
            None => Ok(None),
        }
    }
}

impl Client {
    /// POST without a body, answered with one that is pulled piece by piece.
    ///
    /// # Errors
    /// No answer came; an answer of any status is `Ok`.
    pub async fn download(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer, Error> {
        let request = self.head(Method::POST, path, headers).body(Full::new(Bytes::new()));
        let request = request.map_err(|error| Error::BadRequest(error.to_string()))?;
        let (mut sender, connection) = self.begin().await?;
        let response = self.in_time(sender.send_request(request)).await?.map_err(|error| self.broken(&error))?;
        if !response.status().is_success() {
            return Ok(Answer::Refusal(self.in_time(self.whole(response)).await??));
        }
        let (head, body) = response.into_parts();
        Ok(Answer::Download(Download {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            url: self.url(),
            silence_max: self.timeout,
            _connection: connection,
        }))
    }

    /// POST of a body that is read piece by piece, as the node takes it. Answers that come before all of it is sent
    /// end it.
    ///
    /// # Errors
    /// No answer came, or the body cannot be read; an answer of any status is `Ok`.
    pub async fn upload<S>(&self, path: &str, headers: &[(&str, &str)], body: S) -> Result<Response, Error>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        // This sender stays, so that the news do not end with the body.
        let (taken, mut news) = watch::channel(());
        let taken_from_body = taken.clone();
        let body = body.map_ok(Frame::data).inspect(move |_| taken_from_body.send_replace(()));
        let request = self.head(Method::POST, path, headers).body(StreamBody::new(body));
        let request = request.map_err(|error| Error::BadRequest(error.to_string()))?;
        let (mut sender, _connection) = self.begin().await?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| self.not_sent(&error))?;
            self.whole(response).await
        };
        let mut answer = std::pin::pin!(answer);
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                news = self.in_time(news.changed()) => news?.unwrap_or_default(),
            }
        }
    }

    async fn begin<B>(&self) -> Result<(SendRequest<B>, AbortOnDropHandle<()>), Error>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let wait = self.timeout.min(CONNECT_MAX);
        let stream = timeout(wait, self.dial()).await.map_err(|_| self.timed_out(wait))??;
        let (sender, connection) =
            http1::handshake(TokioIo::new(Hearing(stream))).await.map_err(|error| self.unreachable(&error))?;
        // What goes wrong on it reaches whoever waits for the answer.
        let connection = tokio::spawn(async move { drop(connection.await) });
        Ok((sender, AbortOnDropHandle::new(connection)))
    }

    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        timeout(self.timeout, work).await.map_err(|_| self.timed_out(self.timeout))
    }

    /// A body that cannot be read is not the node's fault.
    fn not_sent(&self, error: &hyper::Error) -> Error {
        match error.source() {
            Some(body) if error.is_user() => Error::BadRequest(body.to_string()),
            _ => self.broken(error),
        }
    }
}

/// A connection on which a failed write is no news: what is read tells what happened.
///
/// A node that refuses an upload answers and hangs up without having read all of it. The write that fails then must
/// not hide the answer that is there to be read; and if there is none, reading fails as well.
struct Hearing(Box<dyn Connection>);

impl AsyncRead for Hearing {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Hearing {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        or_wait(Pin::new(&mut self.0).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        or_wait(Pin::new(&mut self.0).poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        or_wait(Pin::new(&mut self.0).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Nobody is woken by the write any more: whoever reads is, as a connection that cannot be written to has ended.
fn or_wait<T>(written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
    match written {
        Poll::Ready(Err(_)) => Poll::Pending,
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::http::tests::serve;
    use axum::{Router, body, http::StatusCode, routing};
    use futures::stream;
    use std::{
        io::Write,
        sync::{Arc, mpsc as std_mpsc},
    };
    use tokio::sync::{Mutex, mpsc};

    const PIECE: Bytes = Bytes::from_static(&[7; 64 << 10]);

    type Pieces = mpsc::Sender<io::Result<Bytes>>;

    /// A node whose one download is what is put into the channel.
    async fn serve_pieces() -> (Client, Pieces) {
        let (pieces, source) = mpsc::channel(1);
        let source = Arc::new(Mutex::new(Some(source)));
        let route = routing::post(move || async move {
            let source = source.lock().await.take().expect("one download");
            let pull = async |mut source: mpsc::Receiver<io::Result<Bytes>>| Some((source.recv().await?, source));
            body::Body::from_stream(stream::unfold(source, pull))
        });
        let url = serve(Router::new().route("/", route)).await;
        (Client::new(&url).expect("a url"), pieces)
    }

    async fn begin(client: &Client) -> Download {
        match client.download("/", &[]).await.expect("an answer") {
            Answer::Download(download) => download,
            Answer::Refusal(refusal) => panic!("{refusal:?}"),
        }
    }

    #[tokio::test]
    async fn a_download_is_had_piece_by_piece_while_the_rest_is_still_being_made() {
        let (client, pieces) = serve_pieces().await;
        let mut download = begin(&client).await;
        for _ in 0..100 {
            pieces.send(Ok(PIECE)).await.expect("pulled");
            let mut had = 0;
            while had < PIECE.len() {
                had += download.next().await.expect("bytes").expect("more to come").len();
            }
            assert_eq!(had, PIECE.len());
        }
        drop(pieces);
        assert_eq!(download.next().await, Ok(None));
    }

    #[tokio::test]
    async fn a_download_that_breaks_off_is_no_end() {
        let (client, pieces) = serve_pieces().await;
        let mut download = begin(&client).await;
        pieces.send(Ok(Bytes::from_static(b"half"))).await.expect("pulled");
        assert_eq!(download.next().await, Ok(Some(Bytes::from_static(b"half"))));
        pieces.send(Err(io::Error::other("a shard went away"))).await.expect("pulled");
        assert!(matches!(download.next().await, Err(Error::Broken { .. })));
    }

    #[tokio::test]
    async fn silence_ends_a_download_and_length_does_not() {
        let (client, pieces) = serve_pieces().await;
        let client = client.with_timeout(Duration::from_secs(1));
        let mut download = begin(&client).await;
        let talk = tokio::spawn(async move {
            for _ in 0..15 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                pieces.send(Ok(Bytes::from_static(b"."))).await.expect("pulled");
            }
            pieces
        });
        for _ in 0..15 {
            assert_eq!(download.next().await, Ok(Some(Bytes::from_static(b"."))));
        }
        let _silent = talk.await.expect("all said");
        assert!(matches!(download.next().await, Err(Error::TimedOut { .. })));
    }

    #[tokio::test]
    async fn a_download_that_is_refused_comes_with_the_whole_reason() {
        let refuse = || async { (StatusCode::TOO_MANY_REQUESTS, [("x-a", "b")], "another one is under way") };
        let client = Client::new(&serve(Router::new().route("/", routing::post(refuse))).await).expect("a url");
        let answer = client.download("/", &[]).await.expect("an answer");
        let Answer::Refusal(refusal) = answer else { panic!("{answer:?}") };
        assert_eq!((refusal.status, refusal.header("x-a")), (429, Some("b")));
        assert_eq!(refusal.text(), "another one is under way");
    }

    fn pieces(number: usize) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        stream::iter(std::iter::repeat_n(PIECE, number).map(Ok))
    }

    #[tokio::test]
    async fn an_upload_is_taken_piece_by_piece_and_carries_token_and_headers() {
        let take = |headers: HeaderMap, body: body::Body| async move {
            let mut body = body.into_data_stream();
            let mut bytes = 0;
            while let Some(piece) = body.next().await {
                bytes += piece.expect("a piece").len();
            }
            let header = |name: &str| headers[name].to_str().expect("text").to_owned();
            format!("{bytes} {} {}", header("authorization"), header("content-type"))
        };
        let client = Client::new(&serve(Router::new().route("/", routing::post(take))).await).expect("a url");
        let client = client.with_token(Some("t"));
        let headers = [("content-type", "application/octet-stream")];
        let answer = client.upload("/", &headers, pieces(200)).await.expect("an answer");
        assert_eq!(answer.text(), format!("{} Bearer t application/octet-stream", 200 * PIECE.len()));
    }

    #[tokio::test]
    async fn an_upload_that_is_refused_before_it_is_read_yields_the_refusal() {
        let refuse = || async { (StatusCode::CONFLICT, "the cluster holds data") };
        let client = Client::new(&serve(Router::new().route("/", routing::post(refuse))).await).expect("a url");
        let answer = client.upload("/", &[], pieces(usize::MAX)).await.expect("the refusal");
        assert_eq!((answer.status, &*answer.text()), (409, "the cluster holds data"));
    }

    #[tokio::test]
    async fn a_refusal_is_heard_though_the_node_has_hung_up_before_the_next_write() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = Client::new(&listener.local_addr().expect("bound").to_string()).expect("a url");
        let ((go, wait), (done, has_hung_up)) = (std_mpsc::channel(), std_mpsc::channel());
        let node = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().expect("a connection");
            wait.recv().expect("a body that is being read");
            connection.write_all(b"HTTP/1.1 409 Conflict\r\ncontent-length: 2\r\n\r\nno").expect("room");
            // As if there were unread bytes: the other side's next write fails.
            socket2::SockRef::from(&connection).set_linger(Some(Duration::ZERO)).expect("a socket");
            drop(connection);
            done.send(()).expect("waited for");
        });
        let body = (0..).map(move |number| {
            if number == 1 {
                // Nothing can be read between this and the write: both are in one thread.
                go.send(()).expect("a node");
                has_hung_up.recv().expect("a node");
            }
            Ok(PIECE)
        });
        let answer = client.upload("/", &[], stream::iter(body)).await.expect("the refusal");
        assert_eq!((answer.status, &*answer.text()), (409, "no"));
        node.join().expect("a node");
    }

    #[tokio::test]
    async fn an_upload_that_nobody_takes_times_out_and_one_that_is_hung_up_on_breaks() {
        let url = serve(Router::new().route("/", routing::post(std::future::pending::<()>))).await;
        let client = Client::new(&url).expect("a url").with_timeout(Duration::from_millis(200));
        for number in [1, usize::MAX] {
            let answer = client.upload("/", &[], pieces(number)).await;
            assert!(matches!(answer, Err(Error::TimedOut { .. })), "{number}: {answer:?}");
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = Client::new(&listener.local_addr().expect("bound").to_string()).expect("a url");
        let hang_up = async { drop(listener.accept().await.expect("a connection")) };
        let (answer, ()) = tokio::join!(client.upload("/", &[], pieces(usize::MAX)), hang_up);
        assert!(matches!(answer, Err(Error::Broken { .. })), "{answer:?}");
    }

    #[tokio::test]
    async fn an_upload_may_take_longer_than_silence_may_last() {
        let url = serve(Router::new().route("/", routing::post(async |body: Bytes| body.len().to_string()))).await;
        let client = Client::new(&url).expect("a url").with_timeout(Duration::from_secs(1));
        let slowly = pieces(15).then(|piece| async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            piece
        });
        let answer = client.upload("/", &[], slowly).await.expect("an answer");
        assert_eq!(answer.text(), (15 * PIECE.len()).to_string());
    }

    #[tokio::test]
    async fn a_body_that_cannot_be_read_is_not_blamed_on_the_node() {
        let url = serve(Router::new().route("/", routing::post(|_: Bytes| async {}))).await;
        let body = stream::iter([Ok(PIECE), Err(io::Error::other("a bad sector"))]);
        let answer = Client::new(&url).expect("a url").upload("/", &[], body).await;
        assert!(matches!(&answer, Err(Error::BadRequest(reason)) if reason.contains("a bad sector")), "{answer:?}");
    }
}
