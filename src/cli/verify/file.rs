//! Reads a file of receipts.

use crate::{cli::Failure, cluster::Receipt};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
};

/// Receipts, and on which lines each stands: writes that were packed into one log entry share one.
pub(super) type Receipts = BTreeMap<String, (Receipt, Vec<usize>)>;

pub(super) fn read(path: &Path) -> Result<Receipts, Failure> {
    if path.as_os_str() == "-" {
        return parse(std::io::stdin().lock(), "stdin");
    }
    let name = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    parse(BufReader::new(file), &name)
}

fn parse(lines: impl BufRead, name: &str) -> Result<Receipts, Failure> {
    let mut receipts = Receipts::new();
    for (at, line) in lines.lines().enumerate() {
        let bad = |why: String| Failure::usage(format!("{name}:{}: {why}", at + 1));
        let line = line.map_err(|error| bad(error.to_string()))?;
        if line.trim().is_empty() {
            continue;
        }
        let receipt = receipt(line.trim()).map_err(bad)?;
        receipts.entry(receipt.to_string()).or_insert((receipt, Vec::new())).1.push(at + 1);
    }
    if receipts.is_empty() {
        return Err(Failure::usage(format!(
            "{name} holds no receipt; write the `x-receipt` of each answer, one a line"
        )));
    }
    Ok(receipts)
}

/// The receipt of a line: bare, a JSON string, or a member of a JSON object.
fn receipt(line: &str) -> Result<Receipt, String> {
    let json = |line| serde_json::from_str::<Value>(line).map_err(|error| format!("not JSON: {error}"));
    let text = match line.as_bytes().first() {
        Some(b'{') => match &json(line)?["receipt"] {
            Value::String(text) => text.clone(),
            Value::Null => return Err("there is no `receipt` in it".into()),
            other => return Err(format!("`receipt` is no text: {other}")),
        },
        Some(b'"') => json(line)?.as_str().unwrap_or_default().to_owned(),
        _ => line.to_owned(),
    };
    text.parse().map_err(|error| format!("`{}`: {error}", text.chars().take(64).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_receipt_in_one_of_three_forms() {
        let text = "3-2-7-0000000a\n\n\"3-2-7-0000000a\"\n{\"path\":\"/v1/orders\",\"receipt\":\"0-1-9-000000ff\"}\n";
        let receipts = parse(text.as_bytes(), "f").expect("well-formed");
        let lines: Vec<_> = receipts.iter().map(|(text, (_, lines))| (text.as_str(), lines.clone())).collect();
        assert_eq!(lines, [("0-1-9-000000ff", vec![4]), ("3-2-7-0000000a", vec![1, 3])]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (line, why) in [
            ("{\"id\":\"ord_1\"}", "no `receipt`"),
            ("{\"receipt\":7}", "no text"),
            ("{\"receipt\"", "not JSON"),
            ("3-2-7", "3-2-1047-9c0b7e11"),
            ("\"x\"", "`x`"),
        ] {
            let failure = parse(format!("3-2-7-0000000a\n{line}\n").as_bytes(), "r.jsonl").expect_err(line);
            assert!(
                matches!(&failure, Failure::Usage(text) if text.starts_with("r.jsonl:2: ") && text.contains(why)),
                "{failure}"
            );
        }
        assert!(matches!(parse(&b"\n \n"[..], "f"), Err(Failure::Usage(_))), "an empty file proves nothing");
    }
}
