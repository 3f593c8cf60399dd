-- Labels of trainings, so that lists can be filtered by them; `message` has them too.
CREATE TABLE training_labels (
    training INTEGER NOT NULL REFERENCES trainings (number) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (training, key)
) STRICT;

-- Sizes of the files in bytes, so that disk use is known without reading messages or directories.
ALTER TABLE checkpoint_files ADD COLUMN size_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE version_files ADD COLUMN size_bytes INTEGER NOT NULL DEFAULT 0;

-- Columns that the program has yet to fill from the messages of older rows, because SQL cannot read them.
CREATE TABLE backfills (name TEXT PRIMARY KEY) STRICT;
INSERT INTO backfills (name) VALUES ('labels_and_sizes');

-- Trainings as they are read, with the place in the queue and the bytes of the files that only their checkpoints use;
-- both change without a change of the row. A file of several checkpoints counts once.
DROP VIEW placed_trainings;
CREATE VIEW placed_trainings AS
SELECT number, id, state, message,
    CASE WHEN state = 1 THEN (SELECT count(*) FROM trainings ahead WHERE ahead.state = 1 AND ahead.number <= trainings.number)
    ELSE 0 END AS queue_position,
    (SELECT coalesce(sum(file.size_bytes), 0) FROM checkpoint_files file WHERE file.training = trainings.number
        AND NOT EXISTS (SELECT 1 FROM version_files kept WHERE kept.sha256 = file.sha256)
        AND NOT EXISTS (SELECT 1 FROM checkpoint_files other WHERE other.sha256 = file.sha256
            AND (other.training <> file.training OR other.epoch < file.epoch))
    ) AS checkpoint_bytes
FROM trainings;
