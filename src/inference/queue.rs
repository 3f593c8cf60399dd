//! The images that wait for the engine, and which of them go first.
//!
//! What somebody waits for goes before what nobody waits for, and within each of both every client has its turn, one image at a time: a client with a hundred
//! images in the queue makes another one's single image wait for one batch, not for a hundred images.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::telemetry::{
    metrics::{self, RejectionReason},
    traces::Trace,
};

use super::{
    Error, Priority, ServedModel, admission::Permit, client::Client, engine::Output, input::Input,
};

/// Rows of a batch that has none that somebody waits for: those that come meanwhile wait no longer than for this many, which take a third of the time of
/// the largest batch and nine tenths of its speed.
const BATCH_PRIORITY_ROWS: usize = 8;
/// An image that nobody waits for goes before all others once it has waited this long.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// One preprocessed image on its way to the engine.
#[derive(Debug)]
pub struct QueueEntry {
    /// What the network's input is made of.
    pub input: Input,
    /// Whether the mean over the image and its mirror image is wanted.
    pub average_flip: bool,
    /// Which weights to use.
    pub model: Arc<ServedModel>,
    /// Whether it is also wanted what each permit of the image adds to the age.
    pub explain: bool,
    /// When the answer is worth nothing any more.
    pub deadline: Option<Instant>,
    /// Where the answer goes; a closed one means that the client has left.
    pub reply: oneshot::Sender<Result<(Output, Permit), Error>>,
    /// Whether somebody waits for it.
    pub priority: Priority,
    /// Who asks.
    pub client: Client,
    /// When it was put into the queue.
    pub enqueued: Instant,
    /// The span of its call, where that is followed.
    pub trace: Option<Trace>,
    /// Its permit among the images that may be in the server; comes back with the answer.
    pub permit: Permit,
}

impl QueueEntry {
    /// What it takes of a batch.
    pub(super) fn rows(&self) -> usize {
        1 + usize::from(self.average_flip)
    }
}

/// Images that wait.
#[derive(Default)]
pub(super) struct PriorityQueue {
    interactive: RoundRobin,
    batch: RoundRobin,
}

impl PriorityQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.interactive.turns.is_empty() && self.batch.turns.is_empty()
    }

    pub(super) fn push(&mut self, item: QueueEntry) {
        match item.priority {
            Priority::Interactive => self.interactive.push(item),
            Priority::Batch => self.batch.push(item),
        }
    }

    /// The next batch, all of one version and of no more rows than `most`: those that somebody waits for, then the others where there is room. It is empty
    /// only when nobody wants any more what waits.
    pub(super) fn next(&mut self, most: usize) -> Vec<QueueEntry> {
        let mut batch = Batch::default();
        if self.batch.longest_wait() > LONGEST_WAIT {
            self.batch.take(&mut batch, BATCH_PRIORITY_ROWS.min(most));
        }
        self.interactive.take(&mut batch, most);
        let room = if batch.items.is_empty() {
            BATCH_PRIORITY_ROWS.min(most)
        } else {
            most
        };
        self.batch.take(&mut batch, room);
        batch.items
    }
}

/// A batch that is being filled.
#[derive(Default)]
struct Batch {
    items: Vec<QueueEntry>,
    rows: usize,
}

impl Batch {
    /// Whether an image has room and is for the batch's weights with the same input; one alone always has.
    fn fits(&self, item: &QueueEntry, most: usize) -> bool {
        self.items.first().is_none_or(|first| {
            first.model.sha256 == item.model.sha256
                && first.model.input == item.model.input
                && self.rows + item.rows() <= most
        })
    }
}

/// A line of images for each client.
#[derive(Default)]
struct RoundRobin {
    /// Never an empty one.
    of_client: HashMap<Client, VecDeque<QueueEntry>>,
    /// Whose turn it is first.
    turns: VecDeque<Client>,
}

impl RoundRobin {
    fn push(&mut self, item: QueueEntry) {
        match self.of_client.get_mut(&item.client) {
            Some(line) => line.push_back(item),
            None => {
                self.turns.push_back(item.client.clone());
                self.of_client
                    .insert(item.client.clone(), VecDeque::from([item]));
            }
        }
    }

    fn longest_wait(&self) -> Duration {
        let firsts = self.of_client.values().filter_map(VecDeque::front);
        let waits = firsts.map(|item| item.enqueued.elapsed());
        waits.max().unwrap_or_default()
    }

