//! `quorate dev`: a whole cluster on this machine, each node a process of its own.
//!
//! ```text
//! plan (names, ports, directories) ─▶ spawn ─▶ wait until every /readyz is 200 ─▶ tell ─▶ watch ─▶ drain
//! ```
//!
//! Invariants: no node outlives this process (each drains when its stdin closes, which the kernel
//! does even after kill -9); a node that dies later is reported, not restarted: that is what people
//! kill it for.

mod child;
mod plan;

use super::{Failure, args, http::Client, output, signals::Signals};
use child::{Child, Exits};
use plan::Plan;
use std::time::{Duration, Instant};

/// Longest wait until every node is ready.
const READY_MAX: Duration = Duration::from_secs(60);
const READY_POLL: Duration = Duration::from_millis(50);
/// Longest wait until every node has drained, above what a node allows itself; after it they are
/// killed.
const DRAIN_MAX: Duration = Duration::from_secs(75);

pub(super) async fn run(args: args::Dev) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let started = Instant::now();
    let plan = Plan::new(&args)?;
    plan.prepare()?;
    let (mut children, mut exits) = child::spawn_all(&plan)?;
    let up = tokio::select! {
        up = wait_ready(&plan, &mut exits) => up,
        why = signals.next() => {
            output::note(&format!("\n{why}: stopping"));
            return drain(&mut children, &mut exits, &mut signals).await;
        }
    };
    if let Err(failure) = up {
        // The failure is what the user must see, not how the others were stopped because of it.
        let _ = drain(&mut children, &mut exits, &mut signals).await;
        return Err(failure);
    }
    output::answer(&plan.welcome(started.elapsed(), &children))?;
    watch(&plan, &mut children, &mut exits, &mut signals).await;
    drain(&mut children, &mut exits, &mut signals).await
}

async fn wait_ready(plan: &Plan, exits: &mut Exits) -> Result<(), Failure> {
    let ready = async {
        for node in &plan.nodes {
            let client = Client::new(&node.http)
                .map_err(|error| super::operator::failure(&error))?
                .with_timeout(Duration::from_secs(1));
            // Not there yet, or not ready yet: both mean to ask again.
            while !client.get("/readyz").await.is_ok_and(|answer| answer.is_success()) {
                tokio::time::sleep(READY_POLL).await;
            }
        }
        Ok(())
    };
    tokio::select! {
        ready = tokio::time::timeout(READY_MAX, ready) => ready.unwrap_or_else(|_| Err(not_ready(plan))),
        Some(exit) = exits.recv() => {
            let node = &plan.nodes[exit.index];
            Err(Failure::operation(format!("{} {} while starting: {} (whole log: {})", node.name, exit.how, node.log_tail(3), node.log.display())))
        }
    }
}

fn not_ready(plan: &Plan) -> Failure {
    let logs: Vec<String> = plan.nodes.iter().map(|node| node.log.display().to_string()).collect();
    Failure::operation(format!(
        "the cluster was not ready within {READY_MAX:?}; the logs tell why: {}",
        logs.join(", ")
    ))
}

/// Returns when a signal came or no node is left.
async fn watch(plan: &Plan, children: &mut [Child], exits: &mut Exits, signals: &mut Signals) {
    loop {
        tokio::select! {
            why = signals.next() => return output::note(&format!("\n{why}: draining the cluster (again to stop at once)")),
            Some(exit) = exits.recv() => {
                children[exit.index].running = false;
                let node = &plan.nodes[exit.index];
                output::note(&format!("{} {}. Its log: {}", node.name, exit.how, node.log.display()));
                if children.iter().any(|child| child.running) {
                    output::note(&format!("start it again, in another terminal:\n  {}", node.command_line(plan)));
                } else {
                    return output::note("no node is left");
                }
            }
        }
    }
}

/// Asks every node to drain and waits for it; a second signal, or too long a wait, kills.
async fn drain(children: &mut [Child], exits: &mut Exits, signals: &mut Signals) -> Result<(), Failure> {
    children.iter_mut().for_each(Child::ask_to_drain);
    let mut clean = true;
    let all_gone = async {
        // Ends when every child's watcher is gone.
        while let Some(exit) = exits.recv().await {
            clean &= exit.clean || !children[exit.index].running;
            children[exit.index].running = false;
        }
    };
    let patience = tokio::select! {
        () = all_gone => None,
        () = tokio::time::sleep(DRAIN_MAX) => Some("the drain took too long: killed what was left"),
        _ = signals.next() => Some("killed before the drain was over"),
    };
    if let Some(why) = patience {
        children.iter_mut().for_each(Child::kill);
        while exits.recv().await.is_some() {}
        return Err(Failure::operation(format!("{why}; nothing acknowledged is lost")));
    }
    if clean { Ok(()) } else { Err(Failure::operation("a node did not drain cleanly; its log tells why")) }
}
