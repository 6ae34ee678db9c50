//! Connections to one gateway: dialled when needed, kept while they are idle, within a bound.

use crate::gateway::Error;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, StatusCode,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::{fmt::Display, time::Duration};
use tokio::net::TcpStream;

/// Idle connections that are kept; one more is closed after its answer.
const IDLE_MAX: usize = 32;
/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

pub type Outgoing = Request<Full<Bytes>>;

pub struct Connections {
    /// `host:port`
    authority: String,
    connect_timeout: Duration,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Connections {
    pub fn new(authority: String, connect_timeout: Duration) -> Self {
        Self { authority, connect_timeout, idle: Mutex::default() }
    }

    /// Sends a request once. An error says nothing about whether it was carried out.
    pub async fn exchange(&self, request: Outgoing) -> Result<(StatusCode, Bytes), Error> {
        let mut connection = match self.idle().await {
            Some(connection) => connection,
            None => self.dial().await?,
        };
        let response = connection.send_request(request).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(broken)?;
        self.keep(connection);
        Ok((head.status, body.to_bytes()))
    }

    /// A kept connection that is still open.
    async fn idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        loop {
            let mut connection = self.idle.lock().pop()?;
            if connection.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    fn keep(&self, connection: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
    }

    async fn dial(&self) -> Result<SendRequest<Full<Bytes>>, Error> {
        let unreachable = |why: &dyn Display| Error::Unanswered(format!("the gateway cannot be reached: {why}"));
        let dialled = tokio::time::timeout(self.connect_timeout, TcpStream::connect(&self.authority)).await;
        let stream = dialled.map_err(|_| unreachable(&format_args!("not within {:?}", self.connect_timeout)))?;
        let stream = stream.map_err(|error| unreachable(&error))?;
        // Small requests and answers take turns: waiting to fill a packet would only delay them.
        stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
        // Ends with the sender; what goes wrong on it reaches whoever waits for the answer.
        tokio::spawn(connection);
        Ok(sender)
    }
}

fn broken(error: impl Display) -> Error {
    Error::Unanswered(format!("the connection to the gateway broke: {error}"))
}
