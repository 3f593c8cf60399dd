#!/usr/bin/env python3
"""Generates the reference of the book, `src/reference/*.md`, from the program and the sources.

    make book-reference                                          # builds the program and runs this
    .venv/bin/python deploy/book/generate.py --visage PROGRAM    # needs the package grpcio-tools

- `api-*.md`: from the proto files and their comments.
- `cli.md`, `settings.md`, `metrics.md`: from the program's `--help` and `config`.
- `errors.md`: the reasons in `src/services/status` and of failed trainings, with the meanings below. A reason without a
  meaning, and a meaning without a reason, is an error.

The pages are committed, so that they can be read without a build; `tests/python/test_book.py` fails when they are stale.
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

# Meaning and remedy of each reason in `src/services/status`.
CALLS = {
    "INVALID_FIELDS": "Fields of the request are invalid. `BadRequest` lists all of them with their paths; correct them.",
    "WEIGHTS_UNAVAILABLE": "The ImageNet weights are neither on the server nor available from the hub. See [Use ImageNet's weights, or your own](../how-to/imagenet-weights.md).",
    "BAD_NAME": "A resource name has the wrong form; the message describes the expected one.",
    "REQUEST_ID_REUSED": "This `request_id` started another training. Use a new UUID for a new request.",
    "BAD_TOKEN": "`page_token` or `resume_token` was not issued by this server. Send tokens back unchanged, or omit them.",
    "NOT_FOUND": "The named resource does not exist, or was deleted.",
    "TRAINING_REPLACED": "The followed training never started, and a new training has its id. Follow that one from its first event.",
    "NO_EVALUATION": "The version's training had no test images, or the version was not created from its best checkpoint. Evaluate it on a dataset instead.",
    "ALREADY_EXISTS": "The `training_id` or `dataset_id` is taken. Choose another. The id of a training that ended before its first epoch began is free.",
    "TRAINING_QUEUE_FULL": "`max_queued_trainings` trainings are waiting. Retry when one has started.",
    "TOO_MANY_EVALUATIONS": "Four evaluations are running. Retry when one has ended.",
    "TOO_MANY_CHECKS": "Two dataset checks are running. Retry when one has ended.",
    "TOO_MANY_BATCHES": "The maximum number of PredictBatch calls is active. Send the images over fewer calls, or retry when one has ended.",
    "TOO_MANY_DATASETS": "The maximum number of datasets is being unpacked or scanned, or stored. Retry when one is done, or delete some.",
    "TOO_MANY_UPLOADS": "The maximum number of uploads is open. Retry when one has ended, or cancel one.",
    "DATASET_IN_USE": "An active training uses the dataset. Wait for it or cancel it.",
    "VERSION_IN_USE": "An alias points to the version, or an active training starts from it. Move or delete the alias, or wait for the training.",
    "DATASET_FILES": "The server failed to read or write the files of the dataset; its log has the cause.",
    "NO_UPLOADS": "Uploads are disabled (setting `uploads`). Register a directory of the server instead.",
    "NO_UPLOAD": "The upload does not exist, or expired after `upload_expiry` without data. Start again.",
    "UPLOAD_USED": "A dataset was already created from the upload.",
    "UPLOAD_INCOMPLETE": "The upload is incomplete. Request the offset and send the rest.",
    "UPLOAD_OFFSET": "The data does not start at the offset of the upload. Request the offset and continue from there.",
    "UPLOAD_TOO_LARGE": "The upload is larger than `max_upload_bytes`, or than its declared length.",
    "UPLOAD_BUSY": "Another request is writing to the upload. Retry when it has ended.",
    "UPLOAD_TOO_SLOW": "No data arrived in time. Request the offset and continue from there.",
    "UPLOAD_BROKEN": "The connection was lost. Request the offset and continue from there.",
    "LOG_LEVEL_FIXED": "The log filter of an embedded server is set by the embedding program.",
    "TOO_MANY_REQUESTS": "The maximum number of HTTP requests with bodies is active. Retry shortly.",
    "CREDENTIAL_MISSING": "The server requires a credential (setting `auth`), and the request has none. Send a token as `authorization: Bearer TOKEN`.",
    "CREDENTIAL_INVALID": "The credential is not complete, unknown, revoked, or of a kind that the server does not accept. Ask an administrator for another.",
    "CREDENTIAL_EXPIRED": "The token, the certificate or the session has expired or was revoked during the call. Log in again, or ask for another token.",
    "ROLE_REQUIRED": "The client lacks a role; one of those in the metadata `role` suffices. Ask an administrator for it.",
    "NOT_OWNER": "Another identity started the training. Ask its owner, which the message names, or an administrator.",
    "TOO_MANY_CALLS": "The maximum number of calls is open, in all or from this address (`max_calls_per_address`). Retry when some have finished.",
    "TOO_MANY_CALLS_PER_SECOND": "This client starts more calls in a second than `max_calls_per_second`, or the limit of its identity, allows. Send them more slowly.",
    "TOO_MANY_STREAMS": "`max_event_streams` event streams are open, or `max_event_streams_per_client` of this client. End others, or follow `trainings/-` with one stream.",
    "TOO_MANY_FAILURES": "Within a minute, more than 10 credentials of this client were wrong, or it lacked the role for more than 60 calls. Try again later.",
    "REQUEST_TOO_SLOW": "The bytes of the request stopped arriving for `stall_timeout`. Send it again.",
    "QUEUE_FULL": "The queue holds `max_queued_images` images (for `PRIORITY_BATCH`, three quarters of that). Wait as requested by `RetryInfo`, and send fewer images at once.",
    "CLIENT_SHARE_FULL": "The queue has room, but this client has used its share while others are waiting. Wait as requested by `RetryInfo`, and send fewer images at once.",
    "WAIT_TOO_LONG": "The estimated queueing delay exceeds the deadline of the request. Wait as requested by `RetryInfo`, or use a longer deadline.",
    "OUT_OF_MEMORY": "The forward pass ran out of memory. Send fewer images at once, or lower `max_batch`.",
    "DISK_LOW": "Less than `min_free_disk` is or would be left on the disk. Delete datasets, trainings or uploads that are not needed.",
    "DATASET_BYTES": "The uploaded datasets have `max_dataset_bytes`. Delete datasets that are not needed.",
    "DATASETS_FULL": "`max_datasets` datasets exist. Delete datasets that are not needed.",
    "TRAININGS_FULL": "`max_stored_trainings` trainings exist. Delete ended trainings that are not needed.",
    "TOO_MANY_ALIASES": "The model has 64 aliases. Delete aliases that are not needed, or point an existing one to the version.",
    "DISK": "The free disk space could not be queried. The log of the server has the cause.",
    "DISK_FULL": "The disk of the server is full; nothing was written. Free space.",
    "TRAINING_TERMINAL": "The training has ended and cannot change.",
    "TRAINING_LIVE": "The training has not ended, so it cannot be deleted. Cancel it first.",
    "TRAINING_NOT_NOW": "The training is about to pause or end. Retry when it has.",
    "NOT_SENT": "A client of PredictBatch sent nothing for one minute after it had received all responses. End the call after the last image, and start another one for new images.",
    "NOT_TAKEN": "A client of PredictBatch read no response for one minute. Read responses while sending, and send the images without a response again.",
    "ALIAS_MOVED": "The alias does not point to `expected_version`: it was moved concurrently. Read it again, then decide.",
    "NO_LIVE_MODEL": "No version has the alias `live`. Train one, point `live` to one, or start the server with `--starter`.",
    "CURSOR_AHEAD": "The cursor is past the last event: it belongs to another training or database. Start from 0.",
    "DEADLINE_EXCEEDED": "The deadline passed, or is shorter than the images take without waiting. Images that were not computed yet are dropped.",
    "INVALID_IMAGE": "An image is unreadable; `index` in the metadata of `ErrorInfo` names it.",
    "NOT_SUPPORTED": "A part of the Open Inference Protocol that Visage does not support.",
    "BODY_TOO_LARGE": "The HTTP body is larger than `max_message_bytes`. Send fewer images at once.",
    "BODY_TOO_SLOW": "The HTTP body did not arrive in time.",
    "TOO_MANY_VALIDATIONS": "The maximum number of StartTraining requests with `validate_only` is scanning datasets. Wait as requested by `RetryInfo`.",
    "MODEL_NOT_LOADABLE": "The version exists but fails to load; the message has the cause. Point `live` to another one, or restore its files.",
    "PRECISION_UNAVAILABLE": "The version cannot be served in the number format of the setting `precision`; the message has the cause. Set it to `auto`.",
    "SHUTTING_DOWN": "The server is shutting down. Reconnect as requested by `RetryInfo`; a stream of events resumes at its cursor.",
    "DATABASE_DAMAGED": "The database is damaged. Restore a backup.",
    "DATABASE": "The database failed. The log of the server has the cause.",
    "FILE_NOT_FOUND": "A stored file is missing. Restore a backup.",
    "CHECKPOINT_CORRUPT": "A stored file does not match its SHA-256. Restore a backup, or serve another version.",
    "MODEL_DAMAGED": "The output of the model is not a number: its weights are damaged. Serve another version.",
    "ARTIFACTS": "The server failed to read or write stored files. Its log has the cause.",
    "FILE_UNREADABLE": "An image file on the server is unreadable. The log of the server has the cause.",
    "PANIC": "An internal error, which is a bug. Save the log and report it.",
    "ENGINE_GONE": "The inference thread died, which is a bug. Save the log and restart the server.",
    "MODEL": "libtorch or the device failed. The log of the server has the cause.",
    "PLOTS": "The plots of an evaluation could not be drawn. Evaluate without plots.",
    "ANSWER": "An HTTP response could not be encoded.",
}

# Meaning and remedy of each `Failure.reason` of trainings.
FAILURES = {
    "DATASET_NOT_FOUND": "`dataset.path` does not exist. The path refers to the machine of the server.",
    "DATASET_OUTSIDE_ROOTS": "The dataset is outside the server's `data_roots`, with symbolic links resolved.",
    "DATASET_EMPTY": "The dataset does not contain a usable image. Names must start with the age, such as `34_1_0.jpg`.",
    "TOO_MANY_REJECTS": "The share of unusable files exceeds `max_reject_share`; the message counts them by reason.",
    "TOO_MANY_UNREADABLE": "The share of images that could not be decoded in an epoch exceeds `max_reject_share`.",
    "TOO_FEW_IMAGES": "The training split has too few images.",
    "NO_VALIDATION_IMAGES": "The validation split is empty: raise `validation_fraction`, or add images.",
    "BAD_DATASET": "The directory or the manifest is invalid; the message has the cause.",
    "BAD_DATASET_OPTIONS": "The fractions of the dataset are inconsistent, or it has too many images.",
    "DATASET_UNREADABLE": "The disk of the dataset failed.",
    "INIT_WEIGHTS": "The initial weights are unavailable or unusable. See [Use ImageNet's weights, or your own](../how-to/imagenet-weights.md).",
    "NON_FINITE_LOSS": "The loss became infinite or not a number. Lower `optimizer.learning_rate`.",
    "OUT_OF_MEMORY": "Memory ran out. By default the batch size is halved first (`on_oom`).",
    "NOT_ENOUGH_MEMORY": "The training needs more memory than is free, so it was not started. Lower `batch_size` or `input_size`.",
    "MAX_DURATION": "`max_duration` was exceeded before the first checkpoint.",
    "DISK_LOW": "Less than `min_free_disk` is left on the disk. The training is paused and resumes when there is room.",
    "DISK_FULL": "The disk is full. The training is paused and resumes from its last full checkpoint when there is room.",
    "WORKER_DIED": "The process died, hung or violated its protocol, and `max_restarts` is 0.",
    "WORKER_VERSION": "The process ran a different version of the program; check `worker_launcher`.",
    "SERVER_RESTART_LIMIT": "More than `max_restarts` consecutive starts ended without a new full checkpoint.",
    "CHECKPOINT_CORRUPT": "A checkpoint does not match its SHA-256.",
    "CHECKPOINT_UNUSABLE": "The best checkpoint failed to load or to compute, so no version was created.",
    "STORE": "The database failed. The log of the server has the cause.",
    "ARTIFACTS": "The server failed to read or write stored files. Its log has the cause.",
    "INTERNAL": "An internal error. Save the log of the server and report it.",
    "CANCELLED": "The training was cancelled.",
}

SCALARS = {1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 8: "bool", 9: "string", 12: "bytes", 13: "uint32"}
MESSAGE, ENUM, REPEATED = 11, 14, 3


def pages(program):
    """Texts of all pages by file name."""
    files = api_pages()
    files["cli.md"] = cli_page(program)
    files["settings.md"] = table_page("Settings", program, "--markdown", """\
