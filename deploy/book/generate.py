#!/usr/bin/env python3
"""Writes the reference part of the book, `src/reference/*.md`, from what the program and the sources say themselves.

    make book-reference                                          # builds the program and runs this
    .venv/bin/python deploy/book/generate.py --visage PROGRAM    # needs the package grpcio-tools

- `api-*.md`: from the protos and their comments.
- `cli.md`, `settings.md`, `metrics.md`: from the program's `--help` and `config`.
- `errors.md`: the reasons in `src/services/status.rs` and of failed trainings, with the meanings below; a reason without a meaning, and a meaning
  without a reason, is refused.

The files are committed, so that they can be read without building anything; `tests/python/test_book.py` fails when they are stale.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
REFERENCE = REPOSITORY / "deploy/book/src/reference"
PROTOS = REPOSITORY / "proto/visage/v1"
NOTE = "<!-- Written by deploy/book/generate.py; change what it reads instead. -->"

# What a client should know of each reason in `src/services/status.rs`.
CALLS = {
    "INVALID_FIELDS": "Fields of the request are wrong. `BadRequest` lists all of them with their full paths; change them.",
    "BAD_NAME": "A resource name is not of the form that it should be; the message says the form.",
    "REQUEST_ID_REUSED": "This `request_id` started another training. Use a new UUID for a new request.",
    "BAD_TOKEN": "`page_token` or `resume_token` is none that the server gave. Send it back unchanged, or leave it out.",
    "NOT_FOUND": "What the name stands for does not exist (any more).",
    "NO_EVALUATION": "The version's training had no test images, or the version is not of its best checkpoint. Evaluate it on a dataset instead.",
    "ALREADY_EXISTS": "The `training_id` is taken. Choose another.",
    "TRAINING_QUEUE_FULL": "`max_queued_trainings` wait already. Try again when one has started.",
    "TOO_MANY_EVALUATIONS": "Four evaluations run. Try again when one has ended.",
    "TOO_MANY_CHECKS": "Two datasets are being checked. Try again when one check has ended.",
    "TOO_MANY_BATCHES": "As many calls of PredictBatch run as the server answers at once. Send the images over fewer calls, or try again when one has ended.",
    "TOO_MANY_DATASETS": "As many datasets are unpacked or read as the server does at once, or there are as many as it keeps. Try again when one is done, or delete some.",
    "TOO_MANY_UPLOADS": "As many uploads are open as the server takes. Try again when one has ended, or give one up.",
    "DATASET_IN_USE": "A training that has not ended uses the dataset. Wait for it or cancel it.",
    "DATASET_FILES": "The server could not read or write the dataset's files; its log says why.",
    "NO_UPLOADS": "The server takes no uploads (`uploads`). Register a directory of the server instead.",
    "NO_UPLOAD": "There is no such upload, or none of its bytes came for `upload_expiry`. Begin again.",
    "UPLOAD_USED": "The upload has become a dataset already.",
    "UPLOAD_INCOMPLETE": "Not all bytes are there yet. Ask for the offset and send the rest.",
    "UPLOAD_OFFSET": "The bytes do not begin where the upload is. Ask for the offset and go on from there.",
    "UPLOAD_TOO_LARGE": "The upload is larger than `max_upload_bytes`, or than it said.",
    "UPLOAD_BUSY": "Another request is writing the same upload. Try again when it has ended.",
    "UPLOAD_TOO_SLOW": "No byte came for a while. Ask for the offset and go on from there.",
    "UPLOAD_BROKEN": "The connection broke off. Ask for the offset and go on from there.",
    "LOG_LEVEL_FIXED": "The program that this server is part of decides what is logged.",
    "TOO_MANY_REQUESTS": "The HTTP port answers as many requests with bodies as it takes. Try again in a moment.",
    "QUEUE_FULL": "More images wait than `max_queued_images` allows (for `PRIORITY_BATCH`, than three quarters of it). Wait as `RetryInfo` says, and send fewer at once.",
    "CLIENT_SHARE_FULL": "There is room, but this client has its share of it and others want theirs. Wait as `RetryInfo` says, and send fewer at once.",
    "WAIT_TOO_LONG": "The images that are computed before will hardly be done before the call's deadline, judged by how long others waited. Wait as `RetryInfo` says, or give the call more time.",
    "OUT_OF_MEMORY": "The forward pass found too little memory. Send fewer images at once, or lower `max_batch`.",
    "DISK_FULL": "The server's disk is full; nothing was written. Make room.",
    "TRAINING_TERMINAL": "The training has ended and cannot change.",
    "TRAINING_LIVE": "The training has not ended, so it cannot be deleted. Cancel it first.",
    "TRAINING_NOT_NOW": "The training is about to pause or to end. Ask again when it has.",
    "NOT_SENT": "A client of PredictBatch sent nothing for a minute while it had all answers. End the call when there are no more images, and begin another one when there are some.",
    "NOT_TAKEN": "A client of PredictBatch took no answer for a minute. Read the answers while you send, and send again what was not answered.",
    "ALIAS_MOVED": "The alias does not point to `expected_version` any more: somebody else moved it. Look again, then decide.",
    "NO_LIVE_MODEL": "No version has the alias `live`. Train one, point `live` to one, or start the server with `--starter`.",
    "CURSOR_AHEAD": "The cursor is past the last event: it is of another training or another database. Begin from 0.",
    "DEADLINE_EXCEEDED": "The call's deadline passed, or leaves less time than the images take by themselves. What was not computed yet is dropped.",
    "INVALID_IMAGE": "An image cannot be read; `index` in the metadata of `ErrorInfo` says which.",
    "NOT_SUPPORTED": "A part of the Open Inference Protocol that Visage does not have.",
    "BODY_TOO_LARGE": "The HTTP body is larger than `max_message_bytes`. Send fewer images at once.",
    "BODY_TOO_SLOW": "The HTTP body did not arrive in time.",
    "TOO_MANY_VALIDATIONS": "As many StartTraining calls with `validate_only` scan datasets as the server allows at once. Wait as `RetryInfo` says.",
    "MODEL_NOT_LOADABLE": "The version is there and does not load; the message says why. Point `live` to another one, or bring its checkpoint back.",
    "PRECISION_UNAVAILABLE": "The version cannot be served in the number format that the setting `precision` asks for; the message says why. Set it to `auto`.",
    "SHUTTING_DOWN": "The server ends. Connect again as `RetryInfo` says; a stream of events goes on from its cursor.",
    "DATABASE_DAMAGED": "The database is damaged. Restore a backup.",
    "DATABASE": "The database failed. The server's log has the cause.",
    "FILE_NOT_FOUND": "A stored file is gone. Restore a backup.",
    "CHECKPOINT_CORRUPT": "A stored file is not what its SHA-256 says. Restore a backup, or serve another version.",
    "MODEL_DAMAGED": "The model's output is not a number: its weights are damaged. Serve another version.",
    "ARTIFACTS": "The stored files cannot be read or written. The server's log has the cause.",
    "FILE_UNREADABLE": "An image's file on the server cannot be read. The server's log has the cause.",
    "PANIC": "The work for the message failed, which is a bug. Keep the log and report it.",
    "ENGINE_GONE": "The thread that predicts has died, which is a bug. Keep the log and start the server again.",
    "MODEL": "libtorch or the device failed. The server's log has the cause.",
    "PLOTS": "The plots of an evaluation could not be drawn. Ask without them.",
    "ANSWER": "An HTTP answer could not be written.",
}

# The same for `Failure.reason` of trainings.
FAILURES = {
    "DATASET_NOT_FOUND": "There is nothing at `dataset.path`. The path counts on the server's machine.",
    "DATASET_OUTSIDE_ROOTS": "The dataset is not under one of the server's `data_roots`, links resolved.",
    "DATASET_EMPTY": "There is no usable image. Names must begin with the age, such as `34_1_0.jpg`.",
    "TOO_MANY_REJECTS": "More files than `max_reject_share` are unusable; the message counts them by reason.",
    "TOO_MANY_UNREADABLE": "More images than `max_reject_share` could not be decoded in an epoch.",
    "TOO_FEW_IMAGES": "The training part has too few images.",
    "NO_VALIDATION_IMAGES": "The validation part is empty: raise `validation_fraction`, or give more images.",
    "BAD_DATASET": "The directory or the manifest cannot be understood; the message says what is missing.",
    "BAD_DATASET_OPTIONS": "The dataset's fractions contradict each other, or it has more images than can be used.",
    "DATASET_UNREADABLE": "The dataset's disk failed.",
    "INIT_WEIGHTS": "The initial weights cannot be had or used. See [ImageNet's weights](../how-to/imagenet-weights.md).",
    "NON_FINITE_LOSS": "The loss became infinite or not a number. Lower `optimizer.learning_rate`.",
    "OUT_OF_MEMORY": "Memory ran out. With `on_oom` unset the batch is halved first.",
    "NOT_ENOUGH_MEMORY": "Less memory is free than the training needs; it was not begun. Lower `batch_size` or `input_size`.",
    "MAX_DURATION": "`max_duration` passed before there was a checkpoint.",
    "DISK_FULL": "The disk is full. Make room and start it again.",
    "WORKER_DIED": "Its process died, hung or broke its protocol, and `max_restarts` is 0.",
    "WORKER_VERSION": "Another program than the server's own ran as its process; look at `worker_launcher`.",
    "SERVER_RESTART_LIMIT": "More than `max_restarts` starts in a row ended without a new full checkpoint.",
    "CHECKPOINT_CORRUPT": "A checkpoint is not what its SHA-256 says.",
    "CHECKPOINT_UNUSABLE": "The best checkpoint does not load or does not compute, so it became no version.",
    "STORE": "The database failed. The server's log has the cause.",
    "ARTIFACTS": "The stored files failed. The server's log has the cause.",
    "INTERNAL": "A fault of the server. Keep its log and report it.",
    "CANCELLED": "It was cancelled.",
}

SCALARS = {1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 8: "bool", 9: "string", 12: "bytes", 13: "uint32"}
MESSAGE, ENUM, REPEATED = 11, 14, 3


def pages(program):
    """All files by name, with their text."""
    files = api_pages()
    files["cli.md"] = cli_page(program)
    files["settings.md"] = table_page("Settings", program, "--markdown", """\
