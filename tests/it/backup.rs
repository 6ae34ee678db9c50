//! Backups over clusters in memory: money that moves between shards while they are taken.

use futures::{StreamExt, future::join_all, stream};
use quorate::{
    Cluster, Context, Decision, Effect, Entity,
    cluster::{
        AskError, AskOptions, Builder, Consistency, Idempotency, TaskError, Unavailable,
        backup::{BackupHeader, BackupReader, BackupWriter, RestoreError, RestoredBackup, Section, ShardHead},
    },
    entity::{ShardId, TaskOutcome},
    transport::memory::Network,
};
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(30);
const ACCOUNTS: usize = 24;
const OPENED_WITH: i64 = 1000;

/// An account. What it sends is on its way until it has arrived.
struct Account;

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Money {
    balance: i64,
    letters: Vec<String>,
}

#[derive(Serialize, Deserialize)]
enum Command {
    Open,
    Send {
        to: String,
        amount: i64,
    },
    Take(i64),
    /// By a task, of which the key is noted that it was given.
    Write,
    Written(Result<String, String>),
    Remind {
        at_ms: u64,
    },
    Reminded,
}

#[derive(Clone, Serialize, Deserialize)]
enum Event {
    Moved(i64),
    Noted(String),
}

impl Entity for Account {
    const TYPE: &'static str = "account";
    const LISTS_VERSION: u16 = 1;
    type State = Money;
    type Command = Command;
    type Event = Event;
    type Reply = i64;
    type Rejection = String;

    fn decide(money: &Money, command: Command, _: &Context<'_>) -> Decision<Self> {
        let moved = |by: i64| Decision::accept(vec![Event::Moved(by)], money.balance + by);
        let noted = |what: &str| Decision::accept(vec![Event::Noted(what.into())], money.balance);
        match command {
            Command::Open => moved(OPENED_WITH),
            Command::Send { amount, .. } if amount > money.balance => Decision::reject("not enough"),
            Command::Send { to, amount } => moved(-amount).with(Effect::tell::<Account>(to, &Command::Take(amount))),
            Command::Take(amount) => moved(amount),
            Command::Write => noted("asked").with(Effect::task("write", "letter", ())),
            Command::Written(key) => noted(&key.unwrap_or_else(|error| format!("failed: {error}"))),
            Command::Remind { at_ms } => {
                noted("waits").with(Effect::schedule::<Account>("remind", at_ms, &Command::Reminded))
            }
            Command::Reminded => noted("reminded"),
        }
    }

    fn evolve(money: &mut Money, event: &Event) {
        match event {
            Event::Moved(by) => money.balance += by,
            Event::Noted(what) => money.letters.push(what.clone()),
        }
    }

    fn rows(money: &Money) -> Vec<quorate::entity::Row> {
        vec![quorate::entity::Row::new("all", "", u64::try_from(money.balance).unwrap_or(0))]
    }

    fn task_finished(outcome: TaskOutcome) -> Option<Command> {
        Some(Command::Written(outcome.read()))
    }
}

fn account(number: usize) -> String {
    format!("a{}", number % ACCOUNTS)
}

/// Letters are written once that is allowed.
fn bank(builder: Builder, may_write: &Arc<AtomicBool>) -> Builder {
    crate::logs();
    let may_write = may_write.clone();
    builder.entity::<Account>().task_handler("write", move |context, (): ()| {
        let may = may_write.load(Ordering::SeqCst);
        async move { if may { Ok(context.idempotency_key) } else { Err(TaskError::Retry("not yet".into())) } }
    })
}

async fn start(nodes: usize) -> Cluster {
    bank(Cluster::in_memory(nodes), &Arc::new(AtomicBool::new(true))).start().await.expect("starts")
}

async fn open_accounts(cluster: &Cluster) {
    for number in 0..ACCOUNTS {
        cluster.entity::<Account>(account(number)).ask(Command::Open).await.expect("opened");
    }
}