Settings of the server, as printed by `visage config --markdown`.
Flags override `VISAGE_*` variables, which override the TOML file (`--config`, `VISAGE_CONFIG`, or `visage.toml` in the working directory), which overrides the defaults.
`visage config` prints the effective values with their sources.
Clients use `--server` or `VISAGE_SERVER`.""")
    files["metrics.md"] = table_page("Metrics", program, "--metrics", """\
Metrics of `GET /metrics` on the HTTP port, as printed by `visage config --metrics`.
[Monitor](../how-to/monitor.md) explains which ones to watch.""")
    files["errors.md"] = errors_page()
    return files


# --- The API ---


def api_pages():
    """One page per proto file."""
    files = descriptors()
    homes = {}
    for file in files:
        for name in all_names(file):
            homes[".{}.{}".format(file.package, name)] = "api-{}.md#{}".format(stem(file), anchor(name))
    return {"api-{}.md".format(stem(file)): api_page(file, homes) for file in files}


def descriptors():
    """Descriptors of the proto files with their comments."""
    import grpc_tools
    from google.protobuf import descriptor_pb2
    from grpc_tools import protoc

    names = sorted("visage/v1/" + path.name for path in PROTOS.glob("*.proto"))
    includes = ["--proto_path={}".format(REPOSITORY / "proto"), "--proto_path=" + os.path.join(os.path.dirname(grpc_tools.__file__), "_proto")]
    with tempfile.TemporaryDirectory() as directory:
        out = os.path.join(directory, "set.binpb")
        if protoc.main(["protoc", *includes, "--include_source_info", "--descriptor_set_out=" + out, *names]) != 0:
            raise SystemExit("protoc failed; see its message above")
        with open(out, "rb") as file:
            return descriptor_pb2.FileDescriptorSet.FromString(file.read()).file


def stem(file):
    return os.path.splitext(os.path.basename(file.name))[0]


def all_names(file):
    return [thing.name for kind in (file.service, file.message_type, file.enum_type) for thing in kind]


def anchor(heading):
    """Anchor of a one-word heading in mdBook and on GitHub."""
    return heading.lower()


def api_page(file, homes):
    comments = {tuple(location.path): location.leading_comments.strip() for location in file.source_code_info.location}
    parts = ["# API: {}\n".format(stem(file)), NOTE + "\n", "Package `{}`, from `proto/{}`. [Meaning of the errors](errors.md).\n".format(file.package, file.name)]
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
    """Type of a field, with links to messages and enums."""
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
    """Name of a type, as a link if the book describes it."""
    short = name.rsplit(".", 1)[1]
    return "[{}]({})".format(short, homes[name]) if name in homes else "`{}`".format(name.lstrip("."))


def paragraphs(comment):
    """Comment as Markdown, with joined lines; `Errors:` starts a paragraph."""
    texts = [" ".join(part.split()) for part in re.split(r"\n\s*\n|\n(?=\s*Errors: )", comment)]
    return "\n\n".join(outside_code(text) for text in texts if text) + "\n"


def table(header, rows):
    lines = ["| {} |".format(" | ".join(header)), "|{}|".format("---|" * len(header)).replace("||", "|")]
    lines += ["| {} |".format(" | ".join(outside_code(" ".join(cell.split())).replace("|", "\\|") for cell in row)) for row in rows]
    return "\n".join(lines) + "\n"


def outside_code(text):
    """Escapes `<` and `>` outside of code."""
    parts = text.split("`")
    return "`".join(part if index % 2 else part.replace("<", "&lt;").replace(">", "&gt;") for index, part in enumerate(parts))


# --- The program ---


def run(program, *arguments):
    """Output of the program at a fixed width."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VISAGE_")}
    done = subprocess.run([program, *arguments], env={**environment, "COLUMNS": "100", "NO_COLOR": "1"}, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=60)
    if done.returncode != 0:
        raise SystemExit("{} {} exited with {}: {}".format(program, " ".join(arguments), done.returncode, done.stderr))
    return done.stdout


