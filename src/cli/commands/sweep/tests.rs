//! Sweeps that are refused before any request.

use clap::Parser as _;

use crate::cli::{
    commands::sweep::request::plan_runs,
    program::{Cli, Command},
};

const GRID: &str = "optimizer.learning_rate=1e-4,3e-4";

fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from([&["visage", "sweep", "--dataset", "/faces"], arguments].concat())
}

fn plan_error(arguments: &[&str]) -> String {
    let Command::Sweep(args) = parse(arguments).unwrap().command else {
        unreachable!("`sweep` was parsed");
    };
    let error = plan_runs(args, "s").unwrap_err();
    assert_eq!(error.exit_code(), 2);
    error.to_string()
}

#[test]
fn unknown_fields_and_wrong_values_are_usage_errors() {
    let refused = |grid: &str| {
        let error = parse(&["--grid", grid]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    let error = refused("lerning_rate=1");
    assert!(
        error.contains("did you mean `optimizer.learning_rate`?"),
        "{error}"
    );
    let error = refused("batch_size=16,many");
    assert!(
        error.contains("must be an integer of 0 or more, got `many`"),
        "{error}"
    );
}

#[test]
fn plans_without_variation_with_a_field_set_twice_or_with_too_many_runs_are_refused() {
    assert!(plan_error(&[]).starts_with("no field varies"));
    let twice = ["--grid", GRID, "--set", "optimizer.learning_rate=1"];
    assert!(plan_error(&twice).contains("is set twice"));
    let many = ["--grid", GRID, "--grid", "seed=1,2,3", "--random", "1001"];
    assert!(plan_error(&many).contains("at most 1000 runs"));
}
