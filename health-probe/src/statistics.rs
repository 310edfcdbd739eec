//! Statistics for small shops, where a bare percentage cries wolf: exact tests, robust comparisons, trends.
//!
//! Every function says `None` where its arguments make no sense, rather than a number that means nothing.

use std::collections::VecDeque;

/// The probability of `at_least` or more successes among `n` trials of probability `p`: P(X ≥ k), X ~ B(n, p).
///
/// Exact: the sum of the binomial terms C(n,i) pⁱ (1−p)ⁿ⁻ⁱ, each from the one before, the first by logarithms of factorials.
///
/// ```
/// # use health_probe::statistics::binomial_at_least;
/// // Two or more heads of three: 4 of 8.
/// assert!((binomial_at_least(2, 3, 0.5).unwrap() - 0.5).abs() < 1e-12);
/// ```
pub fn binomial_at_least(at_least: u64, n: u64, p: f64) -> Option<f64> {
    if !(0.0..=1.0).contains(&p) || at_least > n {
        return None;
    }
    if at_least == 0 {
        return Some(1.0);
    }
    if p == 0.0 || p == 1.0 {
        return Some(p);
    }
    let term = |k: u64| (ln_choose(n, k) + k as f64 * p.ln() + (n - k) as f64 * (-p).ln_1p()).exp();
    let odds = p / (1.0 - p);
    if at_least as f64 > n as f64 * p {
        // The upper tail shrinks from here on.
        Some(sum(term(at_least), (at_least..n).map(|i| (n - i) as f64 / (i + 1) as f64 * odds)).min(1.0))
    } else {
        let below = at_least - 1;
        let tail = sum(term(below), (0..below).rev().map(|i| (i + 1) as f64 / (n - i) as f64 / odds));
        Some((1.0 - tail).clamp(0.0, 1.0))
    }
}

/// The probability of `at_most` or fewer events where `expected` are to be expected: P(X ≤ k), X ~ Poisson(λ).
///
/// Exact: the sum of e^−λ λⁱ / i!. Of no event at all it is e^−λ.
pub fn poisson_at_most(at_most: u64, expected: f64) -> Option<f64> {
    if !expected.is_finite() || expected < 0.0 {
        return None;
    }
    if expected == 0.0 {
        return Some(1.0);
    }
    if at_most as f64 >= expected {
        // Then the upper tail is the one that shrinks.
        let first = poisson_term(at_most + 1, expected);
        let above = sum(first, (at_most + 2..).map(|i| expected / i as f64));
        return Some((1.0 - above).clamp(0.0, 1.0));
    }
    Some(sum(poisson_term(at_most, expected), (1..=at_most).rev().map(|i| i as f64 / expected)).min(1.0))
}

/// The probability of `at_least` or more events where `expected` are to be expected: P(X ≥ k), X ~ Poisson(λ).
pub fn poisson_at_least(at_least: u64, expected: f64) -> Option<f64> {
    if at_least == 0 {
        return (expected.is_finite() && expected >= 0.0).then_some(1.0);
    }
    if !expected.is_finite() || expected < 0.0 {
        return None;
    }
    if expected == 0.0 {
        return Some(0.0);
    }
    if at_least as f64 > expected {
        let first = poisson_term(at_least, expected);
        return Some(sum(first, (at_least + 1..).map(|i| expected / i as f64)).min(1.0));
    }
    poisson_at_most(at_least - 1, expected).map(|p| 1.0 - p)
}

/// The middle value; of an even count, between the two middle ones. `None` of nothing, or where one is no number.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = sorted(values)?;
    let half = sorted.len() / 2;
    let upper = *sorted.get(half)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    sorted.truncate(half);
    sorted.last().map(|lower| (lower + upper) / 2.0)
}

