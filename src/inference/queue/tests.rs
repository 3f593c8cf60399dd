use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    EntryResult, PriorityQueue, QueueEntry,
    priority_queue::{BATCH_PRIORITY_ROWS, MAX_WAIT},
};
use crate::inference::{
    Client, PredictOptions, Priority, ServedModel, admission::AdmissionController, job::Job,
    model_io::ModelInput, test_support,
};

const NOT_LONG: Duration = Duration::from_millis(1);

struct Fixture {
    admission: AdmissionController,
    queue: PriorityQueue,
    /// An entry whose receiver is gone is dropped.
    clients: Vec<EntryResult>,
}

impl Fixture {
    fn new() -> Self {
        Fixture {
            admission: AdmissionController::new(100),
            queue: PriorityQueue::default(),
            clients: Vec::new(),
        }
    }

    /// Adds an image of client `one`; its first value identifies it.
    fn push(&mut self, number: f32, version: &str, priority: Priority, waited: Duration) {
        self.push_of("one", number, version, priority, waited);
    }

    fn push_of(
        &mut self,
        client: &str,
        number: f32,
        version: &str,
        priority: Priority,
        waited: Duration,
    ) {
        let client = Client::new(client);
        let mut permits = self.admission.admit(&client, 1, priority, None).unwrap();
        let job = Job {
            index: 0,
            model: test_support::model(version),
            options: PredictOptions::default(),
            deadline: None,
            priority,
            client,
            trace: None,
        };
        let input = ModelInput::Values(vec![number]);
        let (mut entry, result) = QueueEntry::new(job, input, permits.split().unwrap());
        entry.enqueued = Instant::now().checked_sub(waited).unwrap();
        self.clients.push(result);
        self.queue.push(entry);
    }

    fn last_job(&mut self) -> &mut Job {
        let mut queues = self.queue.interactive.of_client.values_mut();
        &mut queues.next().unwrap().back_mut().unwrap().job
    }

    fn next(&mut self, max_rows: usize) -> Vec<f32> {
        let batch = self.queue.next_batch(max_rows);
        let number = |entry: &QueueEntry| match &entry.input {
            ModelInput::Values(values) => values[0],
            ModelInput::Image(image) => panic!("{image:?} was not pushed"),
        };
        batch.iter().map(number).collect()
    }
}

#[test]
fn interactive_images_come_first_and_batch_images_fill_the_batch() {
    let mut fixture = Fixture::new();
    for number in [1.0, 2.0, 3.0] {
        fixture.push(number, "a", Priority::Batch, NOT_LONG);
    }
    for number in [4.0, 5.0] {
        fixture.push(number, "a", Priority::Interactive, NOT_LONG);
    }
    assert_eq!(fixture.next(4), [4.0, 5.0, 1.0, 2.0]);
    assert_eq!(fixture.next(4), [3.0]);
    assert!(fixture.queue.is_empty());
}

#[test]
fn batch_without_interactive_images_is_short() {
    let mut fixture = Fixture::new();
    for number in 0..20_u8 {
        fixture.push(f32::from(number), "a", Priority::Batch, NOT_LONG);
    }
    assert_eq!(fixture.next(32).len(), BATCH_PRIORITY_ROWS);
    for number in 20..40_u8 {
        fixture.push(f32::from(number), "a", Priority::Interactive, NOT_LONG);
    }
    // There are 12 left beside the 20.
    assert_eq!(fixture.next(32).len(), 32);
    assert!(fixture.queue.is_empty());
}

#[test]
fn batch_image_that_has_waited_too_long_comes_before_all_others() {
    let mut fixture = Fixture::new();
    fixture.push(1.0, "a", Priority::Batch, MAX_WAIT * 2);
    for number in [2.0, 3.0] {
        fixture.push(number, "a", Priority::Interactive, NOT_LONG);
    }
    assert_eq!(fixture.next(2), [1.0, 2.0]);
    assert_eq!(fixture.next(2), [3.0]);
}

