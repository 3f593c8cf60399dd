-- A request id belongs to the identity that sent it, empty without authentication, so that a client neither collides with another one nor
-- receives its training. The ids so far belong to no identity.
CREATE TABLE owned_request_ids (
    owner TEXT NOT NULL,
    id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    training INTEGER NOT NULL REFERENCES trainings (number) ON DELETE CASCADE,
    create_time INTEGER NOT NULL,
    PRIMARY KEY (owner, id)
) STRICT;
INSERT INTO owned_request_ids (owner, id, fingerprint, training, create_time)
SELECT '', id, fingerprint, training, create_time FROM request_ids;
DROP TABLE request_ids;
ALTER TABLE owned_request_ids RENAME TO request_ids;
CREATE INDEX request_ids_by_training ON request_ids (training);
CREATE INDEX request_ids_by_time ON request_ids (create_time);
