"""Trainings that are stopped, cancelled, deleted, or interrupted by a restart of the server."""

import tempfile
import uuid

import grpc

import server
from api import training
from client.base import Code, ClientTest, endless, kinds, read_face, spec, state_name, states, stop_reason


class ControlTest(ClientTest):
    """Trainings that are stopped, cancelled and deleted. None becomes live."""

    OPTIONS = ("--max-queued-trainings", "2")

    def test_a_stop_after_an_epoch_keeps_the_best_checkpoint_as_a_version(self):
        name = self.start_endless()
        self.follow_to_first_epoch(name)
        self.assertIn(state_name(self.stop(name).state), ("STOPPING", "SUCCEEDED"))
        try:
            self.stop(name)  # A second call is a no-op.
        except grpc.RpcError as error:
            self.assertEqual(error.code(), Code.FAILED_PRECONDITION)  # It came too late.
        events = self.client.events(name)
        self.assertEqual(states(events), ["QUEUED", "PREPARING", "RUNNING", "STOPPING", "SUCCEEDED"])
        ended = self.client.get(name)
        self.assertEqual(stop_reason(ended), "USER_STOP")
        epochs = [event.epoch_completed for event in events if event.HasField("epoch_completed")]
        self.assertEqual([epoch.epoch for epoch in epochs], list(range(1, len(epochs) + 1)))
        self.assertEqual(ended.best, min(epochs, key=lambda epoch: epoch.val_loss))
        created = next(event.model_version_created for event in events if event.HasField("model_version_created"))
        self.assertEqual((created.model_version, created.promoted), (ended.model_version, False))
        self.assertEqual(len(self.client.ages(read_face(0), model=ended.model_version)), 1)
        with self.refused(Code.FAILED_PRECONDITION, "NO_LIVE_MODEL"):
            self.client.predict(read_face(0))
        for late in (self.stop, self.cancel):
            with self.refused(Code.FAILED_PRECONDITION, "TRAINING_TERMINAL"):
                late(name)
        # Deletion keeps only the files of the version.
        self.delete(name)
        for gone in (self.client.get, self.client.events, self.delete, self.stop):
            with self.refused(Code.NOT_FOUND, "NOT_FOUND"):
                gone(name)
        self.assertNotIn(name, [listed.name for listed in self.list_trainings()])
        self.assertEqual(len(self.client.ages(read_face(0), model=ended.model_version)), 1)

    def test_queued_trainings_wait_in_order_and_leave_at_once(self):
        running = self.start_endless()
        self.follow_until(running, lambda event: event.state_changed.state == training.TRAINING_STATE_PREPARING)
        second, third = self.start_endless(), self.start_endless()
        self.assertEqual([self.client.get(name).queue_position for name in (running, second, third)], [0, 1, 2])
        with self.refused(Code.RESOURCE_EXHAUSTED, "TRAINING_QUEUE_FULL") as refusals:
            self.client.start(endless())
        self.assertGreater(refusals[0].retry.retry_delay.ToNanoseconds(), 0)
        with self.refused(Code.FAILED_PRECONDITION, "TRAINING_LIVE"):
            self.delete(second)

        cancelled = self.cancel(second)
        self.assertEqual((state_name(cancelled.state), stop_reason(cancelled)), ("CANCELLED", "USER_STOP"))
        self.assertEqual((cancelled.attempt, cancelled.model_version), (0, ""))
        self.assertEqual(states(self.client.events(second)), ["QUEUED", "CANCELLED"])
        self.assertEqual(self.client.get(third).queue_position, 1)
        # Without a completed epoch nothing is kept.
        self.assertEqual(state_name(self.stop(third).state), "CANCELLED")
        listed = self.list_trainings(states=[training.TRAINING_STATE_CANCELLED])
        self.assertEqual([one.name for one in listed if one.name in (second, third)], [third, second])

    def test_a_live_training_cannot_be_deleted_and_is_read_to_its_head(self):
        name = self.start_endless()
        seen = self.follow_to_first_epoch(name)
        with self.refused(Code.FAILED_PRECONDITION, "TRAINING_LIVE"):
            self.delete(name)
        read = self.client.events(name, follow=False)
        self.assertEqual(read[:len(seen)], seen)
        # A resumed stream has neither a gap nor a repeat.
        self.cancel(name)
        rest = self.client.events(name, after_sequence=seen[-1].sequence)
        every = self.client.events(name)
        self.assertEqual(seen + rest, every)
        self.assertEqual(states(every), ["QUEUED", "PREPARING", "RUNNING", "CANCELLING", "CANCELLED"])
        self.delete(name)

    def test_a_training_runs_before_its_first_epoch_is_complete_however_short_epochs_are(self):
        with tempfile.TemporaryDirectory() as directory:
            few = server.draw_faces(directory, count=12, seed=2, size=32)
            for _ in range(4):
                name = self.client.start(spec(few, max_epochs=1, input_size=32, promote=training.PROMOTE_NEVER)).name
                events = self.client.events(name)
                self.assertEqual(states(events), ["QUEUED", "PREPARING", "RUNNING", "SUCCEEDED"])
                running = next(event.sequence for event in events if event.state_changed.state == training.TRAINING_STATE_RUNNING)
                self.assertLess(running, next(event.sequence for event in events if event.HasField("epoch_completed")))


class RestartTest(ClientTest):
    def test_a_training_continues_after_an_orderly_restart(self):
        request = dict(spec=endless(), request_id=str(uuid.uuid4()))
        name = self.client.start(**request).name
        stream = self.client.stream(name)
        seen = []
        with self.refused(Code.UNAVAILABLE, "SHUTTING_DOWN") as refusals:
            for response in stream:
                seen.append(response.event)
                if kinds(seen).count("epoch_completed") == 1 and response.event.HasField("epoch_completed"):
                    self.server.terminate()
        self.assertGreater(refusals[0].retry.retry_delay.ToNanoseconds(), 0)
        self.server.wait()

        self.server.start()
        self.addCleanup(self.cancel_if_active, name)
        self.assertEqual(self.client.start(**request).name, name)
        again = self.follow_until(name, lambda event: event.HasField("epoch_completed") and event.attempt == 2,
                                  after_sequence=seen[-1].sequence)
        both = seen + again
        self.assertEqual([event.sequence for event in both], list(range(1, len(both) + 1)))
        self.assertEqual(states(again)[-3:], ["QUEUED", "PREPARING", "RUNNING"])
        # It resumes where the shutdown interrupted it: no epoch is lost or repeated.
        epochs = [event.epoch_completed.epoch for event in both if event.HasField("epoch_completed")]
        self.assertEqual(epochs, list(range(1, len(epochs) + 1)))
        rewound = [event.metrics_rewound.from_epoch for event in again if event.HasField("metrics_rewound")]
        self.assertEqual(rewound, [epochs[-1]])
        self.assertEqual((again[-1].epoch_completed.epoch, again[-1].epoch_completed.attempt), (epochs[-1], 2))
