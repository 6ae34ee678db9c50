//! E-mails as tasks: `cargo run --example send_email`.
//!
//! A guest who signs up is sent a welcome. The mail server, a tiny one of this program's own, puts
//! the first attempts off; a mailbox that does not exist ends as a dead letter.

#![allow(clippy::print_stdout)] // an example talks to whoever runs it

use anyhow::{Context as _, bail};
use quorate::{
    Cluster, Context, Decision, Effect, Entity,
    cluster::{Consistency, TaskContext, TaskError, TaskQueue},
    entity::{Retry, TaskOutcome},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

struct Guest;

/// What the handler is given. It waits in the log and in the outbox: change it as an event is
/// changed.
#[derive(Serialize, Deserialize)]
struct Mail {
    to: String,
    text: String,
}

#[derive(Serialize, Deserialize)]
enum Command {
    SignUp { address: String },
    Mailed(Result<String, String>),
}

#[derive(Clone, Serialize, Deserialize)]
enum Event {
    SignedUp { address: String },
    Welcomed { receipt: String },
    NotWelcomed { reason: String },
}

#[derive(Default, Clone, Serialize, Deserialize)]
struct State {
    address: Option<String>,
    welcome: Option<Result<String, String>>,
}

impl Entity for Guest {
    const TYPE: &'static str = "guest";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = ();
    type Rejection = String;

    fn decide(state: &State, command: Command, _: &Context<'_>) -> Decision<Self> {
        match command {
            Command::SignUp { .. } if state.address.is_some() => Decision::reject("signed up already"),
            Command::SignUp { address } => {
                let mail = Mail { to: address.clone(), text: "Welcome!".into() };
                Decision::accept(vec![Event::SignedUp { address }], ()).with(Effect::task(
                    "send-email",
                    "welcome",
                    mail,
                ))
            }
            Command::Mailed(Ok(receipt)) => Decision::accept(vec![Event::Welcomed { receipt }], ()),
            Command::Mailed(Err(reason)) => Decision::accept(vec![Event::NotWelcomed { reason }], ()),
        }
    }

    fn evolve(state: &mut State, event: &Event) {
        match event {
            Event::SignedUp { address } => state.address = Some(address.clone()),
            Event::Welcomed { receipt } => state.welcome = Some(Ok(receipt.clone())),
            Event::NotWelcomed { reason } => state.welcome = Some(Err(reason.clone())),
        }
    }

    fn task_finished(outcome: TaskOutcome) -> Option<Command> {
        Some(Command::Mailed(outcome.read()))
    }
}

/// The handler: one attempt to send one mail.
async fn send_email(server: SocketAddr, context: TaskContext, mail: Mail) -> Result<String, TaskError> {
    let again = |error: std::io::Error| TaskError::Retry(error.to_string());
    let mut connection = BufReader::new(TcpStream::connect(server).await.map_err(again)?);
    // The same id at every attempt, on every node: the server sends one mail, however often it is
    // asked to.
    let request = format!("{} {} {}\n", context.idempotency_key, mail.to, mail.text);
    connection.write_all(request.as_bytes()).await.map_err(again)?;
    let mut answer = String::new();
    connection.read_line(&mut answer).await.map_err(again)?;
    match answer.trim_end() {
        sent if sent.starts_with("250") => Ok(sent.to_owned()),
        never if never.starts_with('5') => Err(TaskError::Fatal(never.to_owned())),
        later => Err(TaskError::Retry(later.to_owned())),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = listener.local_addr()?;
    let outbox = tokio::spawn(serve_mail(listener));

    let queue = TaskQueue {
        concurrency: Some(4),                // on each node
        cluster_rate_per_second: Some(50.0), // over all nodes
        retry: Retry { attempts_max: 5, backoff_min_ms: 10, ..Retry::default() },
        deadline: Some(Duration::from_secs(3600)),
        ..TaskQueue::default()
    };
    let cluster = Cluster::in_memory(3)
        .entity::<Guest>()
        .task_handler("send-email", move |context, mail| send_email(server, context, mail))
        .task_queue("send-email", queue)
        .start()
        .await?;

    for (guest, address) in [("ada", "ada@example.org"), ("nobody", "nobody@example.org")] {
        cluster.entity::<Guest>(guest).ask(Command::SignUp { address: address.into() }).await?;
        match welcome(&cluster, guest).await? {
            Ok(receipt) => println!("{guest}: {receipt}"),
            Err(reason) => println!("{guest}: given up: {reason}"),
        }
    }
    for letter in cluster.dead_letters(None, 10).await?.data {
        println!("dead letter of {}: {}", letter.entity, letter.error);
        cluster.discard_dead_letter(letter.id, None).await?;
    }
    println!("dead letters left: {}", cluster.dead_letters(None, 10).await?.data.len());
    cluster.shutdown().await;
    outbox.abort();
    Ok(())
}

/// Waits for the end of a guest's welcome.
async fn welcome(cluster: &Cluster, guest: &str) -> anyhow::Result<Result<String, String>> {
    let (guest, began) = (cluster.entity::<Guest>(guest), Instant::now());
    let mut now = guest.state(Consistency::Linearizable).await?;
    while began.elapsed() < Duration::from_secs(30) {
        if let Some(welcome) = now.state.welcome {
            return Ok(welcome);
        }
        now = guest.changed(now.version, Duration::from_secs(5)).await?;
    }
    bail!("no end within 30 s")
}

/// A mail server that puts every mail off at first, knows nobody called `nobody`, and sends what it
/// has sent before no second time.
async fn serve_mail(listener: TcpListener) -> anyhow::Result<()> {
    let (mut put_off, mut sent) = (HashSet::new(), HashSet::new());
    loop {
        let (stream, _) = listener.accept().await?;
        let mut connection = BufReader::new(stream);
        let mut request = String::new();
        connection.read_line(&mut request).await?;
        let mut words = request.split_whitespace();
        let (id, to) = (words.next().context("an id")?.to_owned(), words.next().context("an address")?);
        let answer = if to.starts_with("nobody@") {
            "550 no such mailbox".to_owned()
        } else if put_off.insert(id.clone()) {
            println!("server: mail to {to} is put off");
            "451 try again later".to_owned()
        } else {
            sent.insert(id);
            format!("250 sent to {to}, mails so far: {}", sent.len())
        };
        connection.write_all(format!("{answer}\n").as_bytes()).await?;
    }
}
