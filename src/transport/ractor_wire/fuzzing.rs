//! The handshake under the fuzzer: see `transport::fuzzing`.

use super::{
    super::{
        INTRODUCTION_BYTES_MAX,
        wire::{Hello, LinkId},
    },
    handshake::{Answer, Keys, Purpose, VERSION, accept, dial},
};
use crate::{catalog::NodeId, fuzzing::Input};
use bytes::Bytes;

const SECRET: &[u8] = b"secret";

pub async fn handshake(mut input: Input<'_>) {
    let keys = Keys::derive(SECRET);
    let purpose = if input.is_odd() { Purpose::Link } else { Purpose::Introduction };
    match input.below(4) {
        0 => {
            let mut stranger = tokio::io::join(input.rest(), Vec::new());
            assert!(accept(&mut stranger, &keys).await.is_err(), "nobody guesses a proof");
        }
        1 => {
            let body = input.piece();
            let mut stranger = tokio::io::join(input.rest(), Vec::new());
            assert!(dial(&mut stranger, &keys, purpose, body).await.is_err(), "nobody guesses a proof");
        }
        _ => {
            let answer = any_answer(&mut input);
            agree(&keys, purpose, input.rest(), answer).await;
        }
    }
}

/// The first bytes to try: a right hello, and what a stranger says who knows the beginning.
pub fn seeds() -> Vec<Vec<u8>> {
    let hello = Hello {
        link: LinkId(1),
        from: NodeId(1),
        from_name: "peer".into(),
        boot_id: 8,
        to: NodeId(2),
        to_name: "me".into(),
    };
    let start = [&b"QUORATE\n"[..], &VERSION.to_be_bytes()].concat();
    vec![
        [&[1, 2, 0, 2, 8, 8][..], &hello.encode()].concat(),
        [&[0, 0][..], &start, &[1], &[7; 64]].concat(),
        [&[1, 1, 0][..], &start, &[7; 80]].concat(),
    ]
}

fn any_answer(input: &mut Input<'_>) -> Answer {
    let (kind, text) = (input.below(3), input.piece());
    match kind {
        0 => Answer::Done(Bytes::copy_from_slice(text)),
        1 => Answer::Unknown(String::from_utf8_lossy(text).into_owned()),
        _ => Answer::Refused(String::from_utf8_lossy(text).into_owned()),
    }
}

/// Both sides know the secret, and one of them says anything.
async fn agree(keys: &Keys, purpose: Purpose, body: &[u8], answer: Answer) {
    let (mut near, mut far) = tokio::io::duplex(2 * INTRODUCTION_BYTES_MAX);
    let accepting = async {
        let proven = accept(&mut far, keys).await.ok();
        if let Some(proven) = &proven {
            proven.answer(&mut far, keys, &answer).await.expect("the dialler waits");
        }
        drop(far);
        proven
    };
    let (dialled, proven) = tokio::join!(dial(&mut near, keys, purpose, body), accepting);
    let body_max = match purpose {
        Purpose::Link => Hello::BYTES_MAX,
        Purpose::Introduction => INTRODUCTION_BYTES_MAX,
    };
    let Some(proven) = proven else {
        assert!(body.len() > body_max, "a body of {} bytes is refused", body.len());
        return;
    };
    assert_eq!((proven.purpose, &proven.body[..]), (purpose, body));
    let dialled = dialled.expect("the acceptor has answered");
    match (&answer, &dialled) {
        (Answer::Done(said), Answer::Done(heard)) => assert_eq!(said, heard),
        (Answer::Unknown(_), Answer::Unknown(_)) | (Answer::Refused(_), Answer::Refused(_)) => {}
        _ => panic!("said {answer:?}, heard {dialled:?}"),
    }
    if let Ok(hello) = Hello::decode(proven.body.clone()) {
        assert_eq!(hello.encode(), proven.body);
    }
}
