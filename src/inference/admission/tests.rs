use std::time::{Duration, Instant};

use super::{AdmissionController, permit::PermitSet};
use crate::inference::{
    Client, Error,
    Priority::{Batch, Interactive},
};

fn one() -> Client {
    Client::new("one")
}

/// Admits interactive images of one client without a deadline.
fn admit(controller: &AdmissionController, images: usize) -> Result<PermitSet, Error> {
    controller.admit(&one(), images, Interactive, None)
}

#[test]
fn permits_are_refused_when_all_are_taken_and_free_again_when_dropped() {
    let controller = AdmissionController::new(3);
    let mut two = admit(&controller, 2).unwrap();
    let refused = admit(&controller, 2).unwrap_err();
    let expected = "QueueFull { waiting: 2, wanted: 2, limit: 3 }";
    assert_eq!(format!("{refused:?}"), expected);
    let first = two.split().unwrap();
    drop(two);
    drop(admit(&controller, 2).unwrap());
    drop(first);
    assert!(admit(&controller, 3).is_ok());
}

#[test]
fn batch_images_leave_a_quarter_of_the_permits() {
    let controller = AdmissionController::new(8);
    let mut six = controller.admit(&one(), 6, Batch, None).unwrap();
    let refused = controller.admit(&one(), 1, Batch, None).unwrap_err();
    let expected = "QueueFull { waiting: 6, wanted: 1, limit: 6 }";
    assert_eq!(format!("{refused:?}"), expected);
    let _two = admit(&controller, 2).unwrap();
    assert!(admit(&controller, 1).is_err());
    // Each image releases its own permit.
    drop(six.split().unwrap());
    assert!(controller.admit(&one(), 1, Batch, None).is_ok());
    assert!(controller.admit(&one(), 2, Batch, None).is_err());
}

#[test]
fn a_request_has_one_permit_for_each_image() {
    let mut permits = admit(&AdmissionController::new(5), 2).unwrap();
    assert!(permits.split().is_some());
    assert!(permits.split().is_some());
    assert!(permits.split().is_none());
}

#[test]
fn additional_permits_are_those_that_are_free() {
    let controller = AdmissionController::new(5);
    let own = admit(&controller, 2).unwrap();
    assert_eq!(controller.try_acquire_up_to(2, Interactive).len(), 2);
    let more = controller.try_acquire_up_to(10, Interactive);
    assert_eq!(more.len(), 3);
    assert!(controller.try_acquire_up_to(1, Interactive).is_empty());
    drop(more);
    drop(own);
    assert!(admit(&controller, 5).is_ok());
}

#[test]
fn additional_permits_for_batch_images_leave_a_quarter_too() {
    let controller = AdmissionController::new(8);
    let _own = controller.admit(&one(), 2, Batch, None).unwrap();
    let more = controller.try_acquire_up_to(10, Batch);
    assert_eq!(more.len(), 4);
    assert!(admit(&controller, 2).is_ok());
    drop(more);
    assert_eq!(controller.try_acquire_up_to(1, Batch).len(), 1);
}

#[tokio::test]
async fn background_work_waits_and_takes_a_sixteenth_of_the_permits() {
    let controller = AdmissionController::new(32);
    let first = controller.acquire_background().await.unwrap();
    let _second = controller.acquire_background().await.unwrap();
    // Others are admitted meanwhile, also when they take all permits that are left.
    let all_others = admit(&controller, 30).unwrap();
    let third = controller.acquire_background();
    tokio::pin!(third);
    let soon = Duration::from_millis(20);
    assert!(tokio::time::timeout(soon, &mut third).await.is_err());
    drop(first);
    let third = third.await.unwrap();
    drop(all_others);
    assert!(admit(&controller, 30).is_ok());
    drop(third);
    assert!(admit(&controller, 31).is_ok());
}

#[test]
fn client_that_sends_much_leaves_room_for_another() {
    let controller = AdmissionController::new(8);
    let mut all = admit(&controller, 7).unwrap();
    let other = Client::new("other");
    let _little = controller.admit(&other, 1, Interactive, None).unwrap();
    drop((0..4).map(|_| all.split().unwrap()).collect::<Vec<_>>());
    // Four permits are free, and three of its own share of four are taken.
    let fourth = admit(&controller, 1).unwrap();
    let refused = admit(&controller, 1).unwrap_err();
    let expected = "ShareFull { waiting: 4, wanted: 1, share: 4, clients: 2 }";
    assert_eq!(format!("{refused:?}"), expected);
    assert!(controller.admit(&other, 3, Interactive, None).is_ok());
    drop(fourth);
    assert!(admit(&controller, 1).is_ok());
}