The server's settings, as `visage config --markdown` prints them. Defaults < TOML file (`--config`, `VISAGE_CONFIG`, or `visage.toml` in the working directory) <
`VISAGE_*` variables < flags. `visage config` prints those that count now, each with where it is from. Clients read `VISAGE_SERVER` or `--server`.""")
    files["metrics.md"] = table_page("Metrics", program, "--metrics", """\
What `GET /metrics` on the HTTP port has, as `visage config --metrics` prints it. [Monitor](../how-to/monitor.md) says what to watch.""")
    files["errors.md"] = errors_page()
    return files


# --- The API ---------------------------------------------------------------------------------------------------------------------------------------------


def api_pages():
    """A page for each proto."""
    files = descriptors()
    homes = {}
    for file in files:
        for name in all_names(file):
            homes[".{}.{}".format(file.package, name)] = "api-{}.md#{}".format(stem(file), anchor(name))
    return {"api-{}.md".format(stem(file)): api_page(file, homes) for file in files}


def descriptors():
    """The protos with their comments."""
    import grpc_tools
    from google.protobuf import descriptor_pb2
    from grpc_tools import protoc

    names = sorted("visage/v1/" + path.name for path in PROTOS.glob("*.proto"))
    includes = ["--proto_path={}".format(REPOSITORY / "proto"), "--proto_path=" + os.path.join(os.path.dirname(grpc_tools.__file__), "_proto")]
    with tempfile.TemporaryDirectory() as directory:
        out = os.path.join(directory, "set.binpb")
        if protoc.main(["protoc", *includes, "--include_source_info", "--descriptor_set_out=" + out, *names]) != 0:
            raise SystemExit("protoc refused the protos; its reason is above")
        with open(out, "rb") as file:
            return descriptor_pb2.FileDescriptorSet.FromString(file.read()).file


def stem(file):
    return os.path.splitext(os.path.basename(file.name))[0]


def all_names(file):
    return [thing.name for kind in (file.service, file.message_type, file.enum_type) for thing in kind]


def anchor(heading):
    """The id that mdBook and GitHub give a heading of one word."""
    return heading.lower()


def api_page(file, homes):
    comments = {tuple(location.path): location.leading_comments.strip() for location in file.source_code_info.location}
    parts = ["# API: {}\n".format(stem(file)), NOTE + "\n", "Package `{}`, from `proto/{}`. [What the errors mean](errors.md).\n".format(file.package, file.name)]
    for index, service in enumerate(file.service):
        parts.append("## {}\n".format(service.name))
        parts.append(paragraphs(comments.get((6, index), "")))
        for number, method in enumerate(service.method):
            returned = "stream of " if method.server_streaming else ""
            parts.append("### {}\n".format(method.name))
            parts.append("{} → {}{}\n".format(link(method.input_type, homes), returned, link(method.output_type, homes)))
            parts.append(paragraphs(comments.get((6, index, 2, number), "")))
    if file.message_type:
        parts.append("## Messages\n")
    for index, message in enumerate(file.message_type):
        parts.append(message_section(message, (4, index), comments, homes))
    if file.enum_type:
        parts.append("## Enums\n")
    for index, enum in enumerate(file.enum_type):
        parts.append("### {}\n".format(enum.name))
        parts.append(paragraphs(comments.get((5, index), "")))
        rows = [("`{}`".format(value.name), str(value.number), comments.get((5, index, 2, number), "")) for number, value in enumerate(enum.value)]
        parts.append(table(("Value", "Number", "Meaning"), rows))
    return "\n".join(parts).rstrip() + "\n"


def message_section(message, path, comments, homes):
    parts = ["### {}\n".format(message.name), paragraphs(comments.get(path, ""))]
    rows = []
    for number, field in enumerate(message.field):
        rows.append(("`{}`".format(field.name), field_type(message, field, homes), str(field.number), comments.get((*path, 2, number), "")))
    parts.append(table(("Field", "Type", "Number", "Meaning"), rows) if rows else "It has no fields.\n")
    return "\n".join(parts)


def field_type(message, field, homes):
    """Its type in words, with links to messages and enums."""
    entry = next((nested for nested in message.nested_type if field.type_name.endswith("." + nested.name) and nested.options.map_entry), None)
    if entry is not None:
        key, value = (field_type(entry, part, homes) for part in entry.field)
        return "map of {} to {}".format(key, value)
    text = link(field.type_name, homes) if field.type in (MESSAGE, ENUM) else SCALARS[field.type]
    if field.label == REPEATED:
        return "repeated " + text
    if field.proto3_optional:
        return "optional " + text
    if field.HasField("oneof_index"):
        return "{}, one of `{}`".format(text, message.oneof_decl[field.oneof_index].name)
    return text


def link(name, homes):
    """A type's name, as a link where the book has it."""
    short = name.rsplit(".", 1)[1]
    return "[{}]({})".format(short, homes[name]) if name in homes else "`{}`".format(name.lstrip("."))


