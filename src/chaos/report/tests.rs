use super::*;
use crate::chaos::plan::Wanted;

fn report(verdicts: Vec<Verdict>) -> Report {
    let plan = Wanted { duration: Some(Duration::from_secs(20)), ..Wanted::default() }.decide(7).expect("a plan");
    let fault = FaultRecord {
        name: "kill <n1>".into(),
        expectation: "it comes back",
        planned_at_s: 2.0,
        begun_s: Some(2.1),
        healed_s: Some(4.0),
        gone_s: 5.5,
        longest_gap_ms: Some(812),
        trouble: None,
    };
    let point = Point {
        at_s: 0.5,
        acknowledged_per_s: 100.0,
        refused_per_s: 0.0,
        unknown_per_s: 0.0,
        p50_ms: Some(1.0),
        p99_ms: None,
    };
    let points = vec![point, Point { at_s: 1.0, p99_ms: Some(9.0), ..point }];
    Report::new("quorate chaos --seed 7".into(), plan, System::this(), vec![fault], points, verdicts)
}

fn broken() -> Verdict {
    let mut verdict = Verdict::new("conservation");
    verdict.expect(false, || "<script>alert('1 & 2')</script>".into(), || vec![4, 5]);
    verdict
}

fn fine() -> Verdict {
    let mut verdict = Verdict::new("heals");
    verdict.expect(true, String::new, Vec::new);
    verdict
}

#[test]
fn a_gap_belongs_to_the_fault_before_the_next_one() {
    let mut faults = report(Vec::new()).faults;
    faults.push(FaultRecord { begun_s: Some(6.0), gone_s: 7.0, ..faults[0].clone() });
    faults.push(FaultRecord { begun_s: None, longest_gap_ms: None, ..faults[0].clone() });
    // A write every 100 ms, and none from 6.0 s to 6.9 s.
    let times: Vec<u64> = (0..150_u64).filter(|n| !(61..69).contains(n)).map(|n| n * 100_000).collect();
    measure_gaps(&mut faults, &times);
    assert_eq!(faults.iter().map(|fault| fault.longest_gap_ms).collect::<Vec<_>>(), [Some(100), Some(900), None]);
}

#[test]
fn one_violation_makes_the_whole_run_violated() {
    assert_eq!(report(vec![fine()]).verdict, "passed");
    let violated = report(vec![fine(), broken()]);
    assert!(violated.is_violated() && violated.verdict == "violated");
    assert!(violated.first_violation().is_some_and(|first| first.starts_with("conservation: ")));
}

#[test]
fn the_page_has_everything_in_it_escaped_and_loads_nothing() {
    let page = html::render(&report(vec![fine(), broken()]));
    for expected in
        ["conservation", "heals", "quorate chaos --seed 7", "812 ms", "<svg", "<polyline", "class=\"fault\""]
    {
        assert!(page.contains(expected), "{expected} is missing");
    }
    assert!(page.contains("&lt;script&gt;") && page.contains("kill &lt;n1&gt;"));
    for never in ["<script", "<n1>", "http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(never), "{never} is in it");
    }
}

#[test]
fn a_run_of_nodes_that_break_a_promise_on_purpose_says_so_everywhere() {
    let honest = report(vec![fine()]);
    assert!(![honest.render(), html::render(&honest)].iter().any(|text| text.contains("SABOTAGE")));
    let sabotaged = Report { sabotage: Some("skip-fsync"), ..honest };
    for text in [sabotaged.render(), html::render(&sabotaged)] {
        assert!(text.contains("SABOTAGE") && text.contains("skip-fsync"), "{text}");
    }
    assert_eq!(serde_json::to_value(&sabotaged).expect("JSON")["sabotage"], "skip-fsync");
}

#[test]
fn both_reports_and_the_history_are_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let target = dir.path().join("a/b");
    let page = report(vec![fine(), broken()]).write(&target, &History::default()).expect("written");
    assert_eq!(page, target.join("report.html"));
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(target.join("report.json")).expect("a report")).expect("JSON");
    assert_eq!((&json["verdict"], &json["plan"]["seed"]), (&"violated".into(), &7.into()));
    assert_eq!(json["verdicts"][1]["violations"][0]["operations"], serde_json::json!([4, 5]));
    assert!(target.join("history.jsonl").exists());
}

#[test]
fn the_terminal_is_told_what_was_not_judged() {
    let text = report(vec![fine(), broken(), Verdict::skipped("receipts", "not offered")]).render();
    assert!(text.contains("✓ heals") && text.contains("✗ conservation") && text.contains("– receipts"), "{text}");
    assert!(text.contains("not judged: not offered") && text.contains("again: quorate chaos --seed 7"), "{text}");
}
