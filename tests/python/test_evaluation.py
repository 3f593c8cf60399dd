"""Evaluations and the levels of intervals, as a Python client sees them; one server with one small training."""

import io
import os
import unittest

import grpc
from PIL import Image

import api
import server
from api import model, training

Code = grpc.StatusCode


class EvaluationTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # In the number format of the training, whose figures it is held against.
        cls.server = server.Server("--precision", "f32")
        cls.addClassCleanup(cls.server.close)
        cls.client = cls.server.client
        cls.faces = server.draw_faces(cls.server.path("faces"), count=120, seed=1, size=64)
        spec = training.TrainingSpec(
            dataset=training.DatasetSpec(path=cls.faces, validation_fraction=0.2), max_epochs=2, batch_size=16, input_size=32,
            init=training.InitSpec(kind=training.INIT_KIND_RANDOM), precision=training.PRECISION_F32)
        name = cls.client.start(spec).name
        cls.client.events(name)
        cls.training = cls.client.get(name)

    def evaluate(self, **fields):
        """All messages of an evaluation of the drawn faces, unless the dataset is given."""
        fields.setdefault("dataset", training.DatasetSpec(path=self.faces))
        return list(self.client.models.EvaluateModelVersion(model.EvaluateModelVersionRequest(**fields)))

    def face(self):
        with open(os.path.join(self.faces, sorted(os.listdir(self.faces))[0]), "rb") as file:
            return file.read()

    def refusal(self, call):
        with self.assertRaises(grpc.RpcError) as caught:
            call()
        return api.Refusal(caught.exception)

    def test_the_stored_evaluation_is_that_of_the_training(self):
        stored = self.client.models.GetEvaluation(model.GetEvaluationRequest(name="models/age/versions/live"))
        self.assertEqual(stored.model_version, self.training.model_version)
        self.assertEqual(stored.evaluation, self.training.test)
        test = stored.evaluation
        self.assertLessEqual(test.cs3, test.cs5)
        self.assertLessEqual(test.cs5, test.cs10)
        self.assertEqual(test.baseline_source, training.BASELINE_SOURCE_TRAINING_MEAN)
        self.assertEqual(len(test.worst_predictions), min(20, test.images))
        names = set(os.listdir(self.faces))
        self.assertTrue(all(worst.file in names for worst in test.worst_predictions))
        self.assertEqual(test.interval_coverage.level, 0.9)
        absent = self.refusal(lambda: self.client.models.GetEvaluation(model.GetEvaluationRequest(name="models/age/versions/9")))
        self.assertEqual((absent.code, absent.reason), (Code.NOT_FOUND, "NOT_FOUND"))

    def test_an_evaluation_ends_with_exactly_one_report(self):
        messages = self.evaluate(include_plots=True, include_predictions=True)
        kinds = [message.WhichOneof("kind") for message in messages]
        self.assertEqual((kinds[0], kinds[-1], kinds.count("report")), ("progress", "report", 1))
        predictions = [one for message in messages for one in message.predictions.predictions]
        self.assertEqual([one.file for one in predictions], sorted(os.listdir(self.faces)))
        report = messages[-1].report
        figures = report.evaluation
        self.assertEqual((report.model_version, figures.images), (self.training.model_version, 120))
        mae = sum(abs(one.predicted - one.age) for one in predictions) / len(predictions)
        self.assertAlmostEqual(figures.mae, mae, places=9)
        self.assertAlmostEqual(predictions[0].predicted, self.client.ages(self.face())[0], places=3)
        for png in (report.predicted_plot_png, report.residual_plot_png):
            self.assertEqual(Image.open(io.BytesIO(png)).size, (900, 760))

    def test_a_split_is_that_of_the_training(self):
        report = self.evaluate(split=model.DATASET_SPLIT_TEST)[-1].report
        self.assertEqual(report.evaluation.images, self.training.test.images)
        self.assertAlmostEqual(report.evaluation.mae, self.training.test.mae, places=3)
        self.assertEqual((report.predicted_plot_png, list(report.warnings)), (b"", []))

    def test_bad_fields_of_an_evaluation_are_named_all_at_once(self):
        bad = training.DatasetSpec(path="/no/such/directory", min_age=-1, max_reject_share=2)
        refusal = self.refusal(lambda: self.evaluate(dataset=bad, split=77))
        self.assertEqual((refusal.code, refusal.reason), (Code.INVALID_ARGUMENT, "INVALID_FIELDS"))
        self.assertEqual(set(refusal.fields), {"split", "dataset.path", "dataset.min_age", "dataset.max_reject_share"})

    def test_a_level_is_rounded_up_and_one_above_all_is_refused(self):
        def confidence(**fields):
            return self.client.predict(self.face(), **fields).predictions[0].interval.confidence

        self.assertEqual([confidence(), confidence(interval_level=0.8), confidence(interval_level=0.7)], [0.9, 0.8, 0.8])
        for level in (0.9999, 0, 1.5, -1):
            refusal = self.refusal(lambda: confidence(interval_level=level))
            self.assertEqual((refusal.code, refusal.fields), (Code.INVALID_ARGUMENT, ["interval_level"]), level)
        self.assertRegex(self.refusal(lambda: confidence(interval_level=0.9999)).message, r"0\.9999 cannot be given .* enough for 0\.5, 0\.8, 0\.9")


if __name__ == "__main__":
    unittest.main()
