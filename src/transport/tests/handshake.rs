use super::*;
use std::time::Duration;
use tokio::{io::duplex, time::timeout};

fn hello() -> Hello {
    Hello { link: LinkId(1), from: NodeId(2), from_name: "a".into(), boot_id: 3, to: NodeId(4), to_name: "b".into() }
}

/// Runs both sides; the acceptor answers a proven dialler with `answer`.
async fn shake(
    dialer: &str,
    acceptor: &str,
    purpose: Purpose,
    body: &[u8],
    answer: Answer,
) -> (Result<Answer, Error>, Result<Proven, Error>) {
    let (mut near, mut far) = duplex(1 << 20);
    let (dial_keys, accept_keys) = (Keys::derive(dialer.as_bytes()), Keys::derive(acceptor.as_bytes()));
    let accepting = async {
        let proven = accept(&mut far, &accept_keys).await?;
        proven.answer(&mut far, &accept_keys, &answer).await?;
        Ok(proven)
    };
    tokio::join!(dial(&mut near, &dial_keys, purpose, body), accepting)
}

#[tokio::test]
async fn both_sides_with_the_secret_agree() {
    let body = hello().encode();
    let (dialed, accepted) = shake("s", "s", Purpose::Link, &body, Answer::Done(Bytes::from_static(b"boot"))).await;
    assert_eq!(dialed.unwrap(), Answer::Done(Bytes::from_static(b"boot")));
    let proven = accepted.unwrap();
    assert_eq!(proven.purpose, Purpose::Link);
    assert_eq!(Hello::decode(proven.body).unwrap(), hello());
}

#[tokio::test]
async fn refusals_reach_the_dialler_in_words() {
    for answer in [Answer::Unknown("who?".into()), Answer::Refused("no".into())] {
        let (dialed, _) = shake("s", "s", Purpose::Introduction, b"hi", answer.clone()).await;
        assert_eq!(dialed.unwrap(), answer);
    }
}

#[tokio::test]
async fn another_secret_is_refused_on_both_sides() {
    let (dialed, accepted) = shake("s", "t", Purpose::Introduction, b"hi", Answer::Done(Bytes::new())).await;
    assert!(matches!(dialed, Err(Error::WrongSecret)), "{dialed:?}");
    assert!(matches!(accepted, Err(Error::WrongSecret)));
}

/// An acceptor that lets everyone in, but does not know the secret.
#[tokio::test]
async fn an_acceptor_that_cannot_prove_itself_is_refused() {
    let (mut near, mut far) = duplex(1 << 20);
    let impostor = async {
        let mut start = [0; 43];
        far.read_exact(&mut start).await.unwrap();
        far.write_all(&[&MAGIC[..], &VERSION.to_be_bytes(), &[9; NONCE_BYTES]].concat()).await.unwrap();
        let mut rest = [0; 4 + 2 + TAG_BYTES];
        far.read_exact(&mut rest).await.unwrap();
        // the dialler's own tag, sent back
        far.write_all(&[&[STATUS_DONE][..], &0u32.to_be_bytes(), &rest[6..]].concat()).await.unwrap();
    };
    let keys = Keys::derive(b"s");
    let (dialed, ()) = tokio::join!(dial(&mut near, &keys, Purpose::Introduction, b"hi"), impostor);
    assert!(matches!(dialed, Err(Error::WrongSecret)), "{dialed:?}");
}

/// What one connection said cannot open another.
#[tokio::test]
async fn a_recorded_handshake_cannot_be_replayed() {
    let keys = Keys::derive(b"s");
    let (mut near, far) = duplex(1 << 20);
    let (mut relay, mut target) = (far, duplex(1 << 20));
    let recorded = async {
        let mut start = [0; 43];
        relay.read_exact(&mut start).await.unwrap();
        relay.write_all(&[&MAGIC[..], &VERSION.to_be_bytes(), &[9; NONCE_BYTES]].concat()).await.unwrap();
        let mut rest = [0; 4 + 2 + TAG_BYTES];
        relay.read_exact(&mut rest).await.unwrap();
        drop(relay);
        [&start[..], &rest].concat()
    };
    let (_, recorded) = tokio::join!(dial(&mut near, &keys, Purpose::Introduction, b"hi"), recorded);
    target.0.write_all(&recorded).await.unwrap();
    assert!(matches!(accept(&mut target.1, &keys).await, Err(Error::WrongSecret)));
}

#[tokio::test]
async fn another_version_is_named_on_both_sides() {
    let keys = Keys::derive(b"s");
    let (mut near, mut far) = duplex(1 << 20);
    near.write_all(&[&MAGIC[..], &9u16.to_be_bytes(), &[1], &[0; NONCE_BYTES]].concat()).await.unwrap();
    assert!(matches!(accept(&mut far, &keys).await, Err(Error::Version { theirs: 9 })));
    assert!(matches!(read_start(&mut near).await, Ok(())));

    let (mut near, mut far) = duplex(1 << 20);
    far.write_all(&[&MAGIC[..], &9u16.to_be_bytes()].concat()).await.unwrap();
    let error = dial(&mut near, &keys, Purpose::Link, b"").await.unwrap_err();
    assert_eq!(error.to_string(), "speaks version 9 of the link protocol, this node speaks 1");
}

#[tokio::test]
async fn lengths_out_of_range_end_it_before_they_are_believed() {
    for (purpose, len) in [
        (PURPOSE_LINK, Hello::BYTES_MAX + 1),
        (PURPOSE_INTRODUCTION, INTRODUCTION_BYTES_MAX + 1),
        (PURPOSE_LINK, u32::MAX as usize),
    ] {
        let (mut near, mut far) = duplex(1 << 20);
        near.write_all(
            &[&MAGIC[..], &VERSION.to_be_bytes(), &[purpose], &[0; NONCE_BYTES], &(len as u32).to_be_bytes()].concat(),
        )
        .await
        .unwrap();
        let keys = Keys::derive(b"s");
        let accepted = timeout(Duration::from_secs(5), accept(&mut far, &keys)).await.expect("waits for the bytes");
        assert!(matches!(accepted, Err(Error::Malformed(_))));
    }
}

#[tokio::test]
async fn http_is_not_quorate() {
    let (mut near, mut far) = duplex(1 << 20);
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(matches!(accept(&mut far, &Keys::derive(b"s")).await, Err(Error::NotQuorate)));
}

#[test]
fn a_hello_survives_encoding_and_nothing_else_does() {
    let encoded = hello().encode();
    assert!(encoded.len() <= Hello::BYTES_MAX);
    assert_eq!(Hello::decode(encoded.clone().into()).unwrap(), hello());
    for len in 0..encoded.len() {
        assert!(Hello::decode(encoded[..len].to_vec().into()).is_err(), "{len}");
    }
    assert!(Hello::decode([encoded, vec![0]].concat().into()).is_err());
}

#[test]
fn the_cookie_depends_on_the_secret_and_is_not_the_handshake_key() {
    let (a, b) = (Keys::derive(b"s"), Keys::derive(b"t"));
    assert_ne!(a.cookie(), b.cookie());
    assert_eq!(a.cookie().len(), 64);
    assert_ne!(a.sign(&[b"x"]), b.sign(&[b"x"]));
    assert_ne!(a.sign(&[b"ab", b"c"]), a.sign(&[b"a", b"bc"]));
}
