//! Prometheus' text format, version 0.0.4, read as strictly as it is defined.

use std::collections::{BTreeMap, BTreeSet};

/// A family of metrics.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
    /// By the sample's name and labels as they are written.
    pub(crate) samples: BTreeMap<String, f64>,
}

/// A page, by the families' names.
#[derive(Debug)]
pub(crate) struct Page(pub(crate) BTreeMap<String, Family>);

impl Page {
    /// Reads a page; panics with the line that is wrong.
    pub(crate) fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line ends");
        let mut families = BTreeMap::<String, Family>::new();
        let mut current = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect(line);
                assert!(is_name(name), "{line}");
                let help = help.to_owned();
                let family = Family {
                    help,
                    ..Family::default()
                };
                assert!(
                    families.insert(name.into(), family).is_none(),
                    "twice: {line}"
                );
                name.clone_into(&mut current);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect(line);
                assert_eq!(name, current, "TYPE follows HELP: {line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                let family = families.get_mut(name).expect(line);
                kind.clone_into(&mut family.kind);
            } else {
                let family = families.get_mut(&current).expect(line);
                family.sample(&current, line);
            }
        }
        families
            .iter()
            .for_each(|(name, family)| family.check(name));
        Self(families)
    }

    /// The sum of all samples of a counter or a gauge.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let family = self.0.get(name).unwrap_or_else(|| panic!("no {name}"));
        family.samples.values().sum()
    }

    /// The sample with these labels, as they are written.
    pub(crate) fn sample(&self, name: &str, labels: &str) -> f64 {
        let family = self.0.get(name).unwrap_or_else(|| panic!("no {name}"));
        *family
            .samples
            .get(&format!("{name}{labels}"))
            .unwrap_or_else(|| panic!("no {labels} in {family:?}"))
    }

    /// How many values a histogram has, of all of its series.
    pub(crate) fn count(&self, name: &str) -> f64 {
        let counts = format!("{name}_count");
        let samples = self.0[name].samples.iter();
        let counts = samples.filter(|(sample, _)| sample.starts_with(&counts));
        counts.map(|(_, value)| value).sum()
    }
}

impl Family {
    fn sample(&mut self, name: &str, line: &str) {
        assert!(!self.kind.is_empty(), "TYPE comes before {line}");
        let (series, value) = line.rsplit_once(' ').expect(line);
        let value: f64 = match value {
            "+Inf" => f64::INFINITY,
            value => value.parse().expect(line),
        };
        let own = series.split('{').next().expect("split gives one part");
        let suffixes: &[&str] = match self.kind.as_str() {
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        let of_family = suffixes
            .iter()
            .any(|suffix| own == format!("{name}{suffix}"));
        assert!(of_family, "{line} stands among {name}");
        labels(&series[own.len()..]);
        let before = self.samples.insert(series.to_owned(), value);
        assert!(before.is_none(), "twice: {line}");
    }

    fn check(&self, name: &str) {
        assert!(!self.kind.is_empty(), "{name} has a TYPE");
        assert!(!self.help.trim().is_empty(), "{name} has a HELP");
        assert_eq!(name.ends_with("_total"), self.kind == "counter", "{name}");
        match self.kind.as_str() {
            "counter" => assert!(self.samples.values().all(|value| *value >= 0.0)),
            "histogram" => self.check_histogram(name),
            _ => {}
        }
    }

    /// Buckets grow up to `+Inf`, which is the count.
    fn check_histogram(&self, name: &str) {
        let mut series = BTreeMap::<String, Vec<(f64, f64)>>::new();
        for (sample, value) in &self.samples {
            if let Some(rest) = sample.strip_prefix(&format!("{name}_bucket")) {
                let mut labels = labels(rest);
                let at = labels
                    .iter()
                    .position(|(key, _)| key == "le")
                    .expect(sample);
                let bound = match labels.remove(at).1.as_str() {
                    "+Inf" => f64::INFINITY,
                    bound => bound.parse().expect(sample),
                };
                series
                    .entry(format!("{labels:?}"))
                    .or_default()
                    .push((bound, *value));
            }
        }
        let count = |suffix: &str| {
            let keys = self.samples.keys();
            keys.filter(|key| key.starts_with(&format!("{name}{suffix}")))
                .count()
        };
        assert_eq!(
            (count("_sum"), count("_count")),
            (series.len(), series.len())
        );
        for (labels, mut buckets) in series {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(
                buckets.is_sorted_by_key(|(_, count)| *count),
                "{name} {labels}"
            );
            assert_eq!(
                buckets.last().map(|b| b.0),
                Some(f64::INFINITY),
                "{name} {labels}"
            );
        }
        let last: f64 = self
            .samples
            .iter()
            .filter(|(sample, _)| sample.contains("le=\"+Inf\""))
            .map(|(_, value)| value)
            .sum();
        let counts: f64 = self
            .samples
            .iter()
            .filter(|(sample, _)| sample.starts_with(&format!("{name}_count")))
            .map(|(_, value)| value)
            .sum();
        assert_eq!(last, counts, "{name}");
    }
}

/// `{key="value",...}` or nothing.
fn labels(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if text.is_empty() {
        return found;
    }
    let inner = text
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'));
    let mut rest = inner.unwrap_or_else(|| panic!("labels: {text}"));
    let mut seen = BTreeSet::new();
    while !rest.is_empty() {
        let (key, after) = rest.split_once("=\"").expect(text);
        assert!(is_name(key) && !key.contains(':'), "{text}");
        assert!(seen.insert(key.to_owned()), "{key} twice: {text}");
        let mut value = String::new();
        let mut letters = after.char_indices();
        let end = loop {
            match letters.next().expect(text) {
                (at, '"') => break at,
                (_, '\\') => match letters.next().expect(text).1 {
                    'n' => value.push('\n'),
                    letter @ ('\\' | '"') => value.push(letter),
                    other => panic!("\\{other}: {text}"),
                },
                (_, letter) => value.push(letter),
            }
        };
        found.push((key.to_owned(), value));
        rest = &after[end + 1..];
        rest = match rest.strip_prefix(',') {
            Some(more) => more,
            None => {
                assert!(rest.is_empty(), "{text}");
                rest
            }
        };
    }
    found
}

fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    !text.is_empty() && text.chars().all(allowed) && !text.starts_with(|c: char| c.is_ascii_digit())
}
