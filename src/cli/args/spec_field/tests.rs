use crate::{
    cli::args::spec_field::Assignment,
    proto::v1::{FeatureCache, InitKind, Promote, TrainingSpec},
};

fn set(spec: &mut TrainingSpec, text: &str) {
    Assignment::parse(text).unwrap().apply(spec);
}

fn error(text: &str) -> String {
    Assignment::parse(text).unwrap_err()
}

#[test]
fn values_of_every_type_reach_their_fields_and_leave_the_others_alone() {
    let mut spec = TrainingSpec {
        batch_size: Some(8),
        trainable: vec!["fc".to_owned()],
        ..Default::default()
    };
    for text in [
        "max_epochs=3",
        "optimizer.learning_rate=3e-4",
        "optimizer.beta1=0.5",
        "dataset.path=/faces",
        "init.kind=random",
        "promote=PROMOTE_IF_BETTER",
        "feature_cache=off",
        "trainable=layer4,fc",
        "max_duration=1m 30s",
        "seed=18446744073709551615",
    ] {
        set(&mut spec, text);
    }
    let optimizer = spec.optimizer.clone().unwrap();
    assert_eq!(
        (optimizer.learning_rate, optimizer.beta1, optimizer.beta2),
        (Some(3e-4), Some(0.5), None)
    );
    assert_eq!((spec.batch_size, spec.max_epochs), (Some(8), Some(3)));
    assert_eq!(spec.dataset.clone().unwrap().path, "/faces");
    assert_eq!(spec.init.clone().unwrap().kind(), InitKind::Random);
    assert_eq!(spec.promote(), Promote::IfBetter);
    assert_eq!(spec.feature_cache(), FeatureCache::Off);
    assert_eq!(spec.trainable, ["layer4", "fc"]);
    assert_eq!(spec.seed, Some(u64::MAX));
    let duration = spec.max_duration.unwrap();
    assert_eq!((duration.seconds, duration.nanos), (90, 0));
    set(&mut spec, r#"trainable=["ALL"]"#);
    assert_eq!(spec.trainable, ["ALL"]);
    set(&mut spec, r#"optimizer={"weight_decay": 0.5}"#);
    let optimizer = spec.optimizer.unwrap();
    assert_eq!(
        (optimizer.learning_rate, optimizer.weight_decay),
        (None, Some(0.5))
    );
}

#[test]
fn a_wrong_name_proposes_near_ones() {
    assert_eq!(
        error("learning_rate=1"),
        "no field `learning_rate`; did you mean `optimizer.learning_rate`? `visage train --fields` lists all"
    );
    assert!(error("batchsize=1").contains("did you mean `batch_size`"));
    assert!(error("optimizer.beta=1").contains("`optimizer.beta1` or `optimizer.beta2`"));
    for short in ["lr=1", "optimizer.lr=1"] {
        assert!(error(short).contains("did you mean `optimizer.learning_rate`?"));
    }
    assert_eq!(
        error("zzzz=1"),
        "no field `zzzz`; `visage train --fields` lists all"
    );
    // A number has no fields.
    assert!(error("seed.x=1").contains("no field `seed.x`"));
    assert!(error("max_duration.seconds=1").contains("no field `max_duration.seconds`"));
}

#[test]
fn a_wrong_value_says_what_the_field_takes() {
    assert_eq!(
        error("batch_size=many"),
        "`batch_size` must be an integer of 0 or more, got `many`"
    );
    assert!(
        error("batch_size=-1")
            .starts_with("`batch_size` must be an integer of 0 or more, got `-1` (")
    );
    assert!(error("batch_size=1.5").starts_with("`batch_size` must be an integer"));
    assert_eq!(
        error("promote=maybe"),
        "`promote` must be one of ALWAYS, IF_BETTER, NEVER, got `maybe`"
    );
    assert_eq!(
        error("max_duration=soon"),
        "`max_duration` must be a duration such as 90s or 2h, got `soon`"
    );
    assert!(error("early_stopping=3").contains("set one of its fields (patience, min_delta)"));
    assert_eq!(
        error("batch_size"),
        "expected FIELD=VALUE, such as `batch_size=16`"
    );
}
