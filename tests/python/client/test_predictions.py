"""Predictions: images, formats, deadlines and the queue."""

import io
import math
import os

import grpc
from PIL import Image, ImageOps

import api
import server
from api import prediction
from client.base import Code, METRICS_SECONDS, TrainedTest, encoded, read_face


def seconds_of_work():
    """The maximum number of images per call, with 16 million pixels each, in 3 MB."""
    return 64 * [encoded(Image.new("RGB", (4000, 4000), (90, 60, 30)), "PNG")]


class PredictionsTest(TrainedTest):
    def test_several_images_are_predicted_in_order_and_as_alone(self):
        images = [read_face(position) for position in (0, 40, 80)]
        response = self.client.predict(*images)
        self.assertEqual(response.model_version, "models/age/versions/1")
        ages = [predicted.age for predicted in response.predictions]
        self.assertEqual(len(set(ages)), 3)
        for predicted in response.predictions:
            self.assertTrue(0 <= predicted.age <= 120, predicted)
            self.assertTrue(0 <= predicted.interval.lower <= predicted.age <= predicted.interval.upper, predicted)
            self.assertEqual(predicted.interval.confidence, 0.9)
            self.assertEqual((predicted.width, predicted.height, predicted.annotated_png), (96, 96, b""))
        durations = {field.name: getattr(response.durations, field.name).ToNanoseconds()
                     for field in prediction.PredictDurations.DESCRIPTOR.fields}
        for name in ("decode", "inference", "total"):
            self.assertGreater(durations[name], 0, name)
        self.assertEqual(max(durations.values()), durations["total"])
        for image, age in zip(images, ages):
            self.assertAlmostEqual(self.client.ages(image)[0], age, delta=1e-3)  # Another size of the batch rounds differently.

    def test_a_version_is_predicted_with_by_number_and_by_alias(self):
        face = read_face(10)
        by_number = self.client.predict(face, model="models/age/versions/1")
        by_alias = self.client.predict(face, model="models/age/versions/live")
        other = self.client.predict(face, model="models/age/versions/2")
        self.assertEqual(by_alias.model_version, by_number.model_version)
        self.assertAlmostEqual(by_alias.predictions[0].age, by_number.predictions[0].age, delta=1e-3)
        self.assertEqual(other.model_version, "models/age/versions/2")
        self.assertNotAlmostEqual(other.predictions[0].age, by_number.predictions[0].age, delta=1e-2)

    def test_versions_that_do_not_exist_are_not_found_and_other_names_invalid(self):
        for version in ("3", "nobody"):
            with self.refused(Code.NOT_FOUND, "NOT_FOUND"):
                self.client.predict(read_face(0), model="models/age/versions/" + version)
        for name in ("models/age", "age", "models/age/versions/0"):
            with self.refused(Code.INVALID_ARGUMENT, "INVALID_FIELDS", ["model"]):
                self.client.predict(read_face(0), model=name)

    def test_every_format_of_the_same_image_gives_the_same_age(self):
        image = Image.open(io.BytesIO(read_face(20))).convert("RGB")
        lossless = [encoded(image, "PNG"), encoded(image, "BMP"), encoded(image, "WEBP", lossless=True)]
        ages = self.client.ages(*lossless)
        for age in ages[1:]:
            self.assertAlmostEqual(age, ages[0], delta=1e-3)
        # JPEG decoders may differ by one level.
        self.assertAlmostEqual(self.client.ages(read_face(20))[0], ages[0], delta=0.2)

    def test_annotated_images_have_their_size_and_differ_below_only(self):
        image = Image.open(io.BytesIO(read_face(30))).convert("RGB").resize((180, 120))
        predicted = self.client.predict(encoded(image, "PNG"), read_face(31), annotate=True).predictions
        drawn = [Image.open(io.BytesIO(one.annotated_png)) for one in predicted]
        self.assertEqual([(one.format, one.size) for one in drawn], [("PNG", (180, 120)), ("PNG", (96, 96))])
        upper = (0, 0, 180, 60)
        self.assertEqual(drawn[0].convert("RGB").crop(upper).tobytes(), image.crop(upper).tobytes())
        self.assertNotEqual(drawn[0].convert("RGB").tobytes(), image.tobytes())

    def test_faces_of_an_image_are_found_and_each_has_an_age_and_an_explanation(self):
        # The detector is most reliable on adults.
        directory = server.draw_faces(self.server.path("portraits"), count=12, seed=8, size=200)
        adults = [name for name in sorted(os.listdir(directory)) if 25 <= int(name.split("_")[0]) <= 70]
        canvas = Image.new("RGB", (700, 400), (120, 130, 140))
        for name, place in zip(adults, ((60, 50), (420, 150))):
            canvas.paste(Image.open(os.path.join(directory, name)), place)
        wall = Image.new("RGB", (300, 200), (90, 90, 90))
        answer = self.client.predict(encoded(canvas, "PNG"), encoded(wall, "PNG"), detect_faces=True, explain=True)
        with_faces, without = answer.predictions
        self.assertEqual(with_faces.face_detection, prediction.FACE_DETECTION_FOUND)
        self.assertEqual(sorted((face.box.left + face.box.width // 2) // 350 for face in with_faces.faces), [0, 1])
        self.assertEqual(with_faces.age, with_faces.faces[0].age)
        for face in with_faces.faces:
            box = face.box
            cut = canvas.crop((box.left, box.top, box.left + box.width, box.top + box.height))
            self.assertAlmostEqual(self.client.ages(encoded(cut, "PNG"))[0], face.age, delta=1e-3)
            self.assertAlmostEqual(sum(face.explanation.years) + face.explanation.base_years, face.age, delta=1e-3)
            self.assertEqual(Image.open(io.BytesIO(face.explanation_png)).format, "PNG")
        self.assertEqual((without.face_detection, len(without.faces)), (prediction.FACE_DETECTION_NO_FACE, 0))
        self.assertTrue(math.isnan(without.age))
        self.assertFalse(without.HasField("interval"))

    def test_an_image_is_rotated_by_its_exif_orientation(self):
        upright = Image.open(io.BytesIO(read_face(50))).convert("RGB").resize((160, 112))
        reference = self.client.ages(encoded(upright, "PNG"))[0]
        turn = Image.Transpose
        # The stored image for each orientation: the inverse of the viewer's operation.
        stored = {2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE, 6: turn.ROTATE_90,
                  7: turn.TRANSVERSE, 8: turn.ROTATE_270}
        for orientation, how in sorted(stored.items()):
            turned = upright.transpose(how)
            exif = Image.Exif()
            exif[0x0112] = orientation
            viewed = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(turned, "PNG", exif=exif))))
            self.assertEqual(viewed.tobytes(), upright.tobytes())
            forms = {"PNG": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
            for form, options in forms.items():
                with self.subTest(orientation=orientation, form=form):
                    predicted = self.client.predict(encoded(turned, form, exif=exif, **options), annotate=True).predictions[0]
                    self.assertEqual((predicted.width, predicted.height), upright.size)
                    # JPEG at this quality loses a level or two, far less than a wrong rotation
                    # changes.
                    self.assertAlmostEqual(predicted.age, reference, delta=0.2 if form == "JPEG" else 1e-3)
                    drawn = Image.open(io.BytesIO(predicted.annotated_png)).convert("RGB")
                    upper = (0, 0, upright.width, upright.height // 2)
                    worst = max(abs(ours - theirs) for ours, theirs in zip(drawn.crop(upper).tobytes(), upright.crop(upper).tobytes()))
                    self.assertLessEqual(worst, 12 if form == "JPEG" else 0)

    def test_a_bad_image_is_named_by_its_index(self):
        face = read_face(0)
        bad = {"nothing": b"", "text": b"hello", "half a JPEG": face[:len(face) // 2], "a GIF": encoded(Image.new("RGB", (9, 9)), "GIF"),
               "too many pixels": encoded(Image.new("1", (8000, 8000)), "PNG")}
        for name, image in bad.items():
            with self.subTest(name), self.refused(Code.INVALID_ARGUMENT, "INVALID_IMAGE", ["images[1]"]) as refusals:
                self.client.predict(face, image, face)
            self.assertEqual(refusals[0].info.metadata["index"], "1")

    def test_no_image_and_too_many_are_invalid(self):
        with self.refused(Code.INVALID_ARGUMENT, "INVALID_FIELDS", ["images"]):
            self.client.predict()
        with self.refused(Code.INVALID_ARGUMENT, "INVALID_FIELDS", ["images"]):
            self.client.predict(*65 * [read_face(0)])
        self.assertEqual(len(self.client.ages(*64 * [read_face(0)])), 64)

    def wait_for_empty_queue(self):
        """A call behind others is refused at once if its deadline is too soon for both."""
        server.wait_for(lambda: self.server.metrics()["visage_predict_queue_depth"] == 0, "the queue is empty", seconds=METRICS_SECONDS)

    def test_a_passed_deadline_ends_the_call_drops_its_work_and_counts_every_image(self):
        def counts():
            now = self.server.metrics()
            return {outcome: now['visage_predict_images_total{{outcome="{}"}}'.format(outcome)] for outcome in ("ok", "cancelled", "expired")}

        self.wait_for_empty_queue()
        before = counts()
        with self.refused(Code.DEADLINE_EXCEEDED):
            self.client.predict(*seconds_of_work(), timeout=0.2)
        self.assertEqual(len(self.client.ages(read_face(0))), 1)
        # The 64 images of the call, and the one after it.
        server.wait_for(lambda: sum(counts().values()) - sum(before.values()) >= 65, "every image is counted", seconds=METRICS_SECONDS)
        self.assertGreater(counts()["cancelled"] + counts()["expired"], before["cancelled"] + before["expired"])
        self.wait_for_empty_queue()

    def test_the_server_itself_ends_a_call_whose_deadline_passes(self):
        # The deadline header, from a client that would wait longer, so that only the server can end
        # the call. Several timers may do so.
        request = prediction.PredictRequest(images=seconds_of_work())
        for _ in range(5):
            self.wait_for_empty_queue()
            with self.refused(Code.DEADLINE_EXCEEDED):
                self.client.predictions.Predict(request, metadata=[("grpc-timeout", "200m")])

    def test_calls_beyond_the_queue_are_refused_at_once_with_a_time_to_come_back(self):
        # Four calls fill the queue of 256 images for seconds.
        request = prediction.PredictRequest(images=seconds_of_work())
        calls = [self.client.predictions.Predict.future(request) for _ in range(8)]
        failed = server.wait_for(lambda: [call for call in calls if call.done() and call.code() != Code.OK], "a call is refused")
        refusal = api.Refusal(failed[0])
        for call in calls:
            call.cancel()
        self.assertEqual((refusal.code, refusal.reason), (Code.RESOURCE_EXHAUSTED, "QUEUE_FULL"), refusal)
        self.assertGreater(refusal.retry.retry_delay.ToNanoseconds(), 0)

        def is_served():
            try:
                return self.client.ages(read_face(0))
            except grpc.RpcError as error:
                self.assertEqual(error.code(), Code.RESOURCE_EXHAUSTED)

        server.wait_for(is_served, "an image is taken again")
