//! Figures with their goals, as a table or JSON.

use std::fmt;

use serde::Serialize;

/// One figure.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) name: String,
    /// The median, or the one value.
    pub(crate) value: f64,
    /// Its unit: us, ns, MB, per_s, ratio.
    pub(crate) unit: &'static str,
    /// 95th percentile, where there are runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p95: Option<f64>,
    /// How many runs.
    pub(crate) runs: usize,
    /// The goal in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) goal: Option<String>,
    /// Whether the goal is met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) met: Option<bool>,
}

/// All figures of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    figures: Vec<Figure>,
    /// What has to be known to judge the figures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remarks: Vec<String>,
    /// What could not be measured, and why.
    skipped: Vec<String>,
}

impl Report {
    /// Adds the median and p95 of `samples`.
    pub(crate) fn samples(&mut self, name: impl Into<String>, unit: &'static str, samples: &[f64]) -> f64 {
        let value = percentile(samples, 50.0);
        self.figures.push(Figure {
            name: name.into(),
            value,
            unit,
            p95: Some(percentile(samples, 95.0)),
            runs: samples.len(),
            goal: None,
            met: None,
        });
        value
    }

    /// Adds one value without a goal.
    pub(crate) fn value(&mut self, name: impl Into<String>, unit: &'static str, value: f64) {
        self.figures.push(Figure {
            name: name.into(),
            value,
            unit,
            p95: None,
            runs: 1,
            goal: None,
            met: None,
        });
    }

    /// Adds a value that should not be over `limit`.
    pub(crate) fn at_most(&mut self, name: impl Into<String>, unit: &'static str, value: f64, limit: f64) {
        self.goal(name, unit, value, format!("<= {limit}"), value <= limit);
    }

    /// Adds a value that should not be under `limit`.
    pub(crate) fn at_least(&mut self, name: impl Into<String>, unit: &'static str, value: f64, limit: f64) {
        self.goal(name, unit, value, format!(">= {limit}"), value >= limit);
    }

    fn goal(&mut self, name: impl Into<String>, unit: &'static str, value: f64, goal: String, met: bool) {
        let (name, goal, met) = (name.into(), Some(goal), Some(met));
        self.figures.push(Figure { name, value, unit, p95: None, runs: 1, goal, met });
    }

    /// Says what has to be known to judge the figures.
    pub(crate) fn text(&mut self, what: &str, value: impl fmt::Display) {
        self.remarks.push(format!("{what}: {value}"));
    }

    /// Says what was left out.
    pub(crate) fn skip(&mut self, what: impl Into<String>) {
        self.skipped.push(what.into());
    }

    /// The whole as JSON.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<58} {:>12} {:>12} {:>6}  {:<10} met", "figure", "median", "p95", "runs", "goal")?;
        for figure in &self.figures {
            let number =
                |value: f64| format!("{value:.*} {}", if value < 100.0 { 2 } else { 0 }, figure.unit);
            let p95 = figure.p95.map(number).unwrap_or_default();
            let met = match figure.met {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "",
            };
            let goal = figure.goal.as_deref().unwrap_or("");
            let (name, value, runs) = (&figure.name, number(figure.value), figure.runs);
            writeln!(f, "{name:<58} {value:>12} {p95:>12} {runs:>6}  {goal:<10} {met}")?;
        }
        for remark in &self.remarks {
            writeln!(f, "{remark}")?;
        }
        for what in &self.skipped {
            writeln!(f, "not measured: {what}")?;
        }
        Ok(())
    }
}

/// The nearest-rank percentile; NaN of nothing.
pub(crate) fn percentile(samples: &[f64], percent: f64) -> f64 {
    let mut sorted: Vec<f64> = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    if sorted.is_empty() {
        return f64::NAN;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank among a few thousand samples"
    )]
    let rank = ((percent / 100.0 * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len());
    sorted[rank - 1]
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_nearest_rank() {
        let samples = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert!((percentile(&samples, 50.0) - 3.0).abs() < f64::EPSILON);
        assert!((percentile(&samples, 95.0) - 5.0).abs() < f64::EPSILON);
        assert!(percentile(&[], 50.0).is_nan());
    }
}