def paragraphs(comment):
    """A comment as Markdown: lines of a paragraph are one, and `Errors:` begins another."""
    texts = [" ".join(part.split()) for part in re.split(r"\n\s*\n|\n(?=\s*Errors: )", comment)]
    return "\n\n".join(outside_code(text) for text in texts if text) + "\n"


def table(header, rows):
    lines = ["| {} |".format(" | ".join(header)), "|{}|".format("---|" * len(header)).replace("||", "|")]
    lines += ["| {} |".format(" | ".join(outside_code(" ".join(cell.split())).replace("|", "\\|") for cell in row)) for row in rows]
    return "\n".join(lines) + "\n"


def outside_code(text):
    """Lets `<` and `>` outside of code be themselves."""
    parts = text.split("`")
    return "`".join(part if index % 2 else part.replace("<", "&lt;").replace(">", "&gt;") for index, part in enumerate(parts))


# --- The program -----------------------------------------------------------------------------------------------------------------------------------------


def run(program, *arguments):
    """What the program prints, at one width whatever the terminal."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VISAGE_")}
    done = subprocess.run([program, *arguments], env={**environment, "COLUMNS": "100", "NO_COLOR": "1"}, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=60)
    if done.returncode != 0:
        raise SystemExit("{} {} ended with {}: {}".format(program, " ".join(arguments), done.returncode, done.stderr))
    return done.stdout


def cli_page(program):
    parts = ["# Commands\n", NOTE + "\n", "What `visage COMMAND --help` prints. All commands but `serve`, `synth`, `config`, `completions` and `man` call a server.\n"]
    waiting = [[]]
    while waiting:
        command = waiting.pop(0)
        text = "\n".join(line.rstrip() for line in run(program, *command, "--help").strip().splitlines())
        parts.append("## {}\n".format(" ".join(["visage", *command])))
        parts.append("```text\n{}\n```\n".format(text))
        waiting = [[*command, name] for name in subcommands(text)] + waiting
    return "\n".join(parts).rstrip() + "\n"


def subcommands(text):
    """The names under `Commands:`."""
    section = re.search(r"^Commands:\n((?:  .*\n|\n(?=  ))+)", text + "\n", re.M)
    names = re.findall(r"^  ([a-z][a-z-]*)", section.group(1), re.M) if section else []
    return [name for name in names if name != "help"]


def table_page(title, program, flag, introduction):
    printed = run(program, "config", flag).strip()
    return "# {}\n\n{}\n\n{}\n\n{}\n".format(title, NOTE, introduction, printed)


# --- Errors ----------------------------------------------------------------------------------------------------------------------------------------------


def errors_page():
    calls = call_reasons()
    failures = failure_reasons()
    for kind, found, explained in (("calls", set(calls), set(CALLS)), ("failed trainings", set(failures), set(FAILURES))):
        if found != explained:
            raise SystemExit("reasons of {}: {} have no meaning in generate.py, and {} are nowhere in the sources".format(
                kind, sorted(found - explained), sorted(explained - found)))
    rows = [("`{}`".format(reason), "`{}`".format(calls[reason][0]), "yes" if calls[reason][1] else "", meaning) for reason, meaning in CALLS.items()]
    failed = [("`{}`".format(reason), meaning) for reason, meaning in FAILURES.items()]
    return "\n".join([
        "# Errors\n", NOTE + "\n",
        "## Calls\n",
        "Each error of a service carries `google.rpc.ErrorInfo` with one of these reasons in the domain `visage`. They do not change; messages may. Where the third column says so, it also "
        "carries `RetryInfo`: the same call can succeed later. The HTTP port answers with the HTTP status that belongs to the code.\n",
        table(("Reason", "gRPC code", "Waiting helps", "What it means, and what to do"), rows),
        "## Failed trainings\n",
        "A training that ends as FAILED says one of these in `failure.reason`; `visage trainings get ID` prints it with a sentence.\n",
        table(("Reason", "What it means, and what to do"), failed)]).rstrip() + "\n"


def call_reasons():
    """Code and whether waiting helps, by reason."""
    source = without_tests(REPOSITORY / "src/services/status.rs")
    found = {}
    for constructor, code, reason in re.findall(r'Row::(new|retry)\(\s*Code::(\w+),\s*"([A-Z_]+)",?\s*\)', source):
        found[reason] = (capitals(code), constructor == "retry" or found.get(reason, ("", False))[1])
    # Bad fields and bad images carry more than a row says.
    for reason in re.findall(r'set_error_info\(\s*"([A-Z_]+)"', source):
        found[reason] = ("INVALID_ARGUMENT", False)
    return found


def failure_reasons():
    """What trainings can fail with."""
    failure = without_tests(REPOSITORY / "src/training/failure.rs")
    found = set(re.findall(r'"([A-Z][A-Z_]+)"', failure))
    for name in ("run.rs", "restart.rs"):
        source = without_tests(REPOSITORY / "src/training/supervisor" / name)
        found |= set(re.findall(r'reason: "([A-Z_]+)"\.to_owned', source)) | set(re.findall(r'StopReason::\w+,\s*"([A-Z_]+)"', source))
    return found


def without_tests(path):
    return path.read_text(encoding="utf-8").split("#[cfg(test)]")[0]


def capitals(code):
    """`InvalidArgument` as INVALID_ARGUMENT."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", code).upper()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--visage", default=str(REPOSITORY / "target/release/visage"), help="the program")
    files = pages(parser.parse_args().visage)
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (REFERENCE / name).write_text(text, encoding="utf-8")
    print("wrote {} pages to {}".format(len(files), REFERENCE.relative_to(REPOSITORY)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
