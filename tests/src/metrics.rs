//! What a proxy or the control plane says of itself on its admin port.

use crate::http;
use crate::pod::Pod;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// One scrape.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The text as it came.
    pub text: String,
    series: Vec<Series>,
}

/// One line: a name, its labels in the order in which they came, a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The metric's name, with its suffix.
    pub name: String,
    /// The labels.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
}

impl Metrics {
    /// Scrapes the proxy of a pod, from within the pod.
    pub fn of(pod: &Pod) -> Self {
        let response = http::get(
            pod,
            (Ipv4Addr::LOCALHOST, 4191).into(),
            "localhost",
            "/metrics",
            &["connection: close"],
        );
        assert_eq!(response.status, 200, "{}", response.body);
        Self::parse(&response.body)
    }

    /// Reads the text format.
    ///
    /// # Panics
    /// At the first line that is not in the format.
    pub fn parse(text: &str) -> Self {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self {
            text: text.to_owned(),
            series: lines
                .map(|line| series(line).unwrap_or_else(|| panic!("not a metric: {line}")))
                .collect(),
        }
    }

    /// The sum of all series of this name which have these labels, and maybe more.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.having(name, labels).map(|series| series.value).sum()
    }

    /// All series of this name which have these labels, and maybe more.
    pub fn having<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = &'a Series> {
        self.series.iter().filter(move |series| {
            series.name == name
                && labels
                    .iter()
                    .all(|(name, value)| series.label(name) == Some(value))
        })
    }

    /// The label names of the first series that has this name and these labels.
    ///
    /// # Panics
    /// When there is none.
    pub fn label_names(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&str> {
        let series = self.having(name, labels).next();
        let series = series.unwrap_or_else(|| panic!("no {name} with {labels:?} in:\n{}", self.text));
        self.series
            .iter()
            .find(|one| *one == series)
            .into_iter()
            .flat_map(|series| series.labels.iter().map(|(name, _)| name.as_str()))
            .collect()
    }

    /// The type of a family, as its TYPE line says.
    pub fn kind(&self, family: &str) -> Option<&str> {
        let start = format!("# TYPE {family} ");
        self.text.lines().find_map(|line| line.strip_prefix(&start))
    }
}

impl Series {
    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels
            .iter()
            .find(|(label, _)| label == name)
            .map(|(_, value)| value.as_str())
    }

    /// All labels by name.
    pub fn by_name(&self) -> BTreeMap<&str, &str> {
        self.labels
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }
}

fn series(line: &str) -> Option<Series> {
    let (head, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let (name, labels) = match head.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (head, ""),
    };
    Some(Series {
        name: name.to_owned(),
        labels: read_labels(labels)?,
        value,
    })
}

/// Reads `a="b",c="d"`, where values escape `\`, `"` and line ends.
fn read_labels(mut text: &str) -> Option<Vec<(String, String)>> {
    let mut labels = Vec::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.push((name.to_owned(), value));
        text = rest[end + 1..].trim_start_matches(',');
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_found_by_name_and_some_of_their_labels() {
        let metrics = Metrics::parse(
            "# HELP a x\n# TYPE a counter\na{b=\"1\",c=\"x\\\"y,}\"} 2\na{b=\"2\"} 3\nd 4.5\n",
        );
        assert_eq!(metrics.sum("a", &[]), 5.0);
        assert_eq!(metrics.sum("a", &[("c", "x\"y,}")]), 2.0);
        assert_eq!(metrics.sum("d", &[]), 4.5);
        assert_eq!(metrics.label_names("a", &[("b", "1")]), ["b", "c"]);
        assert_eq!(metrics.kind("a"), Some("counter"));
    }
}
