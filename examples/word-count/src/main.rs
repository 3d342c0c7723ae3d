//! Counts words: arguments come as JSON on standard input, the result goes as JSON to standard output.

use std::collections::HashMap;
use std::io::{Error, Result};

use serde_json::{Value, json};

fn main() -> Result<()> {
    let arguments: Value = serde_json::from_reader(std::io::stdin())?;
    let text = arguments["text"].as_str().ok_or_else(|| Error::other("there is no text"))?;
    let top = arguments["top"].as_u64().unwrap_or(10);
    let mut counts: HashMap<String, u64> = HashMap::new();
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    let mut words: Vec<(&String, &u64)> = counts.iter().collect();
    words.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let most: Vec<Value> = words
        .into_iter()
        .take(usize::try_from(top).unwrap_or(usize::MAX))
        .map(|(word, count)| json!({ "word": word, "count": count }))
        .collect();
    let result = json!({
        "words": counts.values().sum::<u64>(),
        "lines": text.lines().count(),
        "characters": text.chars().count(),
        "most": most,
    });
    println!("{result}");
    Ok(())
}
