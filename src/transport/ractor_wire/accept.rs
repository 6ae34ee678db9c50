//! The listener: lets in whoever proves to know the cluster secret, and survives everyone else.

use super::{
    RactorWire,
    handshake::{self, Answer, Error, Proven, Purpose},
    lobby::Place,
    stream::{self, Channel},
};
use crate::transport::{Counterpart, links::Unwelcome, wire::Hello};
use bytes::Bytes;
use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Pause after a failed accept, which mostly means that there are no file descriptors left.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How long an introduction may take to be answered.
const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Accepts connections until the task is aborted.
pub(super) async fn run(wire: Arc<RactorWire>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let guest = wire.clone();
                let evicted = wire.lobby.enter(|place| serve(guest, stream, from, place));
                if evicted {
                    wire.reject(from, "flood", &"too many connections without a handshake; dropped the oldest");
                }
            }
            Err(error) => {
                wire.complain(&format_args!("cannot accept a connection: {error}"));
                tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
            }
        }
    }
}

async fn serve(wire: Arc<RactorWire>, stream: TcpStream, from: SocketAddr, place: Place) {
    if let Err(error) = stream::tune(&stream, wire.options.keepalive) {
        return wire.reject(from, "io", &error);
    }
    let (mut channel, caller, proven) = match timeout(wire.options.handshake_timeout, prove(&wire, stream)).await {
        Ok(Ok(proven)) => proven,
        Ok(Err(error)) => return wire.reject(from, error.reason(), &error),
        Err(_) => {
            return wire.reject(
                from,
                "timeout",
                &format_args!("no handshake within {:?}", wire.options.handshake_timeout),
            );
        }
    };
    drop(place);
    let served = match proven.purpose {
        Purpose::Introduction => introduce(&wire, &mut channel, caller, &proven).await,
        Purpose::Link => link(&wire, channel, &caller, &proven).await,
    };
    if let Err(error) = served {
        wire.complain(&format_args!("a connection from {from} failed: {error}"));
    }
}

/// The caller shows its certificate, where there is TLS, and that it knows the secret.
async fn prove(wire: &RactorWire, mut stream: TcpStream) -> Result<(Channel, Counterpart, Proven), Error> {
    let (mut channel, caller) = match &wire.tls {
        None => (Channel::Plain(stream), Counterpart::Anyone),
        Some(tls) => {
            let mut first = [0];
            stream.peek(&mut first).await?;
            if first[0] == handshake::MAGIC[0] {
                return Err(handshake::one_sided_tls(&mut stream).await);
            }
            let (stream, caller) = tls.accept(stream).await?;
            (Channel::Tls(stream.into()), caller)
        }
    };
    let proven = handshake::accept(&mut channel, &wire.keys).await?;
    Ok((channel, caller, proven))
}

async fn introduce(
    wire: &RactorWire,
    channel: &mut Channel,
    caller: Counterpart,
    proven: &Proven,
) -> Result<(), String> {
    let answer = match (wire.introductions.try_acquire(), wire.links.upgrade()) {
        (Ok(_permit), Some(links)) => {
            match timeout(INTRODUCTION_TIMEOUT, links.introduced(caller, proven.body.clone())).await {
                Ok(Ok(reply)) => Answer::Done(reply),
                Ok(Err(detail)) => Answer::Refused(detail),
                Err(_) => Answer::Refused(format!("no answer within {INTRODUCTION_TIMEOUT:?}")),
            }
        }
        (Err(_), _) => Answer::Refused("too many introductions at a time".to_owned()),
        (_, None) => Answer::Refused("shutting down".to_owned()),
    };
    send(wire, channel, proven, &answer).await
}

async fn link(wire: &RactorWire, mut channel: Channel, caller: &Counterpart, proven: &Proven) -> Result<(), String> {
    let hello = Hello::decode(proven.body.clone()).map_err(|error| error.to_string())?;
    let links = wire.links.upgrade();
    if let Some(links) = &links
        && !links.hears(&hello, wire.options.handshake_timeout).await
    {
        // No answer at all: that is what a path that is cut gives.
        return Err(format!("{} is cut off from this node on purpose", hello.from_name));
    }
    let named = caller.check(&hello.from_name).map_err(Unwelcome::Refused);
    let welcome = links.map(|links| named.and_then(|()| links.greet(&hello)));
    let refusal = match welcome {
        Some(Ok(())) => None,
        Some(Err(Unwelcome::Unknown(detail))) => Some(Answer::Unknown(detail)),
        Some(Err(Unwelcome::Refused(detail))) => Some(Answer::Refused(detail)),
        None => Some(Answer::Refused("shutting down".to_owned())),
    };
    if let Some(refusal) = refusal {
        send(wire, &mut channel, proven, &refusal).await?;
        return Err(format!("refused: {refusal:?}"));
    }
    // before the welcome: the dialler starts its session right after it
    wire.sessions.retire(hello.from).await;
    let answer = Answer::Done(Bytes::copy_from_slice(&wire.boot_id.to_be_bytes()));
    send(wire, &mut channel, proven, &answer).await?;
    wire.hand_over(channel, hello.link, hello.from, hello.from_name, hello.boot_id, true).await
}

async fn send(wire: &RactorWire, channel: &mut Channel, proven: &Proven, answer: &Answer) -> Result<(), String> {
    match timeout(wire.options.handshake_timeout, proven.answer(channel, &wire.keys, answer)).await {
        Ok(sent) => sent.map_err(|error| error.to_string()),
        Err(_) => Err("the answer could not be sent in time".to_owned()),
    }
}

impl RactorWire {
    fn reject(&self, from: SocketAddr, reason: &'static str, detail: &dyn fmt::Display) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("quorate_link_connections_rejected_total", "reason" => reason).increment(1);
        self.complain(&format_args!("rejected a connection from {from}: {detail}"));
    }

    fn complain(&self, what: &dyn fmt::Display) {
        if let Some(suppressed) = self.log.allow(Instant::now()) {
            tracing::warn!(suppressed, "cluster port: {what}");
        }
    }
}