#[test]
fn refused_request_does_not_count_against_the_share() {
    let controller = AdmissionController::new(4);
    let _other = controller.admit(&Client::new("other"), 3, Interactive, None);
    for _ in 0..3 {
        let refused = admit(&controller, 2).unwrap_err();
        assert!(matches!(refused, Error::QueueFull { .. }), "{refused:?}");
    }
    assert!(admit(&controller, 1).is_ok());
}

#[tokio::test]
async fn queued_work_waits_for_the_permits_of_batch_priority() {
    let controller = AdmissionController::new(4);
    let mut permits = Vec::new();
    for _ in 0..3 {
        permits.push(controller.acquire_batch().await.unwrap());
    }
    let fourth = controller.acquire_batch();
    tokio::pin!(fourth);
    assert!(futures_util::poll!(&mut fourth).is_pending());
    assert!(admit(&controller, 1).is_ok());
    permits.pop();
    assert!(futures_util::poll!(&mut fourth).is_ready());
}

fn in_ms(milliseconds: u64) -> Option<Instant> {
    Some(Instant::now() + Duration::from_millis(milliseconds))
}

/// A controller that has observed eight images in 80 ms.
fn controller_with_observations() -> AdmissionController {
    let controller = AdmissionController::new(100);
    let mut eight = admit(&controller, 8).unwrap();
    let permits = Vec::from_iter(std::iter::from_fn(|| eight.split()));
    for (ahead, permit) in permits.iter().enumerate() {
        let each = Duration::from_millis(10);
        permit.record_wait(each * u32::try_from(ahead + 1).unwrap());
    }
    controller
}

#[test]
fn request_that_cannot_meet_its_deadline_is_refused_at_once() {
    let controller = controller_with_observations();
    let _ahead = admit(&controller, 9).unwrap();
    // Ten take 100 ms, and the margin is half of that.
    let refused = controller.admit(&one(), 1, Interactive, in_ms(140));
    let refused = refused.unwrap_err();
    let Error::WaitTooLong {
        ahead,
        expected,
        left,
    } = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!(ahead, 9);
    assert!((expected.as_secs_f64() - 0.1).abs() < 1e-6, "{expected:?}");
    assert!(left <= Duration::from_millis(140), "{left:?}");
    // It holds nothing: all other permits are free.
    drop(admit(&controller, 91).unwrap());
    let in_time = controller.admit(&one(), 1, Interactive, in_ms(10_000));
    assert!(in_time.is_ok());
}

#[test]
fn deadline_that_an_empty_queue_would_miss_is_reported_as_such() {
    let controller = controller_with_observations();
    let _ahead = admit(&controller, 1).unwrap();
    // Five take 50 ms, and six with the one ahead of them 60.
    let hopeless = controller.admit(&one(), 5, Interactive, in_ms(45));
    assert!(
        matches!(hopeless, Err(Error::DeadlineExceeded)),
        "{hopeless:?}"
    );
    let late = controller.admit(&one(), 5, Interactive, in_ms(70));
    assert!(
        matches!(late, Err(Error::WaitTooLong { ahead: 1, .. })),
        "{late:?}"
    );
}

#[test]
fn image_that_is_alone_is_never_refused_for_its_deadline() {
    let controller = controller_with_observations();
    let late = controller.admit(&one(), 1, Interactive, in_ms(0));
    assert!(late.is_ok(), "{late:?}");
}

#[test]
fn image_of_another_client_has_its_turn_before_its_deadline() {
    let controller = controller_with_observations();
    let _much = admit(&controller, 30).unwrap();
    let other = Client::new("other");
    // One ahead of it and itself: 20 ms.
    let little = controller.admit(&other, 1, Interactive, in_ms(200));
    assert!(little.is_ok(), "{little:?}");
    let refused = controller.admit(&one(), 1, Interactive, in_ms(200));
    assert!(
        matches!(refused, Err(Error::WaitTooLong { ahead: 31, .. })),
        "{refused:?}"
    );
}

#[test]
fn batch_images_come_after_all_others() {
    let controller = controller_with_observations();
    let _ahead = controller.admit(&one(), 20, Batch, None).unwrap();
    let batch = controller.admit(&one(), 1, Batch, in_ms(200));
    assert!(
        matches!(batch, Err(Error::WaitTooLong { ahead: 20, .. })),
        "{batch:?}"
    );
    let interactive = controller.admit(&one(), 1, Interactive, in_ms(200));
    assert!(interactive.is_ok(), "{interactive:?}");
}
