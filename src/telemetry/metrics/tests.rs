//! Rules that all declarations keep.

use std::collections::HashSet;

use super::{FAMILIES, Kind, RpcCode, TrainingState, family::Unit, markdown_table};

#[test]
fn names_are_unique_and_valid_for_prometheus() {
    let mut seen = HashSet::new();
    for family in FAMILIES {
        let name = family.name;
        assert!(seen.insert(name), "{name} is declared twice");
        assert!(
            name.bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')),
            "{name}"
        );
        assert!(
            name.starts_with("visage_") || name.starts_with("process_"),
            "{name}"
        );
    }
}

#[test]
fn counters_and_only_counters_end_in_total() {
    for family in FAMILIES {
        let is_counter = family.kind == Kind::Counter;
        assert_eq!(
            family.name.ends_with("_total"),
            is_counter,
            "{}",
            family.name
        );
    }
}

#[test]
fn names_carry_their_unit() {
    for family in FAMILIES {
        let stem = family.name.strip_suffix("_total").unwrap_or(family.name);
        assert!(
            stem.ends_with(family.unit.suffix()),
            "{} is in {:?}",
            family.name,
            family.unit
        );
        if family.unit == Unit::Count {
            let named = ["seconds", "bytes", "years"]
                .iter()
                .any(|unit| stem.ends_with(unit));
            assert!(
                !named,
                "{} names a unit that it does not declare",
                family.name
            );
        }
    }
}

#[test]
fn every_metric_has_one_sentence_of_help() {
    for family in FAMILIES {
        assert!(
            family.help.len() > 15 && family.help.ends_with('.'),
            "{}",
            family.name
        );
        assert!(!family.help.contains(['\n', '|', '\\']), "{}", family.name);
    }
}

#[test]
fn labels_are_valid_and_their_values_distinct() {
    for label in FAMILIES.iter().flat_map(|family| family.labels) {
        for word in label.values.iter().chain([&label.key]) {
            assert!(
                word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_')),
                "{word}"
            );
        }
        let distinct: HashSet<_> = label.values.iter().collect();
        assert_eq!(distinct.len(), label.values.len(), "{}", label.key);
    }
}

#[test]
fn buckets_ascend_and_are_finite() {
    for family in FAMILIES {
        let Kind::Histogram(buckets) = family.kind else {
            continue;
        };
        assert!(!buckets.is_empty(), "{}", family.name);
        assert!(
            buckets.iter().all(|bound| bound.is_finite()),
            "{}",
            family.name
        );
        assert!(
            buckets.is_sorted_by(|low, high| low < high),
            "{}",
            family.name
        );
    }
}

#[test]
fn enum_variants_and_label_values_agree() {
    let from_variants: Vec<_> = TrainingState::ALL
        .iter()
        .map(|state| state.as_str())
        .collect();
    assert_eq!(from_variants, TrainingState::VALUES);
    assert_eq!(RpcCode::ALL.len(), 17, "gRPC defines the codes 0 to 16");
}

#[test]
fn table_has_one_row_for_each_metric() {
    let table = markdown_table();
    assert_eq!(table.lines().count(), FAMILIES.len() + 2);
    assert!(table.lines().all(|row| row.matches('|').count() == 5));
    assert!(table.contains(
        "| `visage_training_loss_square_years` | gauge | `split`: train, validation | Mean squared error of the last"
    ));
    assert!(table.contains("| `visage_rpc_in_flight` | gauge | `method` | gRPC calls in"));
}

#[test]
fn every_code_has_its_own_label() {
    for (number, label) in RpcCode::ALL.iter().enumerate() {
        let code = tonic::Code::from_i32(i32::try_from(number).unwrap());
        assert_eq!(
            RpcCode::from(code),
            *label,
            "the order is that of the numbers"
        );
    }
}