#[test]
fn batch_is_of_one_version() {
    let mut fixture = Fixture::new();
    for (number, version) in [(1.0, "a"), (2.0, "a"), (3.0, "b"), (4.0, "a")] {
        fixture.push(number, version, Priority::Interactive, NOT_LONG);
    }
    fixture.push(5.0, "b", Priority::Batch, NOT_LONG);
    assert_eq!(fixture.next(8), [1.0, 2.0]);
    assert_eq!(fixture.next(8), [3.0, 5.0]);
    assert_eq!(fixture.next(8), [4.0]);
}

#[test]
fn client_of_another_version_waits_for_one_batch_however_many_clients_there_are() {
    let mut fixture = Fixture::new();
    for number in 0..4_u8 {
        for client in ["one", "two", "three"] {
            let number = f32::from(number);
            fixture.push_of(client, number, "a", Priority::Interactive, NOT_LONG);
        }
    }
    fixture.push_of("other", 100.0, "b", Priority::Interactive, NOT_LONG);
    assert_eq!(fixture.next(4), [0.0, 0.0, 0.0, 1.0]);
    assert_eq!(fixture.next(4), [100.0]);
    assert_eq!(fixture.next(4), [1.0, 1.0, 2.0, 2.0]);
}

#[test]
fn nothing_is_computed_for_a_client_that_has_left() {
    let mut fixture = Fixture::new();
    fixture.push(1.0, "a", Priority::Interactive, NOT_LONG);
    fixture.push(2.0, "a", Priority::Interactive, NOT_LONG);
    drop(fixture.clients.remove(0));
    assert_eq!(fixture.next(8), [2.0]);
}

#[test]
fn every_client_has_its_turn() {
    let mut fixture = Fixture::new();
    for number in 0..10_u8 {
        let number = f32::from(number);
        fixture.push_of("much", number, "a", Priority::Interactive, NOT_LONG);
    }
    fixture.push_of("little", 20.0, "a", Priority::Interactive, NOT_LONG);
    fixture.push_of("other", 30.0, "a", Priority::Interactive, NOT_LONG);
    fixture.push_of("other", 31.0, "a", Priority::Interactive, NOT_LONG);
    assert_eq!(fixture.next(4), [0.0, 20.0, 30.0, 1.0]);
    assert_eq!(fixture.next(4), [31.0, 2.0, 3.0, 4.0]);
    assert_eq!(fixture.next(8), [5.0, 6.0, 7.0, 8.0, 9.0]);
    assert!(fixture.queue.is_empty());
}

#[test]
fn client_of_another_version_waits_for_the_next_batch_only() {
    let mut fixture = Fixture::new();
    for number in [1.0, 2.0, 3.0] {
        fixture.push_of("a", number, "a", Priority::Interactive, NOT_LONG);
    }
    fixture.push_of("b", 4.0, "b", Priority::Interactive, NOT_LONG);
    assert_eq!(fixture.next(2), [1.0, 2.0]);
    assert_eq!(fixture.next(2), [4.0]);
    assert_eq!(fixture.next(2), [3.0]);
}

#[test]
fn images_with_equal_weights_and_other_input_are_in_batches_of_their_own() {
    let mut fixture = Fixture::new();
    for number in [1.0, 2.0] {
        fixture.push(number, "a", Priority::Interactive, NOT_LONG);
    }
    let model = &mut fixture.last_job().model;
    let mut other = ServedModel::clone(model);
    other.input.mean = [0.5; 3];
    *model = Arc::new(other);
    assert_eq!(fixture.next(5), [1.0]);
    assert_eq!(fixture.next(5), [2.0]);
}

#[test]
fn image_with_its_mirror_image_takes_two_rows() {
    let mut fixture = Fixture::new();
    for number in [1.0, 2.0, 3.0] {
        fixture.push(number, "a", Priority::Interactive, NOT_LONG);
        fixture.last_job().options.average_flip = true;
    }
    assert_eq!(fixture.next(5), [1.0, 2.0]);
    // The first image of a batch fits even where there is room for half of it.
    assert_eq!(fixture.next(1), [3.0]);
}
