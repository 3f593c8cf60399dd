-- Identity of the data directory, which the files beside the database name too, so that a database of another directory, or an older copy, is
-- found before it is used.
CREATE TABLE store_identity (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    id TEXT NOT NULL,
    -- Increased by each start of a server.
    generation INTEGER NOT NULL
) STRICT;
INSERT INTO store_identity (only_row, id, generation) VALUES (1, lower(hex(randomblob(16))), 0);

-- Progress of the verification of all artifacts; times in seconds since the Unix epoch, 0 for none.
CREATE TABLE artifact_check (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    -- Artifacts are verified in the order of their digests; this is the last one.
    position TEXT NOT NULL,
    last_check INTEGER NOT NULL,
    -- End of the last complete pass.
    last_pass INTEGER NOT NULL
) STRICT;
INSERT INTO artifact_check (only_row, position, last_check, last_pass) VALUES (1, '', 0, 0);

CREATE TABLE damaged_artifacts (sha256 TEXT PRIMARY KEY) STRICT;

-- Time of the request, so that old ids can be deleted. The ids so far count from now.
ALTER TABLE request_ids ADD COLUMN create_time INTEGER NOT NULL DEFAULT 0;
UPDATE request_ids SET create_time = unixepoch();
CREATE INDEX request_ids_by_time ON request_ids (create_time);
