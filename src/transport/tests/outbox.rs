use super::*;
use crate::transport::{
    FRAME_BYTES_MAX,
    frame::{Frame, Frames},
};
use bytesize::ByteSize;
use std::time::Duration;

fn outbox() -> Outbox {
    Outbox::new(7, &Options::default())
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn decode(batch: Vec<u8>) -> (Header, Vec<Frame>) {
    let mut batch = Bytes::from(batch);
    let header = Header::take(&mut batch).unwrap();
    (header, Frames(batch).collect::<Result<_, _>>().unwrap())
}

fn classes(frames: &[Frame]) -> Vec<Class> {
    let class = |frame: &Frame| match frame {
        Frame::Request { class, .. } => *class,
        Frame::Reply { .. } => panic!("a reply"),
    };
    frames.iter().map(class).collect()
}

#[tokio::test]
async fn frames_gather_in_one_batch_raft_first() {
    let mut outbox = outbox();
    outbox.push_request(Class::Command, 1, later(), Bytes::from_static(b"c")).unwrap();
    outbox.push_request(Class::Raft, 2, later(), Bytes::from_static(b"r")).unwrap();
    outbox.push_reply(Class::Command, 9, Outcome::Overloaded).unwrap();
    let (header, frames) = decode(outbox.next_batch(Instant::now()).unwrap());
    assert_eq!((header.link, header.position, header.ack, header.flags), (7, 0, 0, 0));
    assert_eq!(classes(&frames[..2]), [Class::Raft, Class::Command]);
    assert_eq!(frames[2], Frame::Reply { correlation: 9, outcome: Outcome::Overloaded });
    assert_eq!(outbox.next_batch(Instant::now()), None);
}

#[tokio::test]
async fn a_batch_ends_at_its_limit_but_takes_a_single_larger_frame() {
    let mut outbox = outbox();
    for size in [30_000, 30_000, 30_000, FRAME_BYTES_MAX, 10] {
        outbox.push_request(Class::Raft, 1, later(), Bytes::from(vec![0; size])).unwrap();
    }
    let mut lens = Vec::new();
    let mut acked = 0;
    while let Some(batch) = outbox.next_batch(Instant::now()) {
        lens.push(batch.len());
        acked += batch.len() as u64;
        outbox.acknowledged(acked).unwrap();
    }
    let frame = |len: usize| frame::request_len(len);
    let header = frame::HEADER_BYTES;
    assert_eq!(
        lens,
        [header + 2 * frame(30_000), header + frame(30_000), header + frame(FRAME_BYTES_MAX), header + frame(10)]
    );
}

#[tokio::test]
async fn commands_stop_at_three_quarters_of_the_window_raft_at_all_of_it() {
    let mut outbox = outbox();
    let body = Bytes::from(vec![0; 64 * 1024 - 17]);
    let fill = |outbox: &mut Outbox, class| {
        (0..1000).take_while(|_| outbox.push_request(class, 1, later(), body.clone()).is_ok()).count()
    };
    assert_eq!(fill(&mut outbox, Class::Command), 48);
    assert_eq!(outbox.push_request(Class::Command, 1, later(), body.clone()), Err(Full));
    assert_eq!(fill(&mut outbox, Class::Raft), 16);
    assert_eq!(outbox.push_request(Class::Raft, 1, later(), body.clone()), Err(Full));
    // replies have a bound of their own
    outbox.push_reply(Class::Raft, 1, Outcome::Done(body.clone())).unwrap();
}

#[tokio::test]
async fn the_number_of_queued_requests_is_bounded() {
    let mut outbox = Outbox::new(7, &Options { queue_frames_max: 3, ..Options::default() });
    let push = |outbox: &mut Outbox, class| outbox.push_request(class, 1, later(), Bytes::new());
    assert!((0..3).all(|_| push(&mut outbox, Class::Command).is_ok()));
    assert_eq!(push(&mut outbox, Class::Command), Err(Full));
    assert_eq!(push(&mut outbox, Class::Raft), Ok(()));
    outbox.next_batch(Instant::now()).unwrap();
    assert_eq!(push(&mut outbox, Class::Command), Ok(()));
}

#[tokio::test]
async fn replies_past_their_bound_come_back() {
    let mut outbox = outbox();
    let body = Bytes::from(vec![0; FRAME_BYTES_MAX]);
    outbox.push_reply(Class::Command, 1, Outcome::Done(body.clone())).unwrap();
    let back = outbox.push_reply(Class::Command, 2, Outcome::Done(body.clone()));
    assert_eq!(back, Err(Outcome::Done(body.clone())));
    outbox.next_batch(Instant::now()).unwrap();
    let (_, frames) = {
        outbox.push_reply(Class::Command, 2, Outcome::Done(body)).unwrap();
        outbox.acknowledged(outbox.sent).unwrap();
        decode(outbox.next_batch(Instant::now()).unwrap())
    };
    assert!(matches!(frames[..], [Frame::Reply { correlation: 2, .. }]));
}

#[tokio::test]
async fn a_full_pipe_holds_frames_back_until_acknowledged_but_never_acknowledgements() {
    let mut outbox = Outbox::new(7, &Options { pipe: ByteSize::kib(256), ..Options::default() });
    for _ in 0..40 {
        outbox.push_request(Class::Raft, 1, later(), Bytes::from(vec![0; 60_000])).unwrap();
    }
    let sent: usize = std::iter::from_fn(|| outbox.next_batch(Instant::now())).map(|batch| batch.len()).sum();
    assert!((256 * 1024..256 * 1024 + BATCH_BYTES_MAX).contains(&sent), "{sent}");
    let theirs = Header { flags: 0, link: 7, position: 0, ack: 0 };
    assert_eq!(outbox.consume(&theirs, ACK_EVERY_BYTES), Ok(true));
    let (header, frames) = decode(outbox.next_batch(Instant::now()).unwrap());
    assert_eq!((header.ack, frames.len()), (ACK_EVERY_BYTES, 0));
    assert_eq!(outbox.acknowledged(100_000), Ok(true));
    assert!(!decode(outbox.next_batch(Instant::now()).unwrap()).1.is_empty());
}

#[tokio::test]
async fn a_lost_batch_does_not_leak_credit() {
    let mut outbox = outbox();
    outbox.push_request(Class::Raft, 1, later(), Bytes::from(vec![0; 50_000])).unwrap();
    let lost = outbox.next_batch(Instant::now()).unwrap();
    outbox.heartbeat(false);
    let (header, _) = decode(outbox.next_batch(Instant::now()).unwrap());
    assert_eq!(header.position, lost.len() as u64);
    let mut peer = Outbox::new(7, &Options::default());
    peer.consume(&header, frame::HEADER_BYTES as u64).unwrap();
    peer.heartbeat(false);
    let (answer, _) = decode(peer.next_batch(Instant::now()).unwrap());
    outbox.acknowledged(answer.ack).unwrap();
    assert!(outbox.drained());
}

#[tokio::test]
async fn an_acknowledgement_of_more_than_was_sent_is_malformed() {
    let mut outbox = outbox();
    assert!(outbox.acknowledged(1).is_err());
    let replayed = Header { flags: 0, link: 7, position: 0, ack: 0 };
    outbox.consume(&replayed, 26).unwrap();
    assert!(outbox.consume(&replayed, 26).is_err());
    assert!(outbox.consume(&Header { position: u64::MAX, ..replayed }, 26).is_err());
}

#[tokio::test]
async fn an_expired_request_is_not_sent() {
    let mut outbox = outbox();
    let now = Instant::now();
    outbox.push_request(Class::Command, 1, now, Bytes::from_static(b"old")).unwrap();
    assert_eq!(outbox.next_batch(now), None);
    assert!(outbox.drained());
    outbox.push_request(Class::Command, 2, now + Duration::from_millis(1500), Bytes::from_static(b"new")).unwrap();
    let (_, frames) = decode(outbox.next_batch(now).unwrap());
    assert!(matches!(frames[..], [Frame::Request { correlation: 2, timeout_ms: 1500, .. }]));
}

#[tokio::test]
async fn commands_get_a_batch_although_raft_could_fill_every_one() {
    let mut outbox = outbox();
    let body = Bytes::from(vec![0; 60_000]);
    outbox.push_request(Class::Command, 1, later(), body.clone()).unwrap();
    let mut order = Vec::new();
    for _ in 0..6 {
        outbox.push_request(Class::Raft, 1, later(), body.clone()).unwrap();
        outbox.push_request(Class::Raft, 1, later(), body.clone()).unwrap();
        order.push(classes(&decode(outbox.next_batch(Instant::now()).unwrap()).1)[0]);
        outbox.acknowledged(outbox.sent).unwrap();
    }
    use Class::{Command, Raft};
    assert_eq!(order, [Raft, Raft, Raft, Raft, Command, Raft]);
}
