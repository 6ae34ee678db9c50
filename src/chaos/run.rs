//! A run: start, load, faults, heal, quiet, check.

use super::{
    check,
    cluster::{Cluster, describe},
    fault::Fault,
    faults::{self, Moment, Stage, Times, Trouble},
    gateway::Gateway,
    load::{self, Load, Workload},
    network::{Network, Place, Way},
    plan::Plan,
    progress::{News, Progress},
    quiet,
    report::{self, FaultRecord, Report, System},
    schedule::Event,
    timeline::{self, Timeline},
    verdict::Verdict,
};
use crate::sabotage::{self, Sabotage};
use parking_lot::Mutex;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::Semaphore, task::JoinSet};

/// Longest wait until every node of a new cluster is ready.
const READY_WITHIN: Duration = Duration::from_secs(90);
/// How often the processes are looked at.
const WATCH_EVERY: Duration = Duration::from_millis(200);

pub struct Settings {
    pub plan: Plan,
    /// How nodes are kept apart.
    pub way: Way,
    pub workloads: Vec<Workload>,
    /// What to type for the same again.
    pub command: String,
    /// Whether logs and data stay where something was violated.
    pub keep_evidence: bool,
    /// Told what happens, as it happens.
    pub news: Arc<dyn Fn(News) + Send + Sync>,
}

/// Why there is no verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The surroundings: an address, a directory, a process.
    #[error("{0}")]
    Surroundings(String),
    /// The cluster was never there.
    #[error("the cluster did not start: {0}")]
    NotStarted(String),
}

/// Runs a plan to its verdict. Whatever happens, its processes end with it.
///
/// # Errors
/// It did not come to a verdict. A violation is none of these: it is in the report.
pub async fn run(settings: Settings) -> Result<(Report, super::history::History), Error> {
    let run = Arc::new(Run::start(settings).await?);
    let started = Instant::now();
    run.note(format!("network: {}", run.network.about));
    run.note("the cluster is ready; load begins");
    let load = load::start(load::Options {
        urls: run.cluster.urls(),
        clients: run.settings.plan.clients,
        workloads: run.settings.workloads.clone(),
        seed: run.settings.plan.seed,
        started,
    });
    let timeline = run.clone().under_load(&load, started).await;
    run.network.restore_all().await.map_err(Error::Surroundings)?;
    run.note("all faults are healed; waiting until it is quiet");
    let history = load.stop().await;
    let quiet = quiet::wait(&run.cluster, run.settings.plan.recover_within).await;
    run.own.lock().heals.expect(
        quiet.is_ok(),
        || format!("the cluster is not quiet {}", quiet.err().unwrap_or_default()),
        Vec::new,
    );
    run.note("checking");
    // Half as long again: 90 s, if the plan says nothing.
    let quiet_max = run.settings.plan.recover_within.mul_f64(1.5);
    let mut verdicts = check::check_with(&history, &run.cluster.urls(), Some(&run.gateway), quiet_max).await;
    verdicts.splice(0..0, run.own.lock().clone().verdicts());
    let mut records = run.records.lock().clone();
    report::measure_gaps(&mut records, &timeline::acknowledged_writes(&history));
    let plan = run.settings.plan.clone();
    let mut report =
        Report::new(run.settings.command.clone(), plan, System::this(), records, timeline.points(), verdicts);
    report.network = run.described_network().await;
    report.totals.add(&history);
    report.sabotage = sabotage::chosen().ok().flatten().map(Sabotage::name);
    if report.is_violated() && run.settings.keep_evidence {
        run.cluster.keep_dir();
        report.evidence = Some(run.cluster.dir().display().to_string());
    }
    Ok((report, history))
}

struct Run {
    settings: Settings,
    cluster: Cluster,
    network: Network,
    /// Takes the money, and writes down what it took.
    gateway: Gateway,
    /// One permit for each node that the others can do without.
    spare: Semaphore,
    own: Mutex<Own>,
    records: Mutex<Vec<FaultRecord>>,
    in_force: Mutex<Vec<(u64, String)>>,
}

/// What the runner itself judges.
#[derive(Debug, Clone)]
struct Own {
    heals: Verdict,
    as_expected: Verdict,
    stays_up: Verdict,
}

impl Own {
    fn verdicts(self) -> Vec<Verdict> {
        vec![self.heals, self.as_expected, self.stays_up]
    }
}

impl Run {
    async fn start(settings: Settings) -> Result<Self, Error> {
        let surroundings = |error: std::io::Error| Error::Surroundings(error.to_string());
        let gateway = Gateway::open().await.map_err(surroundings)?;
        let by_proxy = settings.way.needs_proxies(&settings.plan);
        let cluster = Cluster::prepare(&settings.plan, by_proxy, &gateway.node_arguments()).map_err(surroundings)?;
        cluster.certify().map_err(surroundings)?;
        let places: Vec<Place> =
            cluster.nodes().iter().map(|node| Place { listen: node.listen, proxied: node.proxied }).collect();
        let network = Network::start(&settings.way, &settings.plan, &places).await.map_err(Error::Surroundings)?;
        for node in cluster.nodes() {
            node.start().map_err(surroundings)?;
        }
        for node in cluster.nodes() {
            node.wait_ready(READY_WITHIN).await.map_err(Error::NotStarted)?;
        }
        let spare = Semaphore::new(usize::from(settings.plan.ground().minority()));
        let mut stays_up = Verdict::new("nodes-stay-up");
        stays_up.checked = u64::from(settings.plan.nodes);
        let own = Own { heals: Verdict::new("heals"), as_expected: Verdict::new("faults-do-what-they-must"), stays_up };
        let (own, records, in_force) = (Mutex::new(own), Mutex::default(), Mutex::default());
        Ok(Self { settings, cluster, network, gateway, spare, own, records, in_force })
    }

