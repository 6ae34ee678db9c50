//! `quorate chaos`: a cluster of real processes, mistreated under load, and a verdict with evidence.

use super::{Failure, args, output, signals::Signals};
use crate::chaos::{
    self, Error, Settings,
    history::History,
    load::Workload,
    network::{Entrance, Namespace, Way},
    plan::{Plan, Wanted},
    progress::News,
    report::Report,
};
use crate::sabotage;
use rand::RngExt as _;
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// Without a terminal there is a line of figures so often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What is decided before anything runs.
pub(super) struct Begun {
    plan: Plan,
    way: Way,
}

/// Decides what is to be done, and in which network. It may come back in a namespace of the run's own:
/// as this process begun anew, with [`args::Chaos::left_network`].
pub(super) fn begin(args: &args::Chaos) -> Result<Begun, Failure> {
    // Its nodes would say the same, and the run would look like one that did not start.
    sabotage::chosen().map_err(Failure::usage)?;
    // First, so that a plan that cannot be is all that is said of it.
    let plan = plan(args)?;
    Ok(Begun { plan, way: way(args)? })
}

fn way(args: &args::Chaos) -> Result<Way, Failure> {
    if let Some(left) = &args.left_network {
        return Namespace::furnish(left).map(Way::Namespace).map_err(Failure::operation);
    }
    if args.network == args::ChaosNetwork::Proxy {
        return Ok(Way::Proxy { why: "as asked for".into() });
    }
    let why = match Entrance::check() {
        // Comes back only if it failed.
        Ok(entrance) => entrance.enter(),
        Err(why) => why,
    };
    match args.network {
        args::ChaosNetwork::Namespace => {
            Err(Failure::operation(format!("--network namespace: {why}; --network proxy needs no privileges")))
        }
        _ => Ok(Way::Proxy { why }),
    }
}

pub(super) async fn run(args: args::Chaos, begun: Begun) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let Begun { plan, way } = begun;
    output::answer(&plan.render())?;
    let settings = Settings {
        command: command(&args, &plan, &way),
        plan,
        way,
        workloads: Workload::ALL.to_vec(),
        keep_evidence: true,
        news: teller(),
    };
    let ended = tokio::select! {
        ended = Box::pin(chaos::run(settings)) => ended,
        // Its processes end with the run, which is dropped here.
        why = signals.next() => return Err(Failure::operation(format!("{why}: stopped before there was a verdict"))),
    };
    output::redraw("");
    let (report, history) = ended.map_err(|error| match error {
        Error::Surroundings(_) => Failure::operation(error.to_string()),
        Error::NotStarted(_) => Failure::unavailable(error.to_string()),
    })?;
    tell(&report, &history, &args.report)
}

fn plan(args: &args::Chaos) -> Result<Plan, Failure> {
    let file = args.plan.as_deref().map(Wanted::read).transpose().map_err(Failure::usage)?.unwrap_or_default();
    let faults = args.faults.as_deref().map(kinds).transpose()?;
    let flags = Wanted {
        nodes: args.nodes,
        duration: args.duration,
        clients: args.clients,
        seed: args.seed,
        faults,
        ..Wanted::default()
    };
    // Small numbers are easy to pass on.
    flags.or(file).decide(rand::rng().random_range(1..1_000_000)).map_err(Failure::usage)
}

/// `kill,pause`, or `all`.
fn kinds(text: &str) -> Result<Vec<chaos::Kind>, Failure> {
    if text == "all" {
        return Ok(chaos::Kind::all().collect());
    }
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| name.parse().map_err(|error| Failure::usage(format!("--faults: {error}")))).collect()
}

/// What makes the same schedule again, whatever decided it this time.
fn command(args: &args::Chaos, plan: &Plan, way: &Way) -> String {
    let mut words = vec!["quorate chaos".to_owned(), format!("--nodes {}", plan.nodes)];
    words.push(format!("--duration {}ms", plan.duration.as_millis()).replace("000ms", "s"));
    if let Some(file) = &args.plan {
        words.push(format!("--plan {}", file.display()));
    }
    if let Some(faults) = &args.faults {
        words.push(format!("--faults {faults}"));
    }
    words.push(format!("--clients {} --seed {} --network {}", plan.clients, plan.seed, way.name()));
    words.join(" ")
}

/// Shows what happens: one line that is drawn again and again on a terminal, plain lines elsewhere.
fn teller() -> Arc<dyn Fn(News) + Send + Sync> {
    let terminal = output::is_terminal();
    let last = parking_lot::Mutex::new(None::<Instant>);
    Arc::new(move |news| match news {
        News::Note(text) if terminal => {
            output::redraw("");
            output::note(&text);
        }
        News::Note(text) => output::note(&text),
        News::Progress(progress) if terminal => output::redraw(&progress.render()),
        News::Progress(progress) => {
            let mut last = last.lock();
            if last.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
                *last = Some(Instant::now());
                output::note(&progress.render());
            }
        }
    })
}

fn tell(report: &Report, history: &History, dir: &Path) -> Result<(), Failure> {
    let page = report.write(dir, history);
    output::answer(&report.render())?;
    let page = page.map_err(|error| Failure::operation(format!("--report {}: {error}", dir.display())))?;
    output::answer(&format!("  report: {}", page.display()))?;
    let Some(first) = report.first_violation() else { return Ok(()) };
    let evidence = report.evidence.as_ref().map_or(String::new(), |dir| format!("; logs and data are in {dir}"));
    Err(Failure::operation(format!("violated: {first}{evidence}")))
}
