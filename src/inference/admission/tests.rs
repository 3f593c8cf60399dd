use super::*;

fn one() -> Client {
    Client::new("one")
}

#[test]
fn places_are_refused_when_all_are_taken_and_free_again_when_dropped() {
    let admission = AdmissionController::new(3);
    let mut two = admission
        .admit(&one(), 2, Priority::Interactive, None)
        .unwrap();
    let refused = admission
        .admit(&one(), 2, Priority::Interactive, None)
        .unwrap_err();
    assert!(
        matches!(
            refused,
            Error::QueueFull {
                waiting: 2,
                wanted: 2,
                limit: 3
            }
        ),
        "{refused:?}"
    );
    let first = two.split().unwrap();
    drop(two);
    drop(
        admission
            .admit(&one(), 2, Priority::Interactive, None)
            .unwrap(),
    );
    drop(first);
    assert!(
        admission
            .admit(&one(), 3, Priority::Interactive, None)
            .is_ok()
    );
}

#[test]
fn what_nobody_waits_for_leaves_a_quarter_of_the_places() {
    let admission = AdmissionController::new(8);
    let mut six = admission.admit(&one(), 6, Priority::Batch, None).unwrap();
    let refused = admission
        .admit(&one(), 1, Priority::Batch, None)
        .unwrap_err();
    assert!(
        matches!(
            refused,
            Error::QueueFull {
                waiting: 6,
                wanted: 1,
                limit: 6
            }
        ),
        "{refused:?}"
    );
    let _two = admission
        .admit(&one(), 2, Priority::Interactive, None)
        .unwrap();
    assert!(
        admission
            .admit(&one(), 1, Priority::Interactive, None)
            .is_err()
    );
    // Each image gives back its own permit.
    drop(six.split().unwrap());
    assert!(admission.admit(&one(), 1, Priority::Batch, None).is_ok());
    assert!(admission.admit(&one(), 2, Priority::Batch, None).is_err());
}

#[test]
fn a_request_has_as_many_places_as_it_was_given() {
    let mut admission = AdmissionController::new(5)
        .admit(&one(), 2, Priority::Interactive, None)
        .unwrap();
    assert!(admission.split().is_some());
    assert!(admission.split().is_some());
    assert!(admission.split().is_none());
}

#[test]
fn more_places_are_those_that_are_free() {
    let admission = AdmissionController::new(5);
    let own = admission
        .admit(&one(), 2, Priority::Interactive, None)
        .unwrap();
    assert_eq!(admission.admit_more(2, Priority::Interactive).len(), 2);
    let more = admission.admit_more(10, Priority::Interactive);
    assert_eq!(more.len(), 3);
    assert!(admission.admit_more(1, Priority::Interactive).is_empty());
    drop(more);
    drop(own);
    assert!(
        admission
            .admit(&one(), 5, Priority::Interactive, None)
            .is_ok()
    );
}

#[test]
fn more_places_for_what_nobody_waits_for_leave_a_quarter_too() {
    let admission = AdmissionController::new(8);
    let _own = admission.admit(&one(), 2, Priority::Batch, None).unwrap();
    let more = admission.admit_more(10, Priority::Batch);
    assert_eq!(more.len(), 4);
    assert!(
        admission
            .admit(&one(), 2, Priority::Interactive, None)
            .is_ok()
    );
    drop(more);
    assert_eq!(admission.admit_more(1, Priority::Batch).len(), 1);
}

#[tokio::test]
async fn background_work_waits_and_takes_a_sixteenth_of_the_places() {
    let admission = AdmissionController::new(32);
    let first = admission.acquire_background().await.unwrap();
    let _second = admission.acquire_background().await.unwrap();
    // Others go on, also when they take all permits that are left.
    let all_others = admission
        .admit(&one(), 30, Priority::Interactive, None)
        .unwrap();
    let third = admission.acquire_background();
    tokio::pin!(third);
    let soon = std::time::Duration::from_millis(20);
    assert!(tokio::time::timeout(soon, &mut third).await.is_err());
    drop(first);
    let third = third.await.unwrap();
    drop(all_others);
    assert!(
        admission
            .admit(&one(), 30, Priority::Interactive, None)
            .is_ok()
    );
    drop(third);
    assert!(
        admission
            .admit(&one(), 31, Priority::Interactive, None)
            .is_ok()
    );
}

#[test]
fn client_that_asks_much_leaves_room_for_another() {
    let admission = AdmissionController::new(8);
    let mut all = admission
        .admit(&one(), 7, Priority::Interactive, None)
        .unwrap();
    let other = Client::new("other");
    let _little = admission
        .admit(&other, 1, Priority::Interactive, None)
        .unwrap();
    drop((0..4).map(|_| all.split().unwrap()).collect::<Vec<_>>());
    // Four permits are free, and three of its own share of four are taken.
    let fourth = admission
        .admit(&one(), 1, Priority::Interactive, None)
        .unwrap();
    let refused = admission
        .admit(&one(), 1, Priority::Interactive, None)
        .unwrap_err();
    assert!(
        matches!(
            refused,
            Error::ShareFull {
                waiting: 4,
                wanted: 1,
                share: 4,
                clients: 2
            }
        ),
        "{refused:?}"
    );
    assert!(
        admission
            .admit(&other, 3, Priority::Interactive, None)
            .is_ok()
    );
    drop(fourth);
    assert!(
        admission
            .admit(&one(), 1, Priority::Interactive, None)
            .is_ok()
    );
}

