//! Figures read back from their page, for whoever shows them in another way.

use super::Metrics;

/// All figures as they stood at one moment.
#[derive(Debug)]
pub struct Figures(Vec<Series>);

/// One line of the page.
#[derive(Debug, PartialEq)]
struct Series {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Figures {
    /// Reads them.
    #[must_use]
    pub fn of(metrics: &Metrics) -> Self {
        Self::parse(&metrics.render())
    }

    fn parse(page: &str) -> Self {
        Self(page.lines().filter(|line| !line.starts_with('#')).filter_map(Series::parse).collect())
    }

    /// The sum of all series of this name whose labels have these values; nothing where there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.having(name, labels).map(|series| series.value).peekable();
        found.peek().is_some().then(|| found.sum())
    }

    /// The values of a label among the series of this name, each once, in their order.
    #[must_use]
    pub fn values(&self, name: &str, label: &str) -> Vec<&str> {
        let those = self.0.iter().filter(|series| series.name == name);
        let mut values: Vec<_> = those.filter_map(|series| series.label(label)).collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    /// Below which of its bounds this share of a histogram lies: infinity above the last, nothing where it is empty.
    #[must_use]
    pub fn quantile(&self, name: &str, labels: &[(&str, &str)], share: f64) -> Option<f64> {
        let bucket = format!("{name}_bucket");
        let mut bounds: Vec<(f64, f64)> = Vec::new();
        for series in self.having(&bucket, labels) {
            let bound = match series.label("le")? {
                "+Inf" => f64::INFINITY,
                bound => bound.parse().ok()?,
            };
            match bounds.iter_mut().find(|(known, _)| known.total_cmp(&bound).is_eq()) {
                Some((_, count)) => *count += series.value,
                None => bounds.push((bound, series.value)),
            }
        }
        bounds.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
        let all = bounds.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
        bounds.iter().find(|(_, count)| *count >= all * share).map(|(bound, _)| *bound)
    }

    fn having<'f>(&'f self, name: &'f str, labels: &'f [(&str, &str)]) -> impl Iterator<Item = &'f Series> {
        let has = move |series: &&Series| labels.iter().all(|(label, value)| series.label(label) == Some(*value));
        self.0.iter().filter(move |series| series.name == name).filter(has)
    }
}

impl Series {
    fn parse(line: &str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let value = value.parse().ok()?;
        let (name, rest) = series.split_once('{').unwrap_or((series, ""));
        let mut labels = Vec::new();
        let mut rest = rest.strip_suffix('}').unwrap_or(rest);
        while let Some((label, text)) = rest.split_once("=\"") {
            let (value, behind) = quoted(text)?;
            labels.push((label.to_owned(), value));
            rest = behind.strip_prefix(',').unwrap_or(behind);
        }
        Some(Self { name: name.to_owned(), labels, value })
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| &**value)
    }
}

/// A text up to its closing quote, and what stands behind.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP a A.\n# TYPE a counter\na_total{k=\"v\",l=\"x\"} 2\na_total{k=\"v\",l=\"y\"} 3\na_total{k=\"w \\\"}, \\\\\",l=\"x\"} 4\n\
        b 1.5\nh_bucket{le=\"0.1\"} 5\nh_bucket{le=\"1.0\"} 9\nh_bucket{le=\"+Inf\"} 10\ne_bucket{le=\"+Inf\"} 0\n# EOF\n";

    #[test]
    fn figures_are_summed_over_what_is_not_asked_for() {
        let figures = Figures::parse(PAGE);
        assert_eq!(figures.sum("a_total", &[]), Some(9.0));
        assert_eq!(figures.sum("a_total", &[("k", "v")]), Some(5.0));
        assert_eq!(figures.sum("a_total", &[("k", "v"), ("l", "y")]), Some(3.0));
        assert_eq!(
            (figures.sum("b", &[]), figures.sum("b", &[("k", "v")]), figures.sum("c", &[])),
            (Some(1.5), None, None)
        );
    }

    #[test]
    fn a_label_may_hold_any_text() {
        assert_eq!(Figures::parse(PAGE).values("a_total", "k"), ["v", "w \"}, \\"]);
    }

    #[test]
    fn a_share_of_a_histogram_lies_below_a_bound() {
        let figures = Figures::parse(PAGE);
        let below = |share| figures.quantile("h", &[], share);
        assert_eq!((below(0.5), below(0.51), below(0.95)), (Some(0.1), Some(1.0), Some(f64::INFINITY)));
        assert_eq!(figures.quantile("e", &[], 0.5), None, "nothing was seen");
    }
}
