"""Compatibility of the protos with the baseline, and their style.

The rules are those of buf's breaking category FILE and lint category STANDARD that a descriptor set
can show, and a comment on every element.
"""

import collections
import os
import pathlib
import re
import sys
import unittest

from google.protobuf import descriptor_pb2

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "fixtures" / "generate"))
from make_proto_baseline import API, BASELINE, INTERNAL, PROTO, descriptors  # noqa: E402

Field = descriptor_pb2.FieldDescriptorProto
UPPER_CAMEL, LOWER_SNAKE, UPPER_SNAKE = re.compile("[A-Z][A-Za-z0-9]*"), re.compile("[a-z][a-z0-9]*(_[a-z0-9]+)*"), re.compile("[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
ON_PURPOSE = ("These changes break clients: add new elements with new names and numbers, and keep existing ones. If a break is intended, update the baseline with "
              "`.venv/bin/python tests/fixtures/generate/make_proto_baseline.py` and give the reason in the commit.")


def promises(files):
    """The compatible surface by full name: each name maps to all its properties that must not change."""
    found = {}
    for file in files.file:
        if file.package == "google.protobuf":
            continue
        for message in file.message_type:
            promises_of_message(file, file.package, message, found)
        for enum in file.enum_type:
            promises_of_enum(file, file.package, enum, found)
        for service in file.service:
            name = "{}.{}".format(file.package, service.name)
            found["service " + name] = {"file": file.name}
            for method in service.method:
                found["method {}.{}".format(name, method.name)] = {
                    "request": method.input_type, "response": method.output_type, "streams requests": method.client_streaming,
                    "streams responses": method.server_streaming}
    return found


def promises_of_message(file, parent, message, found):
    name = "{}.{}".format(parent, message.name)
    found["message " + name] = {"file": file.name, "is a map's entry": message.options.map_entry}
    for field in message.field:
        found["field {}.{}".format(name, field.name)] = {
            "number": field.number, "type": Field.Type.Name(field.type), "type's name": field.type_name, "label": Field.Label.Name(field.label),
            "is optional": field.proto3_optional, "JSON name": field.json_name,
            # Generated code contains the name of a oneof; that of an optional field is synthetic.
            "oneof": message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") and not field.proto3_optional else None}
    for nested in message.nested_type:
        promises_of_message(file, name, nested, found)
    for enum in message.enum_type:
        promises_of_enum(file, name, enum, found)


def promises_of_enum(file, parent, enum, found):
    name = "{}.{}".format(parent, enum.name)
    found["enum " + name] = {"file": file.name}
    for value in enum.value:
        found["enum value {}.{}".format(name, value.name)] = {"number": value.number}


def breaking_changes(before, now):
    """Sentences about removed or changed elements; additions are compatible."""
    old, new = promises(before), promises(now)
    changes = []
    for name, promise in old.items():
        if name not in new:
            changes.append(name + " is gone")
            continue
        changes.extend("{}: its {} was {} and is {}".format(name, what, value, new[name][what]) for what, value in promise.items() if new[name][what] != value)
    return changes


def lint(files):
    """Sentences about elements of Visage's protos that violate the style rules."""
    faults = []
    uses = collections.Counter(kind for file in files.file for service in file.service for method in service.method for kind in (method.input_type, method.output_type))
    for file in files.file:
        if not file.package.startswith("visage."):
            continue
        comments = {tuple(location.path) for location in file.source_code_info.location if location.leading_comments.strip()}

        def check(holds, name, rule):
            if not holds:
                faults.append("{}: {} {}".format(file.name, name, rule))

        def check_name(pattern, name, kind, path):
            check(pattern.fullmatch(name.split(".")[-1]), name, "is not a valid name of " + kind)
            check(path in comments, name, "has no comment")

        def check_enum(enum, path, outer=""):
            check_name(UPPER_CAMEL, outer + enum.name, "an enum", path)
            check(not enum.options.allow_alias, enum.name, "gives one number two names")
            prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper() + "_"
            check(enum.value[0].number == 0 and enum.value[0].name == prefix + "UNSPECIFIED", enum.name, "does not begin with {}UNSPECIFIED = 0".format(prefix))
            for index, value in enumerate(enum.value):
                check_name(UPPER_SNAKE, "{}{}.{}".format(outer, enum.name, value.name), "an enum's value", (*path, 2, index))
                check(value.name.startswith(prefix), value.name, "does not begin with " + prefix)

        def check_message(message, path, outer=""):
            if message.options.map_entry:
                return
            name = outer + message.name
            check_name(UPPER_CAMEL, name, "a message", path)
            for index, field in enumerate(message.field):
                check_name(LOWER_SNAKE, "{}.{}".format(name, field.name), "a field", (*path, 2, index))
            synthetic = {field.oneof_index for field in message.field if field.proto3_optional}
            for index, oneof in enumerate(message.oneof_decl):
                if index not in synthetic:
                    check_name(LOWER_SNAKE, "{}.{}".format(name, oneof.name), "a oneof", (*path, 8, index))
            for index, nested in enumerate(message.nested_type):
                check_message(nested, (*path, 3, index), name + ".")
            for index, enum in enumerate(message.enum_type):
                check_enum(enum, (*path, 4, index), name + ".")

        check(file.syntax == "proto3", "the file", "is not proto3")
        check(os.path.dirname(file.name) == file.package.replace(".", "/"), file.package, "is not the file's directory")
        check(re.search(r"\.v[1-9]\d*$", file.package), file.package, "does not end with a version")
        check(LOWER_SNAKE.fullmatch(os.path.basename(file.name)[:-len(".proto")]), "the file", "is not in lower_snake_case")
        check(not file.public_dependency and not file.weak_dependency, "the file", "imports something public or weak")
        for index, message in enumerate(file.message_type):
            check_message(message, (4, index))
        for index, enum in enumerate(file.enum_type):
            check_enum(enum, (5, index))
        for index, service in enumerate(file.service):
            check_name(UPPER_CAMEL, service.name, "a service", (6, index))
            check(service.name.endswith("Service"), service.name, "does not end with Service")
            for position, method in enumerate(service.method):
                name = "{}.{}".format(service.name, method.name)
                check_name(UPPER_CAMEL, name, "a method", (6, index, 2, position))
                for kind, suffix in ((method.input_type, "Request"), (method.output_type, "Response")):
                    check(kind == ".{}.{}{}".format(file.package, method.name, suffix), name, "has {} for its {}".format(kind, suffix.lower()))
                    check(uses[kind] == 1, kind, "belongs to more than one method")
    return faults


def named(items, name):
    """The item of a descriptor's list with this name."""
    return next(item for item in items if item.name == name)


def changed(files, change):
    """A copy with one change to the file of trainings."""
    copy = descriptor_pb2.FileDescriptorSet()
    copy.CopyFrom(files)
    change(named(copy.file, "visage/v1/training.proto"))
    return copy


class CompatibilityTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with open(BASELINE, "rb") as file:
            cls.baseline = descriptor_pb2.FileDescriptorSet.FromString(file.read())

    def test_the_protos_keep_everything_that_the_baseline_has(self):
        changes = breaking_changes(self.baseline, descriptors(API))
        self.assertEqual(changes, [], "\n".join([*changes, ON_PURPOSE]))

    def test_the_baseline_is_the_whole_api(self):
        self.assertTrue(set(API) <= {file.name for file in self.baseline.file})
        found = {os.path.relpath(os.path.join(directory, name), PROTO) for directory, _, names in os.walk(PROTO) for name in names if name.endswith(".proto")}
        self.assertEqual(found, {*API, *INTERNAL}, "a proto is missing from the lists of make_proto_baseline.py")

    def assert_breaks(self, change, sentence):
        changes = breaking_changes(self.baseline, changed(self.baseline, change))
        self.assertIn(sentence, changes)

    def test_a_field_that_goes_is_a_break(self):
        def change(file):
            del named(file.message_type, "EpochMetrics").field[3]
        self.assertEqual(breaking_changes(self.baseline, changed(self.baseline, change)), ["field visage.v1.EpochMetrics.val_loss is gone"])

    def test_a_field_that_changes_is_a_break(self):
        def field(file, name="batch_size"):
            return named(named(file.message_type, "TrainingSpec").field, name)

        def in_a_oneof(file):
            message = named(file.message_type, "Failure")
            message.oneof_decl.add(name="kind")
            message.field[0].oneof_index = 0
        name = "field visage.v1.TrainingSpec.batch_size"
        for change, sentence in [
                (lambda file: setattr(field(file), "number", 99), name + ": its number was 5 and is 99"),
                (lambda file: setattr(field(file), "type", Field.TYPE_UINT64), name + ": its type was TYPE_UINT32 and is TYPE_UINT64"),
                (lambda file: setattr(field(file), "label", Field.LABEL_REPEATED), name + ": its label was LABEL_OPTIONAL and is LABEL_REPEATED"),
                (lambda file: setattr(field(file), "proto3_optional", False), name + ": its is optional was True and is False"),
                (lambda file: setattr(field(file), "json_name", "batch"), name + ": its JSON name was batchSize and is batch"),
                (lambda file: setattr(field(file), "name", "batch"), name + " is gone"),
                (lambda file: setattr(field(file, "loss"), "type_name", ".visage.v1.Failure"),
                 "field visage.v1.TrainingSpec.loss: its type's name was .visage.v1.LossSpec and is .visage.v1.Failure"),
                (in_a_oneof, "field visage.v1.Failure.reason: its oneof was None and is kind")]:
            with self.subTest(sentence):
                self.assert_breaks(change, sentence)

    def test_an_enum_value_and_a_method_that_change_are_breaks(self):
        def states(file):
            return named(file.enum_type, "TrainingState").value

        def methods(file):
            return named(file.service, "TrainingService").method

        def without_stop(file):
            kept = [method for method in methods(file) if method.name != "StopTraining"]
            del methods(file)[:]
            methods(file).extend(kept)
        for change, sentence in [
                (lambda file: setattr(states(file)[1], "number", 77), "enum value visage.v1.TrainingState.TRAINING_STATE_QUEUED: its number was 1 and is 77"),
                (lambda file: setattr(states(file)[1], "name", "TRAINING_STATE_WAITING"), "enum value visage.v1.TrainingState.TRAINING_STATE_QUEUED is gone"),
                (without_stop, "method visage.v1.TrainingService.StopTraining is gone"),
                (lambda file: setattr(named(methods(file), "StreamEpochMetrics"), "server_streaming", False),
                 "method visage.v1.TrainingService.StreamEpochMetrics: its streams responses was True and is False"),
                (lambda file: setattr(named(methods(file), "StopTraining"), "input_type", ".visage.v1.GetTrainingRequest"),
                 "method visage.v1.TrainingService.StopTraining: its request was .visage.v1.StopTrainingRequest and is .visage.v1.GetTrainingRequest"),
                (lambda file: file.ClearField("service"), "service visage.v1.TrainingService is gone"),
                (lambda file: setattr(file, "name", "visage/v1/trainings.proto"),
                 "message visage.v1.TrainingSpec: its file was visage/v1/training.proto and is visage/v1/trainings.proto")]:
            with self.subTest(sentence):
                self.assert_breaks(change, sentence)

    def test_what_is_added_is_no_break(self):
        def change(file):
            named(file.message_type, "EpochMetrics").field.add(name="val_median", number=90, type=Field.TYPE_DOUBLE, label=Field.LABEL_OPTIONAL)
            named(file.enum_type, "TrainingState").value.add(name="TRAINING_STATE_NEW", number=90)
            file.message_type.add(name="New")
            named(file.service, "TrainingService").method.add(name="New", input_type=".visage.v1.New", output_type=".visage.v1.New")
        self.assertEqual(breaking_changes(self.baseline, changed(self.baseline, change)), [])


class LintTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.files = descriptors([*API, *INTERNAL], "--include_source_info")

    def test_the_protos_are_written_by_the_rules(self):
        faults = lint(self.files)
        self.assertEqual(faults, [], "\n".join(faults))

    def test_every_rule_notices_its_fault(self):
        def message(file):
            return named(file.message_type, "Failure")

        def enum(file):
            return named(file.enum_type, "Promote")

        def method(file):
            return named(named(file.service, "TrainingService").method, "StopTraining")

        def without_comment(file):
            position = [one.name for one in file.message_type].index("Failure")
            for location in file.source_code_info.location:
                if tuple(location.path) == (4, position, 2, 0):
                    location.ClearField("leading_comments")
        for change, fault in [
                (lambda file: setattr(message(file), "name", "training_failure"), "training_failure is not a valid name of a message"),
                (lambda file: setattr(message(file).field[0], "name", "theReason"), "Failure.theReason is not a valid name of a field"),
                (without_comment, "Failure.reason has no comment"),
                (lambda file: setattr(enum(file), "name", "promote"), "promote is not a valid name of an enum"),
                (lambda file: setattr(enum(file).value[0], "name", "PROMOTE_NONE"), "Promote does not begin with PROMOTE_UNSPECIFIED = 0"),
                (lambda file: setattr(enum(file).value[1], "name", "ALWAYS"), "ALWAYS does not begin with PROMOTE_"),
                (lambda file: setattr(enum(file).value[1], "name", "PROMOTE_always"), "Promote.PROMOTE_always is not a valid name of an enum's value"),
                (lambda file: setattr(enum(file).options, "allow_alias", True), "Promote gives one number two names"),
                (lambda file: setattr(method(file), "name", "stopTraining"), "TrainingService.stopTraining is not a valid name of a method"),
                (lambda file: setattr(method(file), "input_type", ".visage.v1.GetTrainingRequest"),
                 "TrainingService.StopTraining has .visage.v1.GetTrainingRequest for its request"),
                (lambda file: setattr(method(file), "input_type", ".visage.v1.GetTrainingRequest"), ".visage.v1.GetTrainingRequest belongs to more than one method"),
                (lambda file: setattr(file.service[0], "name", "Trainings"), "Trainings does not end with Service"),
                (lambda file: setattr(file, "package", "visage.trainings"), "visage.trainings is not the file's directory"),
                (lambda file: setattr(file, "package", "visage.trainings"), "visage.trainings does not end with a version"),
                (lambda file: setattr(file, "name", "visage/v1/Training.proto"), "the file is not in lower_snake_case"),
                (lambda file: setattr(file, "syntax", "proto2"), "the file is not proto3"),
                (lambda file: file.public_dependency.append(0), "the file imports something public or weak")]:
            with self.subTest(fault):
                self.assertIn(fault, [sentence.split(": ", 1)[1] for sentence in lint(changed(self.files, change))])