    async fn described_network(&self) -> report::Network {
        let namespace = match &self.settings.way {
            Way::Namespace(namespace) => Some(namespace.id().to_owned()),
            Way::Proxy { .. } => None,
        };
        report::Network {
            way: self.settings.way.name(),
            about: self.network.about.clone(),
            namespace,
            packets_dropped: self.network.packets_dropped().await,
        }
    }

    fn note(&self, text: impl Into<String>) {
        (self.settings.news)(News::Note(text.into()));
    }

    /// The faults at their times, all else watched meanwhile; ends when the time is up and nothing
    /// is left of any fault.
    async fn under_load(self: Arc<Self>, load: &Load, started: Instant) -> Timeline {
        let mut faults = JoinSet::new();
        for (number, event) in (1..).zip(self.settings.plan.events.clone()) {
            faults.spawn(self.clone().one_fault(number, event, started));
        }
        let mut watch = JoinSet::new();
        watch.spawn(self.clone().watch_processes());
        let mut timeline = Timeline::default();
        let mut tick = tokio::time::interval(timeline::EVERY);
        tick.tick().await;
        let ends = started + self.settings.plan.duration;
        while Instant::now() < ends || !faults.is_empty() {
            tokio::select! {
                _ = tick.tick() => self.sample(load, started, &mut timeline),
                Some(ended) = faults.join_next(), if !faults.is_empty() => {
                    if let Err(error) = ended {
                        self.own.lock().as_expected.violated(format!("a fault was not carried out: {error}"), Vec::new());
                    }
                }
            }
        }
        watch.shutdown().await;
        timeline
    }

    fn sample(&self, load: &Load, started: Instant, timeline: &mut Timeline) {
        let (elapsed, sample) = (started.elapsed(), load.sample());
        let point = timeline.add(elapsed, &sample);
        let progress = Progress {
            elapsed,
            duration: self.settings.plan.duration,
            point,
            acknowledged: sample.acknowledged,
            refused: sample.refused,
            unknown: sample.unknown,
            in_force: self.in_force.lock().iter().map(|(_, name)| name.clone()).collect(),
        };
        (self.settings.news)(News::Progress(progress));
    }

    /// A node that ends without anyone having done anything to it is a violation; it is started
    /// again, so that the run can go on.
    async fn watch_processes(self: Arc<Self>) {
        loop {
            for node in self.cluster.nodes() {
                let Ok(_turn) = node.busy.try_lock() else { continue };
                if node.is_meddled_with() {
                    continue;
                }
                if let Some(status) = node.ended() {
                    let how = format!("{} {} by itself: {}", node.name, describe(status), node.last_words());
                    self.note(&how);
                    self.own.lock().stays_up.violated(how, Vec::new());
                }
                // Also after a fault that did not bring it back.
                if let Err(error) = node.start() {
                    self.note(format!("{} cannot be started: {error}", node.name));
                }
            }
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }

    async fn one_fault(self: Arc<Self>, number: u64, event: Event, started: Instant) {
        tokio::time::sleep_until((started + event.at).into()).await;
        let ground = self.settings.plan.ground();
        let away = u32::from(event.fault.away(ground).min(ground.minority()));
        // The one before may take longer to come back than the plan allows for.
        let Ok(_spare) = self.spare.acquire_many(away).await else { return };
        let times = Mutex::new(Times::default());
        let name = event.fault.to_string();
        let news = |moment| match moment {
            Moment::Begun => {
                self.in_force.lock().push((number, name.clone()));
                self.note(format!("{:>6.1} s  {name}", started.elapsed().as_secs_f64()));
            }
            Moment::Healed => {
                self.in_force.lock().retain(|(other, _)| *other != number);
                self.note(format!("{:>6.1} s  healed: {name}", started.elapsed().as_secs_f64()));
            }
        };
        let stage = Stage {
            cluster: &self.cluster,
            network: &self.network,
            number,
            lasts: event.lasts,
            recover_within: self.settings.plan.recover_within,
            times: &times,
            news: &news,
        };
        let outcome = Box::pin(faults::carry_out(&stage, &event.fault)).await;
        self.in_force.lock().retain(|(other, _)| *other != number);
        if let Err(error) = self.network.restore(number).await {
            self.note(format!("{name} cannot be healed: {error}"));
        }
        let trouble = self.judge(&event.fault, outcome);
        let record = FaultRecord::new(&event, *times.lock(), started, trouble);
        self.records.lock().push(record);
    }

    /// Counts what became of a fault; gives the sentence about what went wrong.
    fn judge(&self, fault: &Fault, outcome: Result<(), Trouble>) -> Option<String> {
        let mut own = self.own.lock();
        match outcome {
            Ok(()) => {
                own.heals.checked += 1;
                own.as_expected.checked += 1;
                None
            }
            Err(Trouble::NotHealed(why)) => {
                own.heals.expect(false, || format!("{fault}: {why}"), Vec::new);
                Some(why)
            }
            Err(Trouble::Unexpected(why)) => {
                own.as_expected.expect(false, || format!("{fault}: {why}"), Vec::new);
                Some(why)
            }
            Err(Trouble::NotDone(why)) => {
                let before = own.as_expected.skipped.take().map_or(String::new(), |before| before + "; ");
                own.as_expected.skipped = Some(format!("{before}{fault} was not done: {why}"));
                Some(why)
            }
        }
    }
}
