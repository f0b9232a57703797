-- From format 2 to format 3, which knows the files of exported models and the files that the run reads. What an older run did not
-- record is not checked.
CREATE TABLE exported_files (id INTEGER PRIMARY KEY, stage TEXT NOT NULL, name TEXT NOT NULL, blake3 TEXT NOT NULL,
    UNIQUE (stage, name));
CREATE TABLE inputs (path TEXT PRIMARY KEY, blake3 TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 3;
