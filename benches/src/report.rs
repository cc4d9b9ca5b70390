//! The report: every sample as JSON, and a table of medians with the ratios that count.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::rows::{ROWS, Row, Sample};
use crate::systems::System;

/// Samples by row and system.
#[derive(Debug, Default)]
pub struct Report(BTreeMap<(&'static str, System), Vec<Sample>>);

/// A median with the least and the greatest.
#[derive(Clone, Copy, Debug)]
struct Spread {
    least: f64,
    median: f64,
    greatest: f64,
}

/// Samples taken while the host took more than this share are left out where others remain, in percent.
const STOLEN: f64 = 3.0;

impl Report {
    /// Adds a sample.
    pub fn add(&mut self, row: &Row, system: System, sample: Sample) {
        self.0.entry((row.name, system)).or_default().push(sample);
    }

    /// Every sample, taken under this congestion control.
    pub fn json(&self, congestion: &str) -> Value {
        let samples = self.0.iter().map(
            |((row, system), samples)| json!({ "row": row, "system": system.name(), "samples": samples }),
        );
        json!({ "congestion_control": congestion, "stolen_limit_percent": STOLEN, "rows": samples.collect::<Vec<_>>() })
    }

    /// The table, for people.
    pub fn table(&self) -> String {
        let mut text = String::from("| row | unit |");
        for system in System::ALL {
            let _infallible = write!(text, " {} |", system.name());
        }
        text.push_str(" ours/bare | ours/best peer | bare/best peer |\n|---|---|");
        text.push_str(&"---|".repeat(System::ALL.len() + 3));
        text.push('\n');
        for row in ROWS
            .iter()
            .filter(|row| self.0.keys().any(|(name, _)| *name == row.name))
        {
            self.line(row, &mut text);
        }
        text
    }

    fn line(&self, row: &Row, text: &mut String) {
        let _infallible = write!(text, "| {} | {} |", row.name, row.unit);
        for system in System::ALL {
            let _infallible = write!(text, " {} |", self.cell(row, system));
        }
        let floor = self.best(row, System::is_floor);
        let peer = self.best(row, System::is_peer);
        let ours = self.best(row, |system| system == System::Ours);
        for (over, under) in [(ours, floor), (ours, peer), (floor, peer)] {
            let ratio = over.zip(under).map(|(over, under)| ratio(over, under));
            let _infallible = write!(text, " {} |", ratio.unwrap_or_else(|| "–".to_owned()));
        }
        text.push('\n');
    }

    /// The figure; where it is the sum of memory, both parts; where latencies were taken, two of them.
    fn cell(&self, row: &Row, system: System) -> String {
        let Some(samples) = self.0.get(&(row.name, system)) else {
            return "–".to_owned();
        };
        let Some(figure) = spread(samples, |sample| sample.figure) else {
            return "–".to_owned();
        };
        let mut text = match system {
            System::Direct => String::new(),
            _ => format!(
                "{:.1} ({:.1}–{:.1})",
                figure.median, figure.least, figure.greatest
            ),
        };
        let latency = |of: fn(&Sample) -> Option<u64>| {
            let all_taken = samples.iter().all(|sample| of(sample).is_some());
            spread_if(all_taken, samples, |sample| of(sample).unwrap_or(0) as f64)
        };
        if let Some((p50, p99)) = latency(|sample| sample.p50).zip(latency(|sample| sample.p99)) {
            let _infallible = write!(text, " {:.0}/{:.0} µs", p50.median, p99.median);
        }
        if let Some(rate) = spread(samples, |sample| sample.rate).filter(|rate| rate.median > 0.0) {
            let _infallible = write!(text, " {:.0}/s", rate.median);
        }
        let failed: u64 = samples.iter().map(|sample| sample.failed).sum();
        if failed > 0 {
            let _infallible = write!(text, " {failed} FAILED");
        }
        text.trim().to_owned()
    }

    fn best(&self, row: &Row, which: impl Fn(System) -> bool) -> Option<Spread> {
        let systems = System::ALL.into_iter().filter(|system| which(*system));
        let spreads =
            systems.filter_map(|system| spread(self.0.get(&(row.name, system))?, |sample| sample.figure));
        spreads.min_by(|a, b| a.median.total_cmp(&b.median))
    }
}

/// The ratio of two medians, and how far it could lie from it by what was measured. There is none to nothing.
fn ratio(over: Spread, under: Spread) -> String {
    if under.least <= 0.0 {
        return "–".to_owned();
    }
    format!(
        "{:.2} ({:.2}–{:.2})",
        over.median / under.median,
        over.least / under.greatest,
        over.greatest / under.least
    )
}

fn spread_if(taken: bool, samples: &[Sample], of: impl Fn(&Sample) -> f64) -> Option<Spread> {
    taken.then(|| spread(samples, of)).flatten()
}

fn spread(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> Option<Spread> {
    let undisturbed = || samples.iter().filter(|sample| sample.stolen <= STOLEN);
    let mut values: Vec<f64> = match undisturbed().count() {
        0 => samples.iter().map(of).collect(),
        _ => undisturbed().map(of).collect(),
    };
    values.sort_by(f64::total_cmp);
    Some(Spread {
        least: *values.first()?,
        median: (values[values.len() / 2] + values[(values.len() - 1) / 2]) / 2.0,
        greatest: *values.last()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(figure: f64, stolen: f64) -> Sample {
        Sample {
            figure,
            stolen,
            ..Sample::default()
        }
    }

    #[test]
    fn a_sample_that_the_host_disturbed_is_left_out_while_others_remain() {
        let samples = [
            sample(1.0, 0.0),
            sample(9.0, 50.0),
            sample(2.0, 0.0),
            sample(3.0, 1.0),
        ];
        let spread = spread(&samples, |sample| sample.figure).unwrap();
        assert_eq!((spread.least, spread.median, spread.greatest), (1.0, 2.0, 3.0));
    }

    #[test]
    fn the_median_of_two_lies_between_them() {
        let spread = spread(&[sample(1.0, 0.0), sample(4.0, 0.0)], |sample| sample.figure).unwrap();
        assert_eq!(spread.median, 2.5);
    }

    #[test]
    fn the_ratio_is_taken_against_the_better_floor() {
        let mut report = Report::default();
        for (system, figure) in [
            (System::BareH1, 20.0),
            (System::BareH2, 10.0),
            (System::Ours, 12.0),
        ] {
            report.add(&ROWS[0], system, sample(figure, 0.0));
        }
        assert!(
            report.table().contains("| 1.20 (1.20–1.20) |"),
            "{}",
            report.table()
        );
    }
}
