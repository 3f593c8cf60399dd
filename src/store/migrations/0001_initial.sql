-- The first schema. A migration that has shipped is never edited: later changes are new files.
--
-- `message` columns hold protobuf messages of visage.v1; the columns beside them are what queries filter and order by.
-- State numbers are those of visage.v1.TrainingState.

-- "VISA": tells our databases from other SQLite files.
PRAGMA application_id = 0x56495341;

CREATE TABLE trainings (
    -- Order of acceptance, which is the order of the queue; never given twice.
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state INTEGER NOT NULL,
    -- Sequence of the latest event.
    last_sequence INTEGER NOT NULL,
    message BLOB NOT NULL
) STRICT;
CREATE INDEX trainings_by_state ON trainings (state, number);

-- Trainings as they are read: the place in the queue changes without a change of the row, so it is computed.
CREATE VIEW placed_trainings AS
SELECT number, id, state, message,
    CASE WHEN state = 1 THEN (SELECT count(*) FROM trainings ahead WHERE ahead.state = 1 AND ahead.number <= trainings.number)
    ELSE 0 END AS queue_position
FROM trainings;

CREATE TABLE events (
    -- Position among the events of all trainings; never given twice.
    cursor INTEGER PRIMARY KEY AUTOINCREMENT,
    training INTEGER NOT NULL REFERENCES trainings (number) ON DELETE CASCADE,
    sequence INTEGER NOT NULL CHECK (sequence > 0),
    message BLOB NOT NULL,
    UNIQUE (training, sequence)
) STRICT;

CREATE TABLE request_ids (
    id TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    training INTEGER NOT NULL REFERENCES trainings (number) ON DELETE CASCADE
) STRICT;
CREATE INDEX request_ids_by_training ON request_ids (training);

CREATE TABLE checkpoints (
    training INTEGER NOT NULL REFERENCES trainings (number) ON DELETE CASCADE,
    epoch INTEGER NOT NULL CHECK (epoch > 0),
    best INTEGER NOT NULL CHECK (best IN (0, 1)),
    message BLOB NOT NULL,
    PRIMARY KEY (training, epoch)
) STRICT;
CREATE UNIQUE INDEX one_best_checkpoint ON checkpoints (training) WHERE best = 1;

CREATE TABLE checkpoint_files (
    training INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (training, epoch, sha256),
    FOREIGN KEY (training, epoch) REFERENCES checkpoints (training, epoch) ON DELETE CASCADE
) STRICT;
CREATE INDEX checkpoint_files_by_digest ON checkpoint_files (sha256);

CREATE TABLE models (
    id TEXT PRIMARY KEY,
    -- The latest number that was given; it stays when the version goes.
    last_version INTEGER NOT NULL
) STRICT;

CREATE TABLE versions (
    model TEXT NOT NULL REFERENCES models (id),
    number INTEGER NOT NULL CHECK (number > 0),
    message BLOB NOT NULL,
    PRIMARY KEY (model, number)
) STRICT;

CREATE TABLE version_files (
    model TEXT NOT NULL,
    number INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (model, number, sha256),
    FOREIGN KEY (model, number) REFERENCES versions (model, number) ON DELETE CASCADE
) STRICT;
CREATE INDEX version_files_by_digest ON version_files (sha256);

CREATE TABLE aliases (
    model TEXT NOT NULL,
    alias TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (model, alias),
    -- No cascade: a version that an alias points to cannot be deleted.
    FOREIGN KEY (model, number) REFERENCES versions (model, number)
) STRICT;
CREATE INDEX aliases_by_version ON aliases (model, number);

-- Versions as they are read, with the aliases that point to them now, separated by commas.
CREATE VIEW aliased_versions AS
SELECT model, number, message,
    (SELECT group_concat(alias, ',') FROM aliases WHERE aliases.model = versions.model AND aliases.number = versions.number) AS aliases
FROM versions;

CREATE TABLE alias_events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    model TEXT NOT NULL,
    message BLOB NOT NULL
) STRICT;
CREATE INDEX alias_events_by_model ON alias_events (model, number);
