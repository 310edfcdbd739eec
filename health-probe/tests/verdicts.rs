//! Whatever was or was not seen: what is not known is never healthy.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use chrono::DateTime;
use health_probe::{
    Condition, Drought, FailureRate, Limits, Observation, Policy, Reading, Unit, Value, Verdict, judge,
};
use proptest::prelude::*;

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>(), -1000.0..1000.0f64, (0u32..50).prop_map(f64::from), Just(f64::NAN), Just(f64::INFINITY)]
}

fn condition() -> impl Strategy<Value = Condition> {
    let limits = (proptest::option::of(number()), proptest::option::of(number()))
        .prop_map(|(warning, critical)| Limits { warning, critical })
        .boxed();
    let verdict =
        prop_oneof![Just(Verdict::Healthy), Just(Verdict::Unknown), Just(Verdict::Warning), Just(Verdict::Critical)];
    prop_oneof![
        limits.clone().prop_map(Condition::Below),
        limits.prop_map(Condition::Above),
        (any::<bool>(), verdict.clone()).prop_map(|(is, v)| Condition::Is(is, v)),
        (prop::collection::vec("[a-c]?", 0..3), verdict).prop_map(|(words, v)| Condition::OneOf(words, v)),
        Just(Condition::FailureRate(FailureRate::of_payments("b", "c"))),
        Just(Condition::Drought(Drought { expected: "b".into(), warning: 0.01, critical: 0.001 })),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        number().prop_map(Value::Number),
        "[a-c]?".prop_map(Value::Text),
        any::<bool>().prop_map(Value::Flag),
        Just(Value::NotApplicable("no".into())),
    ]
}

fn unit() -> impl Strategy<Value = Unit> {
    prop_oneof![Just(Unit::Count), Just(Unit::Seconds), Just(Unit::None)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn only_what_is_there_and_of_the_right_kind_is_healthy(
        conditions in prop::collection::vec(("[ab]", unit(), condition()), 0..4),
        readings in prop::collection::vec(("[abc]", unit(), value()), 0..5),
    ) {
        let mut policy = Policy::new();
        for (reading, unit, condition) in &conditions {
            policy = policy.with(reading, unit.clone(), condition.clone());
        }
        let mut seen = Observation::new(DateTime::UNIX_EPOCH);
        seen.readings = readings.iter().map(|(name, unit, value)| Reading { name: name.clone(), value: value.clone(), unit: unit.clone() }).collect();
        let judgement = judge(&seen, &policy);
        if judgement.verdict.is_healthy() {
            // Then something was asked and seen, and for every rule that applies there is a good answer of the right type.
            let mut applied = 0;
            for rule in &policy.rules {
                let reading = seen.reading(&rule.reading);
                prop_assert!(reading.is_some(), "{rule:?} has no reading");
                let fits = match (&rule.condition, &reading.unwrap().value) {
                    (_, Value::NotApplicable(_)) => continue,
                    (Condition::Is(wanted, _), Value::Flag(is)) => is == wanted,
                    (Condition::OneOf(wanted, _), Value::Text(is)) => wanted.contains(is),
                    (Condition::Below(l), Value::Number(n)) => n.is_finite() && limits_hold(l, |x| *n < x),
                    (Condition::Above(l), Value::Number(n)) => n.is_finite() && limits_hold(l, |x| *n > x),
                    (Condition::FailureRate(_) | Condition::Drought(_), Value::Number(n)) => {
                        let other = seen.reading("b");
                        n.is_finite() && *n >= 0.0 && matches!(other.map(|r| &r.value), Some(Value::Number(b)) if b.is_finite() && *b >= 0.0)
                    }
                    _ => false,
                };
                prop_assert!(fits, "{rule:?} of {reading:?}");
                if matches!(rule.condition, Condition::Below(_) | Condition::Above(_) | Condition::FailureRate(_) | Condition::Drought(_)) {
                    prop_assert_eq!(&reading.unwrap().unit, &rule.unit);
                }
                applied += 1;
            }
            prop_assert!(applied > 0, "nothing was asked");
        }
        // And through JSON it is the same verdict.
        let again: Observation = serde_json::from_str(&serde_json::to_string(&seen).unwrap()).unwrap();
        prop_assert_eq!(judge(&again, &policy).verdict.is_healthy(), judgement.verdict.is_healthy());
    }

    /// Taking something away, or spoiling it, never makes a verdict healthy that was not.
    #[test]
    fn seeing_less_never_heals(
        conditions in prop::collection::vec(("[ab]", unit(), condition()), 1..4),
        readings in prop::collection::vec(("[abc]", unit(), value()), 1..5),
        which in any::<prop::sample::Index>(),
        spoiled in prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY)],
    ) {
        let mut policy = Policy::new();
        for (reading, unit, condition) in &conditions {
            policy = policy.with(reading, unit.clone(), condition.clone());
        }
        // One reading a name, as probes give them.
        let mut seen = Observation::new(DateTime::UNIX_EPOCH);
        for (name, unit, value) in &readings {
            if seen.reading(name).is_none() {
                seen.readings.push(Reading { name: name.clone(), value: value.clone(), unit: unit.clone() });
            }
        }
        let before = judge(&seen, &policy).verdict;
        let at = which.index(seen.readings.len());
        let (mut less, mut worse) = (seen.clone(), seen.clone());
        less.readings.remove(at);
        worse.readings[at].value = Value::Number(spoiled);
        for other in [less, worse] {
            let after = judge(&other, &policy).verdict;
            prop_assert!(!after.is_healthy() || before.is_healthy(), "{before:?} became healthy");
        }
    }
}

fn limits_hold(limits: &Limits, holds: impl Fn(f64) -> bool) -> bool {
    let there: Vec<f64> = [limits.warning, limits.critical].into_iter().flatten().filter(|l| !l.is_nan()).collect();
    !there.is_empty() && there.into_iter().all(holds)
}