    /// Moves one image of each client in turn until the batch has `most` rows; those that nobody wants any more are dropped. A client whose image does not
    /// fit keeps its turn for the next batch.
    fn take(&mut self, batch: &mut Batch, most: usize) {
        let mut passed = Vec::new();
        while batch.rows < most
            && let Some(client) = self.turns.pop_front()
        {
            let Some(line) = self.of_client.get_mut(&client) else {
                continue;
            };
            let Some(item) = line.pop_front_if(|item| batch.fits(item, most)) else {
                passed.push(client);
                continue;
            };
            if let Some(item) = still_wanted(item) {
                batch.rows += item.rows();
                batch.items.push(item);
            }
            if line.is_empty() {
                self.of_client.remove(&client);
            } else {
                self.turns.push_back(client);
            }
        }
        for client in passed.into_iter().rev() {
            self.turns.push_front(client);
        }
    }
}

/// Drops an image whose client has left or whose deadline has passed, and counts it.
fn still_wanted(item: QueueEntry) -> Option<QueueEntry> {
    match unwanted(item.deadline, item.reply.is_closed()) {
        None => Some(item),
        Some(reason) => {
            metrics::prediction_rejected(reason);
            if reason == RejectionReason::DeadlineExceeded {
                drop(item.reply.send(Err(Error::DeadlineExceeded)));
            }
            None
        }
    }
}

/// Why nobody wants an image any more, if so. A deadline that has passed goes first: the call ends by it, so that its client seems to have left too.
pub(super) fn unwanted(deadline: Option<Instant>, is_closed: bool) -> Option<RejectionReason> {
    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return Some(RejectionReason::DeadlineExceeded);
    }
    is_closed.then_some(RejectionReason::ClientGone)
}

#[cfg(test)]
mod tests {
    use crate::{imaging::InputSpec, model::checkpoint::LabelScale};

    use super::*;
    use crate::inference::admission::AdmissionController;

    struct Queue {
        admission: AdmissionController,
        waiting: PriorityQueue,
        /// An image whose client has left is dropped.
        clients: Vec<oneshot::Receiver<Result<(Output, Permit), Error>>>,
    }

    impl Queue {
        fn new() -> Self {
            Queue {
                admission: AdmissionController::new(100),
                waiting: PriorityQueue::default(),
                clients: Vec::new(),
            }
        }

        /// An image of a version; its first number tells it from the others.
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
            let (reply, answer) = oneshot::channel();
            self.clients.push(answer);
            let model = ServedModel {
                name: version.to_owned(),
                weights: "model.safetensors".into(),
                sha256: version.to_owned(),
                input: InputSpec::default(),
                label: LabelScale {
                    scale: 1.0,
                    offset: 0.0,
                },
                calibration: None,
                mean_training_age: None,
            };
            self.waiting.push(QueueEntry {
                input: Input::Numbers(vec![number]),
                average_flip: false,
                model: Arc::new(model),
                explain: false,
                deadline: None,
                reply,
                priority,
                client: client.clone(),
                enqueued: Instant::now().checked_sub(waited).unwrap(),
                trace: None,
                permit: self
                    .admission
                    .admit(&client, 1, priority, None)
                    .unwrap()
                    .split()
                    .unwrap(),
            });
        }