#[test]
fn request_that_is_refused_takes_nothing_of_its_clients_share() {
    let admission = AdmissionController::new(4);
    let _other = admission.admit(&Client::new("other"), 3, Priority::Interactive, None);
    for _ in 0..3 {
        let refused = admission
            .admit(&one(), 2, Priority::Interactive, None)
            .unwrap_err();
        assert!(matches!(refused, Error::QueueFull { .. }), "{refused:?}");
    }
    assert!(
        admission
            .admit(&one(), 1, Priority::Interactive, None)
            .is_ok()
    );
}

#[tokio::test]
async fn patient_work_waits_for_its_part_of_the_places() {
    let admission = AdmissionController::new(4);
    let mut permits = Vec::new();
    for _ in 0..3 {
        permits.push(admission.acquire_batch().await.unwrap());
    }
    let fourth = admission.acquire_batch();
    tokio::pin!(fourth);
    assert!(futures_util::poll!(&mut fourth).is_pending());
    assert!(
        admission
            .admit(&one(), 1, Priority::Interactive, None)
            .is_ok()
    );
    permits.pop();
    assert!(futures_util::poll!(&mut fourth).is_ready());
}

fn in_ms(milliseconds: u64) -> Option<Instant> {
    Some(Instant::now() + Duration::from_millis(milliseconds))
}

/// A admission behind which eight images take 80 ms.
fn door_with_pace() -> AdmissionController {
    let admission = AdmissionController::new(100);
    let mut eight = admission
        .admit(&one(), 8, Priority::Interactive, None)
        .unwrap();
    let permits = Vec::from_iter(std::iter::from_fn(|| eight.split()));
    for (before, permit) in permits.iter().enumerate() {
        let each = Duration::from_millis(10);
        permit.was_computed(each * u32::try_from(before + 1).unwrap());
    }
    admission
}

#[test]
fn what_cannot_be_computed_before_its_deadline_is_refused_at_once() {
    let admission = door_with_pace();
    let _before = admission
        .admit(&one(), 9, Priority::Interactive, None)
        .unwrap();
    // Ten take 100 ms, and half more is asked for.
    let refused = admission.admit(&one(), 1, Priority::Interactive, in_ms(140));
    let refused = refused.unwrap_err();
    let Error::WaitTooLong {
        before,
        expected,
        left,
    } = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!(before, 9);
    assert!((expected.as_secs_f64() - 0.1).abs() < 1e-6, "{expected:?}");
    assert!(left <= Duration::from_millis(140), "{left:?}");
    // It took nothing: there is room for all that are left.
    drop(
        admission
            .admit(&one(), 91, Priority::Interactive, None)
            .unwrap(),
    );
    assert!(
        admission
            .admit(&one(), 1, Priority::Interactive, in_ms(10_000))
            .is_ok()
    );
}

#[test]
fn deadline_that_is_too_near_without_others_is_told_as_such() {
    let admission = door_with_pace();
    let _before = admission
        .admit(&one(), 1, Priority::Interactive, None)
        .unwrap();
    // Five take 50 ms, and six with the one before them 60.
    let hopeless = admission.admit(&one(), 5, Priority::Interactive, in_ms(45));
    assert!(
        matches!(hopeless, Err(Error::DeadlineExceeded)),
        "{hopeless:?}"
    );
    let late = admission.admit(&one(), 5, Priority::Interactive, in_ms(70));
    assert!(
        matches!(late, Err(Error::WaitTooLong { before: 1, .. })),
        "{late:?}"
    );
}

#[test]
fn image_that_is_alone_is_never_refused_for_its_deadline() {
    let admission = door_with_pace();
    let late = admission.admit(&one(), 1, Priority::Interactive, in_ms(0));
    assert!(late.is_ok(), "{late:?}");
}

#[test]
fn image_of_another_client_has_its_turn_before_its_deadline() {
    let admission = door_with_pace();
    let _much = admission
        .admit(&one(), 30, Priority::Interactive, None)
        .unwrap();
    let other = Client::new("other");
    // One before it and itself: 20 ms.
    let little = admission.admit(&other, 1, Priority::Interactive, in_ms(200));
    assert!(little.is_ok(), "{little:?}");
    let refused = admission.admit(&one(), 1, Priority::Interactive, in_ms(200));
    assert!(
        matches!(refused, Err(Error::WaitTooLong { before: 31, .. })),
        "{refused:?}"
    );
}

#[test]
fn what_nobody_waits_for_comes_behind_all_others() {
    let admission = door_with_pace();
    let _before = admission.admit(&one(), 20, Priority::Batch, None).unwrap();
    let batch = admission.admit(&one(), 1, Priority::Batch, in_ms(200));
    assert!(
        matches!(batch, Err(Error::WaitTooLong { before: 20, .. })),
        "{batch:?}"
    );
    let interactive = admission.admit(&one(), 1, Priority::Interactive, in_ms(200));
    assert!(interactive.is_ok(), "{interactive:?}");
}
