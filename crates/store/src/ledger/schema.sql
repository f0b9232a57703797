-- The ledger of one run, format 3. Every table that a resumed run may have to cut back has an `id` that only grows; a
-- checkpoint records the largest one. `withdrawals`, `inputs` and `openings` are never cut back.
CREATE TABLE stages (id INTEGER PRIMARY KEY, stage TEXT NOT NULL UNIQUE, stage_index INTEGER NOT NULL, kind TEXT NOT NULL,
    model TEXT NOT NULL, accuracy REAL, low REAL, high REAL, n INTEGER NOT NULL, labels INTEGER NOT NULL,
    answers_read INTEGER NOT NULL, rollouts INTEGER NOT NULL, teacher_tokens INTEGER NOT NULL, train_tokens INTEGER NOT NULL,
    flops REAL NOT NULL, seconds REAL NOT NULL, cost REAL, digest TEXT, extra TEXT NOT NULL);
CREATE TABLE baselines (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, accuracy REAL NOT NULL, low REAL NOT NULL,
    high REAL NOT NULL, n INTEGER NOT NULL, labels INTEGER NOT NULL, answers_read INTEGER NOT NULL, seconds REAL NOT NULL,
    extra TEXT NOT NULL);
CREATE TABLE labels (id INTEGER PRIMARY KEY, record_id TEXT NOT NULL, stage TEXT NOT NULL, kind TEXT NOT NULL,
    UNIQUE (record_id, stage, kind));
CREATE TABLE answers_read (id INTEGER PRIMARY KEY, case_id TEXT NOT NULL, stage TEXT NOT NULL, UNIQUE (case_id, stage));
CREATE TABLE record_uses (id INTEGER PRIMARY KEY, record_id TEXT NOT NULL, stage TEXT NOT NULL, role TEXT NOT NULL,
    UNIQUE (record_id, stage, role));
CREATE TABLE lineage (id INTEGER PRIMARY KEY, digest TEXT NOT NULL, stage TEXT NOT NULL, parent TEXT,
    UNIQUE (digest, stage, parent));
CREATE TABLE notices (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, stage TEXT, text TEXT NOT NULL,
    count INTEGER NOT NULL);
CREATE TABLE rollout_files (id INTEGER PRIMARY KEY, stage TEXT NOT NULL, step INTEGER NOT NULL, rows INTEGER NOT NULL,
    blake3 TEXT NOT NULL, UNIQUE (stage, step));
CREATE TABLE exported_files (id INTEGER PRIMARY KEY, stage TEXT NOT NULL, name TEXT NOT NULL, blake3 TEXT NOT NULL,
    UNIQUE (stage, name));
CREATE TABLE inputs (path TEXT PRIMARY KEY, blake3 TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE withdrawals (record_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE openings (id INTEGER PRIMARY KEY, unix_seconds INTEGER NOT NULL, checkpoint TEXT,
    notices TEXT NOT NULL);
PRAGMA user_version = 3;