        fn next(&mut self, most: usize) -> Vec<f32> {
            let batch = self.waiting.next(most);
            let number = |item: &QueueEntry| match &item.input {
                Input::Numbers(numbers) => numbers[0],
                Input::Image(image) => panic!("{image:?} was not sent"),
            };
            batch.iter().map(number).collect()
        }
    }

    const NOT_LONG: Duration = Duration::from_millis(1);

    #[test]
    fn interactive_images_go_first_and_the_others_fill_the_batch() {
        let mut queue = Queue::new();
        for number in [1.0, 2.0, 3.0] {
            queue.push(number, "a", Priority::Batch, NOT_LONG);
        }
        for number in [4.0, 5.0] {
            queue.push(number, "a", Priority::Interactive, NOT_LONG);
        }
        assert_eq!(queue.next(4), [4.0, 5.0, 1.0, 2.0]);
        assert_eq!(queue.next(4), [3.0]);
        assert!(queue.waiting.is_empty());
    }

    #[test]
    fn batch_without_interactive_images_is_short() {
        let mut queue = Queue::new();
        for number in 0..20_u8 {
            queue.push(f32::from(number), "a", Priority::Batch, NOT_LONG);
        }
        assert_eq!(queue.next(32).len(), BATCH_PRIORITY_ROWS);
        for number in 20..40_u8 {
            queue.push(f32::from(number), "a", Priority::Interactive, NOT_LONG);
        }
        // There are 12 left beside the 20.
        assert_eq!(queue.next(32).len(), 32);
        assert!(queue.waiting.is_empty());
    }

    #[test]
    fn image_that_has_waited_too_long_goes_before_all_others() {
        let mut queue = Queue::new();
        queue.push(1.0, "a", Priority::Batch, LONGEST_WAIT * 2);
        for number in [2.0, 3.0] {
            queue.push(number, "a", Priority::Interactive, NOT_LONG);
        }
        assert_eq!(queue.next(2), [1.0, 2.0]);
        assert_eq!(queue.next(2), [3.0]);
    }

    #[test]
    fn batch_is_of_one_version() {
        let mut queue = Queue::new();
        for (number, version) in [(1.0, "a"), (2.0, "a"), (3.0, "b"), (4.0, "a")] {
            queue.push(number, version, Priority::Interactive, NOT_LONG);
        }
        queue.push(5.0, "b", Priority::Batch, NOT_LONG);
        assert_eq!(queue.next(8), [1.0, 2.0]);
        assert_eq!(queue.next(8), [3.0, 5.0]);
        assert_eq!(queue.next(8), [4.0]);
    }

    #[test]
    fn client_of_another_version_waits_for_one_batch_however_many_there_are() {
        let mut queue = Queue::new();
        for number in 0..4_u8 {
            for client in ["one", "two", "three"] {
                queue.push_of(
                    client,
                    f32::from(number),
                    "a",
                    Priority::Interactive,
                    NOT_LONG,
                );
            }
        }
        queue.push_of("other", 100.0, "b", Priority::Interactive, NOT_LONG);
        assert_eq!(queue.next(4), [0.0, 0.0, 0.0, 1.0]);
        assert_eq!(queue.next(4), [100.0]);
        assert_eq!(queue.next(4), [1.0, 1.0, 2.0, 2.0]);
    }

    #[test]
    fn nothing_is_computed_for_a_client_that_has_left() {
        let mut queue = Queue::new();
        queue.push(1.0, "a", Priority::Interactive, NOT_LONG);
        queue.push(2.0, "a", Priority::Interactive, NOT_LONG);
        drop(queue.clients.remove(0));
        assert_eq!(queue.next(8), [2.0]);
    }

    #[test]
    fn every_client_has_its_turn() {
        let mut queue = Queue::new();
        for number in 0..10_u8 {
            queue.push_of(
                "much",
                f32::from(number),
                "a",
                Priority::Interactive,
                NOT_LONG,
            );
        }
        queue.push_of("little", 20.0, "a", Priority::Interactive, NOT_LONG);
        queue.push_of("other", 30.0, "a", Priority::Interactive, NOT_LONG);
        queue.push_of("other", 31.0, "a", Priority::Interactive, NOT_LONG);
        assert_eq!(queue.next(4), [0.0, 20.0, 30.0, 1.0]);
        assert_eq!(queue.next(4), [31.0, 2.0, 3.0, 4.0]);
        assert_eq!(queue.next(8), [5.0, 6.0, 7.0, 8.0, 9.0]);
        assert!(queue.waiting.is_empty());
    }

    #[test]
    fn client_of_another_version_waits_for_the_next_batch_alone() {
        let mut queue = Queue::new();
        for number in [1.0, 2.0, 3.0] {
            queue.push_of("a", number, "a", Priority::Interactive, NOT_LONG);
        }
        queue.push_of("b", 4.0, "b", Priority::Interactive, NOT_LONG);
        assert_eq!(queue.next(2), [1.0, 2.0]);
        assert_eq!(queue.next(2), [4.0]);
        assert_eq!(queue.next(2), [3.0]);
    }

    #[test]
    fn images_for_the_same_weights_with_another_input_are_in_batches_of_their_own() {
        let mut queue = Queue::new();
        for number in [1.0, 2.0] {
            queue.push(number, "a", Priority::Interactive, NOT_LONG);
        }
        let line = queue.waiting.interactive.of_client.values_mut().next();
        let model = &mut line.unwrap().back_mut().unwrap().model;
        let mut other = ServedModel::clone(model);
        other.input.mean = [0.5; 3];
        *model = Arc::new(other);
        assert_eq!(queue.next(5), [1.0]);
        assert_eq!(queue.next(5), [2.0]);
    }

    #[test]
    fn image_with_its_mirror_image_takes_two_rows() {
        let mut queue = Queue::new();
        for number in [1.0, 2.0, 3.0] {
            queue.push(number, "a", Priority::Interactive, NOT_LONG);
            let line = queue.waiting.interactive.of_client.values_mut().next();
            let item = line.unwrap().back_mut().unwrap();
            item.average_flip = true;
        }
        assert_eq!(queue.next(5), [1.0, 2.0]);
        // One goes also where there is room for half of it.
        assert_eq!(queue.next(1), [3.0]);
    }
}
