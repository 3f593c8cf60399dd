-- Datasets with a name; `message` is a visage.v1.Dataset. State numbers are those of visage.v1.DatasetState.
CREATE TABLE datasets (
    -- Order of acceptance; never given twice, so that it tells a dataset from a later one of the same id.
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state INTEGER NOT NULL,
    -- The upload that it was made of; null for a registered one. An upload makes one dataset.
    upload TEXT UNIQUE,
    message BLOB NOT NULL
) STRICT;
CREATE INDEX datasets_by_state ON datasets (state, number);