/// Sends money to and fro until it is told to stop; what is sent is sent once.
async fn send_until(nodes: Vec<Cluster>, first: usize, stop: Arc<AtomicBool>) -> usize {
    let mut sent = 0;
    while !stop.load(Ordering::SeqCst) {
        let (from, to) = (account(first + sent), account(first + 7 * sent + 1));
        let idempotency = Some(Idempotency { key: format!("{first}-{sent}"), fingerprint: [0; 16] });
        let options = AskOptions { idempotency, ..AskOptions::default() };
        let command = Command::Send { to, amount: 1 + (sent % 5) as i64 };
        match nodes[sent % nodes.len()].entity::<Account>(from).ask_with(command, options).await {
            Ok(_) | Err(AskError::Rejected(_) | AskError::RejectedBefore(_)) => sent += 1,
            Err(AskError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    sent
}

struct Senders {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<usize>>,
}

impl Senders {
    fn start(cluster: &Cluster, nodes: &[usize]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let nodes: Vec<_> = nodes.iter().map(|node| cluster.on_node(*node)).collect();
        let send = |first: usize| tokio::spawn(send_until(nodes.clone(), first * 1000, stop.clone()));
        Self { tasks: (0..8).map(send).collect(), stop }
    }

    async fn stop(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        join_all(self.tasks).await.into_iter().map(|sent| sent.expect("no panic")).sum()
    }
}

async fn take(cluster: &Cluster) -> Vec<u8> {
    let began = Instant::now();
    loop {
        match cluster.backup().await {
            Ok(backup) => {
                let parts = backup.into_stream().collect::<Vec<_>>().await;
                return parts.into_iter().flat_map(|part| part.expect("it does not break off")).collect();
            }
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
    }
}

fn sections(file: &[u8]) -> Vec<Section> {
    let mut reader = BackupReader::default();
    reader.feed(file);
    let sections = std::iter::from_fn(|| reader.next_section().expect("undamaged")).collect();
    assert!(reader.is_whole());
    sections
}

fn header(file: &[u8]) -> BackupHeader {
    match sections(file).swap_remove(0) {
        Section::Header(header) => header,
        other => panic!("{other:?} is no header"),
    }
}

async fn put(cluster: &Cluster, file: &[u8]) -> Result<RestoredBackup, RestoreError> {
    let parts: Vec<_> = file.chunks(1000).map(|part| Ok::<_, String>(part.to_vec().into())).collect();
    cluster.restore(stream::iter(parts)).await
}

async fn balances(cluster: &Cluster) -> Vec<i64> {
    let read = (0..ACCOUNTS).map(|number| async move {
        let read = cluster.entity::<Account>(account(number)).state(Consistency::Linearizable).await;
        read.expect("it answers").state.balance
    });
    join_all(read).await
}

/// Waits until nothing is on its way any more; what there is then.
async fn settled(cluster: &Cluster, nodes: usize) -> i64 {
    let began = Instant::now();
    loop {
        let under_way: usize =
            (0..nodes).flat_map(|node| cluster.on_node(node).shards()).map(|shard| shard.outbox).sum();
        if under_way == 0 {
            return balances(cluster).await.iter().sum();
        }
        assert!(began.elapsed() < PATIENCE, "{under_way} effects are still on their way");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whenever_it_is_taken_no_money_is_lost_or_made() {
    let network = Network::new();
    // Shards of the third node are told long after those of the second, and money goes between these.
    network.delay("node-1", "node-3", Duration::from_millis(40));
    let builder = bank(Cluster::in_memory_over(network, 3), &Arc::new(AtomicBool::new(true)));
    let cluster = builder.start().await.expect("starts");
    open_accounts(&cluster).await;
    let senders = Senders::start(&cluster, &[1, 2]);
    let (mut files, mut under_way) = (Vec::new(), 0);
    for _ in 0..8 {
        let file = take(&cluster).await;
        let effects = |section: &Section| match section {
            Section::Chunk { pairs, .. } => pairs.iter().filter(|(key, _)| key[0] == b'o').count(),
            _ => 0,
        };
        under_way += sections(&file).iter().map(effects).sum::<usize>();
        files.push(file);
    }
    let sent = senders.stop().await;
    println!("{sent} transfers, {under_way} caught on their way");
    assert!(under_way > 0, "of {sent} transfers none was caught on its way: this would show nothing");
    let all = OPENED_WITH * ACCOUNTS as i64;
    for file in files {
        let into = start(1).await;
        let restored = put(&into, &file).await.expect("restored");
        assert_eq!((restored.shards, restored.bytes), (4, file.len() as u64));
        assert_eq!(settled(&into, 1).await, all);
        into.shutdown().await;
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_restored_goes_on_where_it_was() {
    let may_write = Arc::new(AtomicBool::new(false));
    let cluster = bank(Cluster::in_memory(3), &may_write).start().await.expect("starts");
    open_accounts(&cluster).await;
    let first = cluster.entity::<Account>(account(0));
    let idempotency = Some(Idempotency { key: "k".into(), fingerprint: [3; 16] });
    let once = AskOptions { idempotency, ..AskOptions::default() };
    let send = || Command::Send { to: account(1), amount: 40 };
    let answer = first.ask_with(send(), once.clone()).await.expect("sent");
    first.ask(Command::Write).await.expect("asked");
    first.ask(Command::Remind { at_ms: 0 }).await.expect("asked");
    cluster.entity::<Account>(account(2)).ask(Command::Remind { at_ms: u64::MAX / 2 }).await.expect("asked");
    settled_but_for_tasks(&cluster).await;
    let history = first.history(0, 100, Consistency::Linearizable).await.expect("it answers");
    let file = take(&cluster).await;

    may_write.store(true, Ordering::SeqCst);
    let into = bank(Cluster::in_memory(3), &may_write).start().await.expect("starts");
    put(&into, &file).await.expect("restored");
    let same = into.entity::<Account>(account(0));
    let again = same.ask_with(send(), once).await.expect("the first answer");
    assert_eq!((again.replayed, again.reply, again.version), (true, answer.reply, answer.version));
    assert_eq!(again.receipt, None, "that of the other cluster's log proves nothing here");
    let events =
        |of: &[quorate::cluster::Recorded<Event>]| of.iter().map(|e| (e.sequence, e.at_ms)).collect::<Vec<_>>();
    let restored = same.history(0, history.len(), Consistency::Linearizable).await.expect("it answers");
    assert_eq!(events(&restored), events(&history));
    // The task was on its way: whoever is called under its key knows it.
    let old_key = letter(&cluster, account(0), "written in the old cluster").await;
    assert!(old_key.starts_with(&header(&file).cluster.to_string()), "{old_key}");
    assert_eq!(letter(&into, account(0), "written in the new one").await, old_key);
    // A new task has another, though its number may be one that the old cluster gives out, too.
    into.entity::<Account>(account(2)).ask(Command::Write).await.expect("asked");
    cluster.entity::<Account>(account(2)).ask(Command::Write).await.expect("asked");
    let (new, old) = (letter(&into, account(2), "anew").await, letter(&cluster, account(2), "on").await);
    assert_ne!(new, old);
    // Lists are there, in their order.
    let listing = quorate::cluster::Listing::of("all", "").limit(100);
    let listed = into.list::<Account>(&listing).await.expect("a page");
    assert_eq!((listed.data.len(), listed.data.is_sorted_by_key(|entry| entry.state.balance)), (ACCOUNTS, true));
    for cluster in [cluster, into] {
        cluster.shutdown().await;
    }
}

/// Only tasks, which wait for their handler, are still to be done.
async fn settled_but_for_tasks(cluster: &Cluster) {
    let began = Instant::now();
    while !matches!(balances(cluster).await[..], [960, 1040, ..])
        || !letters(cluster, account(0)).await.contains(&"reminded".to_owned())
    {
        assert!(began.elapsed() < PATIENCE, "{:?}", balances(cluster).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn letters(cluster: &Cluster, id: String) -> Vec<String> {
    cluster.entity::<Account>(id).state(Consistency::Linearizable).await.expect("it answers").state.letters
}

/// The key under which an account's letter was written.
async fn letter(cluster: &Cluster, id: String, why: &str) -> String {
    let began = Instant::now();
    loop {
        let written = letters(cluster, id.clone()).await;
        if let Some(key) = written.iter().find(|letter| letter.contains('-')) {
            return key.clone();
        }
        assert!(began.elapsed() < PATIENCE, "{why}: {written:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_breaks_off_goes_on_with_the_same_file_and_gives_way_to_another() {
    let cluster = start(3).await;
    open_accounts(&cluster).await;
    let file = take(&cluster).await;
    cluster.entity::<Account>(account(0)).ask(Command::Send { to: account(1), amount: 7 }).await.expect("sent");
    settled(&cluster, 3).await;
    let later = take(&cluster).await;

    let into = start(3).await;
    for part in [1, 2, 3] {
        let cut = put(&into.on_node(part), &file[..file.len() * part / 4]).await.expect_err("cut short");
        assert!(matches!(cut, RestoreError::Damaged(_)), "{cut}");
        let asked = into.entity::<Account>(account(0)).ask(Command::Open).await;
        assert!(matches!(asked, Err(AskError::Unavailable(Unavailable::Restoring { .. }))), "{asked:?}");
        let read = into.on_node(part).entity::<Account>(account(0)).state(Consistency::Local).await;
        assert!(matches!(read, Err(Unavailable::Restoring { .. })), "half of it is not shown: {read:?}");
    }
    let first = put(&into, &file).await.expect("it goes on");
    let again = put(&into.on_node(2), &file).await.expect("it is there");
    assert_eq!((first.was_before, again), (false, RestoredBackup { was_before: true, ..first }));
    assert_eq!(balances(&into).await, [OPENED_WITH; ACCOUNTS]);
    let refused = put(&into, &later).await.expect_err("there is something now");
    assert!(matches!(refused, RestoreError::NotEmpty { .. }), "{refused}");
    assert_eq!(balances(&into).await, [OPENED_WITH; ACCOUNTS], "nothing has happened");
    into.shutdown().await;

    let into = start(1).await;
    put(&into, &file[..file.len() / 2]).await.expect_err("cut short");
    put(&into, &later).await.expect("another one takes its place");
    assert_eq!(balances(&into).await[..3], [OPENED_WITH - 7, OPENED_WITH + 7, OPENED_WITH]);
    into.shutdown().await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_at_one_time_do_not_spoil_each_other() {
    let cluster = start(3).await;
    open_accounts(&cluster).await;
    let senders = Senders::start(&cluster, &[0, 1, 2]);
    for _ in 0..5 {
        let taking = (0..3).map(|node| {
            let from = cluster.on_node(node);
            async move {
                let began = Instant::now();
                loop {
                    match from.backup().await {
                        Ok(backup) => return backup.header().backup,
                        Err(error) => assert!(began.elapsed() < PATIENCE, "each has its moment: {error}"),
                    }
                }
            }
        });
        let taken = join_all(taking).await;
        assert!(taken[0] != taken[1] && taken[1] != taken[2]);
    }
    assert!(senders.stop().await > 0);
    assert_eq!(settled(&cluster, 3).await, OPENED_WITH * ACCOUNTS as i64);
    cluster.shutdown().await;
}

/// Knows other entities than the bank.
struct Stranger;

impl Entity for Stranger {
    const TYPE: &'static str = "stranger";
    type State = ();
    type Command = ();
    type Event = ();
    type Reply = ();
    type Rejection = String;

    fn decide((): &(), (): (), _: &Context<'_>) -> Decision<Self> {
        Decision::reply(())
    }

    fn evolve((): &mut (), (): &()) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_before_anything_happens() {
    let cluster = start(1).await;
    open_accounts(&cluster).await;
    let file = take(&cluster).await;
    let other = Cluster::in_memory(1).entity::<Stranger>().start().await.expect("starts");
    let refused = put(&other, &file).await.expect_err("it knows no accounts");
    assert!(matches!(&refused, RestoreError::Incompatible(why) if why.contains("`account`")), "{refused}");
    other.entity::<Stranger>("s").ask(()).await.expect("it serves as before");
    let mut newer = header(&file);
    newer.entity_types.get_mut("account").expect("it is in it").event += 1;
    let mut later = header(&file);
    later.state_format += 1;
    let mut larger = header(&file);
    let last = larger.shards.last().expect("four").clone();
    larger.shards.push(ShardHead { shard: ShardId(last.shard.0 + 1), ..last });
    let into = start(1).await;
    for (header, why) in [(newer, "newer than this"), (later, "newer than this"), (larger, "`cluster.shards` = 5")] {
        let (_, first) = BackupWriter::begin(&header).expect("encodes");
        let refused = put(&into, &first).await.expect_err("it does not fit");
        assert!(matches!(&refused, RestoreError::Incompatible(text) if text.contains(why)), "{refused}");
    }
    open_accounts(&into).await;
    into.shutdown().await;
    let refused = put(&cluster, &file).await.expect_err("it holds what the file holds");
    assert!(matches!(refused, RestoreError::NotEmpty { .. }), "{refused}");
    assert_eq!(settled(&cluster, 1).await, OPENED_WITH * ACCOUNTS as i64);
    for bad in [b"".as_slice(), b"no backup", &file[..20]] {
        assert!(matches!(put(&other, bad).await, Err(RestoreError::Damaged(_))));
    }
    for cluster in [cluster, other] {
        cluster.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_that_change_meanwhile_spoil_an_attempt_and_never_a_backup() {
    let network = Network::new();
    let builder = bank(Cluster::in_memory_over(network.clone(), 3), &Arc::new(AtomicBool::new(true)));
    let cluster = builder.start().await.expect("starts");
    open_accounts(&cluster).await;
    let senders = Senders::start(&cluster, &[0, 1, 2]);
    let (mut files, mut broken_off) = (Vec::new(), 0);
    for turn in 0..8 {
        let from = cluster.on_node(turn);
        let taking = tokio::spawn(async move {
            let backup = from.backup().await?;
            Ok::<_, Unavailable>(backup.into_stream().collect::<Vec<_>>().await)
        });
        let victim = format!("node-{}", (turn + 1) % 3 + 1);
        network.isolate(&victim);
        match taking.await.expect("no panic") {
            Ok(parts) => match parts.into_iter().collect::<Result<Vec<_>, _>>() {
                Ok(parts) => files.push(parts.concat()),
                Err(_) => broken_off += 1,
            },
            Err(error) => {
                let expected = matches!(error, Unavailable::NoQuorum { .. } | Unavailable::Overloaded { .. });
                assert!(expected, "{error}");
                broken_off += 1;
            }
        }
        network.heal_all();
    }
    let sent = senders.stop().await;
    files.push(take(&cluster).await);
    println!("{sent} transfers, {} backups, {broken_off} broken off", files.len());
    for file in files {
        let into = start(1).await;
        put(&into, &file).await.expect("restored");
        assert_eq!(settled(&into, 1).await, OPENED_WITH * ACCOUNTS as i64);
        into.shutdown().await;
    }
    cluster.shutdown().await;
}