/// The quantile by nearest rank: the smallest value that at least the share `q` of all is not above.
pub fn quantile(values: &[f64], q: f64) -> Option<f64> {
    if !(0.0..=1.0).contains(&q) {
        return None;
    }
    let sorted = sorted(values)?;
    let rank = (q * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied()
}

/// The slope of (x, y) by Theil and Sen: the median of the slopes between all pairs, which a few wild points do not move.
///
/// At most the last 400 points count, so that it stays at 80,000 pairs. `None` of fewer than two different x.
pub fn theil_sen(points: &[(f64, f64)]) -> Option<f64> {
    let points = &points[points.len().saturating_sub(400)..];
    if points.iter().any(|(x, y)| !x.is_finite() || !y.is_finite()) {
        return None;
    }
    let mut slopes = Vec::new();
    for (i, a) in points.iter().enumerate() {
        slopes.extend(points[i + 1..].iter().filter(|b| b.0 != a.0).map(|b| (b.1 - a.1) / (b.0 - a.0)));
    }
    median(&slopes)
}

/// Whether `after` tends to be larger than `before`: the one-sided p-value of the test of Mann and Whitney, by the normal
/// approximation with corrections for ties and continuity. `None` of fewer than five on either side: so few say nothing.
pub fn mann_whitney_larger(before: &[f64], after: &[f64]) -> Option<f64> {
    let (m, n) = (before.len() as f64, after.len() as f64);
    if m < 5.0 || n < 5.0 || before.iter().chain(after).any(|v| !v.is_finite()) {
        return None;
    }
    let mut all: Vec<(f64, bool)> =
        before.iter().map(|v| (*v, false)).chain(after.iter().map(|v| (*v, true))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut rank_sum, mut ties, mut at) = (0.0, 0.0, 0);
    while at < all.len() {
        let same = all[at..].iter().take_while(|v| v.0 == all[at].0).count();
        let rank = at as f64 + (same as f64 + 1.0) / 2.0;
        rank_sum += rank * all[at..at + same].iter().filter(|v| v.1).count() as f64;
        ties += (same as f64).powi(3) - same as f64;
        at += same;
    }
    let u = rank_sum - n * (n + 1.0) / 2.0;
    let total = m + n;
    let variance = m * n / 12.0 * ((total + 1.0) - ties / (total * (total - 1.0)));
    if variance <= 0.0 {
        // All are the same.
        return Some(1.0);
    }
    let z = (u - m * n / 2.0 - 0.5) / variance.sqrt();
    Some(0.5 * libm::erfc(z / std::f64::consts::SQRT_2))
}

/// By how much `after` lies above `before`: the median of all differences, after Hodges and Lehmann.
pub fn shift(before: &[f64], after: &[f64]) -> Option<f64> {
    let differences: Vec<f64> = after.iter().flat_map(|a| before.iter().map(move |b| a - b)).collect();
    median(&differences)
}

/// Whether something flaps: changes of state among the last 21 looks, newer ones weighing more (0.8 to 1.2), as a percentage.
///
/// It flaps from 50 % on, and until it is below 25 % again: the rule and the figures that Nagios Core documents for hosts and
/// services, with its wider thresholds.
#[derive(Debug, Clone, Default)]
pub struct Flapping {
    states: VecDeque<u8>,
    flaps: bool,
}

impl Flapping {
    /// How many looks count.
    pub const LOOKS: usize = 21;

    /// Takes a look; says whether it flaps now.
    pub fn step(&mut self, state: u8) -> bool {
        if self.states.len() == Self::LOOKS {
            self.states.pop_front();
        }
        self.states.push_back(state);
        let percent = self.percent();
        self.flaps = if self.flaps { percent >= 25.0 } else { percent >= 50.0 };
        self.flaps
    }

    /// Whether it flaps.
    pub fn flaps(&self) -> bool {
        self.flaps
    }

    /// The weighted share of changes, in percent of all that there could be.
    pub fn percent(&self) -> f64 {
        let slots = Self::LOOKS - 1;
        // Before there are so many looks, the missing ones count as no change.
        let first = Self::LOOKS - self.states.len();
        let pairs = self.states.iter().zip(self.states.iter().skip(1)).enumerate();
        let changed: f64 = pairs
            .filter(|(_, (a, b))| a != b)
            .map(|(at, _)| 0.8 + 0.4 * (first + at) as f64 / (slots - 1) as f64)
            .sum();
        changed / slots as f64 * 100.0
    }
}

/// The first term and those after it, each the one before times its factor, until they no longer count.
fn sum(first: f64, factors: impl Iterator<Item = f64>) -> f64 {
    let (mut term, mut total) = (first, first);
    for factor in factors {
        term *= factor;
        total += term;
        if term <= total * 1e-17 {
            break;
        }
    }
    total
}

fn poisson_term(k: u64, expected: f64) -> f64 {
    (k as f64 * expected.ln() - expected - libm::lgamma(k as f64 + 1.0)).exp()
}

fn ln_choose(n: u64, k: u64) -> f64 {
    libm::lgamma(n as f64 + 1.0) - libm::lgamma(k as f64 + 1.0) - libm::lgamma((n - k) as f64 + 1.0)
}

fn sorted(values: &[f64]) -> Option<Vec<f64>> {
    if values.is_empty() || values.iter().any(|v| v.is_nan()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some(sorted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(a: Option<f64>, b: f64) -> bool {
        a.is_some_and(|a| (a - b).abs() <= 1e-9 * b.abs().max(1e-3))
    }

    /// Reference values: by rational arithmetic, to twelve digits.
    #[test]
    fn the_tests_give_their_reference_values() {
        assert!(close(binomial_at_least(1, 20, 0.02), 1.0 - 0.98f64.powi(20)));
        // 1 − Σ_{i<4} C(20,i) 0.02^i 0.98^(20−i)
        assert!(close(binomial_at_least(4, 20, 0.02), 0.000_599_678_896_246_57));
        assert!(close(binomial_at_least(10, 10, 0.5), 1.0 / 1024.0));
        assert!(close(binomial_at_least(50, 100, 0.5), 0.539_794_618_693_589));
        assert!(close(poisson_at_most(0, 7.0), (-7.0f64).exp()));
        assert!(close(poisson_at_most(3, 7.0), 0.081_765_416_244_722));
        assert!(close(poisson_at_most(12, 7.0), 0.973_000_226_574_731));
        assert!(close(poisson_at_least(15, 7.0), 0.005_717_202_492_496));
        assert_eq!(binomial_at_least(3, 2, 0.5), None);
        assert_eq!(binomial_at_least(1, 2, f64::NAN), None);
        assert_eq!(poisson_at_most(1, f64::INFINITY), None);
        assert_eq!((median(&[]), median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0])), (None, Some(2.0), Some(2.5)));
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 0.75), Some(3.0));
        assert_eq!(theil_sen(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0), (3.0, 7.0), (4.0, 9.0), (5.0, 400.0)]), Some(2.0));
    }

    #[test]
    fn a_shift_is_seen_and_noise_is_not() {
        let before = [100.0, 104.0, 98.0, 101.0, 99.0, 102.0, 103.0, 97.0];
        let after: Vec<f64> = before.iter().map(|v| v + 30.0).collect();
        assert!(mann_whitney_larger(&before, &after).unwrap() < 0.001);
        assert!(mann_whitney_larger(&after, &before).unwrap() > 0.99);
        assert!(mann_whitney_larger(&before, &before).unwrap() > 0.4);
        assert_eq!(shift(&before, &after), Some(30.0));
        assert_eq!(mann_whitney_larger(&before, &after[..4]), None);
        assert_eq!(mann_whitney_larger(&[1.0; 6], &[1.0; 6]), Some(1.0));
    }

    #[test]
    fn flapping_begins_and_ends_where_a_count_by_hand_says() {
        let mut flapping = Flapping::default();
        for _ in 0..30 {
            assert!(!flapping.step(0));
        }
        // Each change weighs at most 1.2 of 20: by hand, the ninth in a row is the first above 50 %.
        let began = (1..=20).find(|i| flapping.step((i % 2) as u8)).unwrap();
        assert_eq!(began, 9, "{}", flapping.percent());
        let ended = (1..=40).find(|_| !flapping.step(1)).unwrap();
        assert!(flapping.percent() < 25.0 && (10..=20).contains(&ended), "{ended}");
    }

    proptest! {
        #[test]
        fn both_tails_add_up(n in 1u64..300, k in 1u64..300, p in 0.001f64..0.999) {
            let k = k.min(n);
            let upper = binomial_at_least(k, n, p).unwrap();
            // P(X ≥ k) of successes is P(Y ≤ n − k) of failures, thus 1 − P(Y ≥ n − k + 1).
            let mirrored = if n - k + 1 > n { 0.0 } else { binomial_at_least(n - k + 1, n, 1.0 - p).unwrap() };
            prop_assert!((upper + mirrored - 1.0).abs() < 1e-9, "{upper} {mirrored}");
        }

        #[test]
        fn a_probability_is_one(k in 0u64..1000, expected in 0.0f64..1000.0) {
            let p = poisson_at_most(k, expected).unwrap();
            prop_assert!((0.0..=1.0).contains(&p));
            let q = poisson_at_least(k + 1, expected).unwrap();
            prop_assert!((p + q - 1.0).abs() < 1e-9);
        }
    }
}
