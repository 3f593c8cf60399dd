-- Where a live training can go on; `message` is a visage.worker.v1.ResumePoint. The row goes when the training ends.
CREATE TABLE resume_points (
    training INTEGER PRIMARY KEY REFERENCES trainings (number) ON DELETE CASCADE,
    message BLOB NOT NULL
) STRICT;