def cli_page(program):
    parts = ["# Commands\n", NOTE + "\n", "Output of `visage COMMAND --help`. All commands except `serve`, `synth`, `config`, `servers`, `completions` and `man` call a server.\n"]
    waiting = [[]]
    while waiting:
        command = waiting.pop(0)
        text = "\n".join(line.rstrip() for line in run(program, *command, "--help").strip().splitlines())
        parts.append("## {}\n".format(" ".join(["visage", *command])))
        parts.append("```text\n{}\n```\n".format(text))
        waiting = [[*command, name] for name in subcommands(text)] + waiting
    return "\n".join(parts).rstrip() + "\n"


def subcommands(text):
    """Names listed under `Commands:`."""
    section = re.search(r"^Commands:\n((?:  .*\n|\n(?=  ))+)", text + "\n", re.M)
    names = re.findall(r"^  ([a-z][a-z-]*)", section.group(1), re.M) if section else []
    return [name for name in names if name != "help"]


def table_page(title, program, flag, introduction):
    printed = run(program, "config", flag).strip()
    return "# {}\n\n{}\n\n{}\n\n{}\n".format(title, NOTE, introduction, printed)


# --- Errors ---


def errors_page():
    calls = call_reasons()
    failures = failure_reasons()
    for kind, found, explained in (("calls", set(calls), set(CALLS)), ("failed trainings", set(failures), set(FAILURES))):
        if found != explained:
            raise SystemExit("reasons of {}: {} lack a meaning in generate.py, and {} do not occur in the sources".format(
                kind, sorted(found - explained), sorted(explained - found)))
    rows = [("`{}`".format(reason), "`{}`".format(calls[reason][0]), "yes" if calls[reason][1] else "", meaning) for reason, meaning in CALLS.items()]
    failed = [("`{}`".format(reason), meaning) for reason, meaning in FAILURES.items()]
    return "\n".join([
        "# Errors\n", NOTE + "\n",
        "## Calls\n",
        "Each error of a service carries `google.rpc.ErrorInfo` with one of these reasons in the domain `visage`. Reasons are stable; messages may change. Errors that are marked as "
        "retryable also carry `RetryInfo`: the same request can succeed later. The HTTP port uses the HTTP status of the code.\n",
        table(("Reason", "gRPC code", "Retryable", "Meaning and remedy"), rows),
        "## Failed trainings\n",
        "A training that ends as FAILED has one of these reasons in `failure.reason`; `visage trainings get ID` prints it with the message.\n",
        table(("Reason", "Meaning and remedy"), failed)]).rstrip() + "\n"


def call_reasons():
    """Code and retryability by reason."""
    source = sources("src/services/status")
    found = {}
    for constructor, code, reason in re.findall(r'Row::(new|retry)\(\s*Code::(\w+),\s*"([A-Z_]+)",?\s*\)', source):
        found[reason] = (capitals(code), constructor == "retry" or found.get(reason, ("", False))[1])
    # Invalid fields and images carry further details.
    for reason in re.findall(r'set_error_info\(\s*"([A-Z_]+)"', source):
        found[reason] = ("INVALID_ARGUMENT", False)
    return found


def failure_reasons():
    """Reasons of failed trainings: the capitalised strings of their errors, except names of environment variables."""
    found = re.findall(r'"([A-Z][A-Z_]+)"', sources("src/training/worker/error") + sources("src/training/supervisor"))
    return {reason for reason in found if not reason.startswith(("CARGO_", "MALLOC_", "VISAGE_"))}


def sources(module):
    """Source text of a module, without its tests."""
    path = REPOSITORY / module
    files = sorted(path.rglob("*.rs")) if path.is_dir() else [path.with_suffix(".rs")]
    return "\n".join(file.read_text(encoding="utf-8").split("#[cfg(test)]")[0] for file in files if file.stem != "tests")


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
