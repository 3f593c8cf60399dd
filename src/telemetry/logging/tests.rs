use tracing::Level;

use super::{
    Format,
    filter::{Error, parse},
    init::{filter, init, set_filter},
};

#[test]
fn levels_and_lists_are_filters() {
    for filter in [
        "info",
        "WARN",
        "off",
        "warn,visage=debug",
        "info, h2=off",
        "visage[training]=trace",
    ] {
        assert!(parse(filter).is_ok(), "{filter}");
    }
}

#[test]
fn misspelt_level_is_named() {
    let error = parse("visage=debug,inof").unwrap_err();
    assert_eq!(
        error.to_string(),
        "levels of the log filter must be off, error, warn, info, debug or trace, got \"inof\""
    );
}

#[test]
fn misspelt_level_of_a_target_is_refused() {
    let error = parse("visage=loud").unwrap_err();
    assert!(matches!(error, Error::Filter { .. }), "{error}");
    let error = parse("info,visage=").unwrap_err();
    assert!(matches!(error, Error::Level { word } if word == "visage="));
}

#[test]
fn filter_without_a_level_or_with_too_many_is_refused() {
    assert!(matches!(parse(" , "), Err(Error::Empty)));
    let long = "visage=debug,".repeat(200);
    let error = parse(&long).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the log filter must have at most 2048 bytes, got 2600"
    );
}

#[test]
fn filter_changes_while_the_process_runs() {
    assert!(matches!(set_filter("info"), Err(Error::NotInitialized)));
    assert_eq!(filter(), None);
    init("warn", Format::Json).unwrap();
    assert!(!tracing::enabled!(Level::INFO));
    assert_eq!(set_filter(" info,visage::store=debug ").unwrap(), "warn");
    assert!(tracing::enabled!(Level::INFO));
    assert!(!tracing::enabled!(Level::DEBUG));
    assert!(tracing::enabled!(target: "visage::store", Level::DEBUG));
    assert!(set_filter("loud").is_err());
    assert_eq!(filter().as_deref(), Some("info,visage::store=debug"));
    assert_eq!(set_filter("off").unwrap(), "info,visage::store=debug");
    assert!(!tracing::enabled!(Level::ERROR));
}

#[test]
fn second_init_changes_nothing_and_succeeds() {
    assert!(init("off", Format::Human).is_ok());
    assert!(init("off", Format::Json).is_ok());
    assert!(
        init("nonsense", Format::Human).is_err(),
        "a bad filter is refused even then"
    );
}
