-- The ledger of a data folder, format 3. Times are milliseconds since 1970 UTC. Digests and ids are hexadecimal.
CREATE TABLE documents (id TEXT PRIMARY KEY, source TEXT NOT NULL, digest TEXT NOT NULL, added_ms INTEGER NOT NULL);
CREATE TABLE found_labels (item TEXT PRIMARY KEY, document TEXT REFERENCES documents (id), prompt TEXT NOT NULL,
    answer TEXT NOT NULL, added_ms INTEGER NOT NULL);
-- A completion that was served. `item` is the id of what was asked: equal prompts are one item.
CREATE TABLE requests (id TEXT PRIMARY KEY, item TEXT NOT NULL, at_ms INTEGER NOT NULL, api_key TEXT, user TEXT,
    model TEXT NOT NULL, messages TEXT NOT NULL, completion TEXT NOT NULL, finish TEXT NOT NULL, latency_ms INTEGER NOT NULL,
    confidence REAL, abstain INTEGER);
CREATE INDEX requests_of_user ON requests (user);
CREATE INDEX requests_of_item ON requests (item);
CREATE TABLE feedback (request TEXT PRIMARY KEY REFERENCES requests (id), at_ms INTEGER NOT NULL, thumb TEXT, correction TEXT,
    reason TEXT);
-- What a person may look at: the first completion of each item. `gate` items are never trained on.
CREATE TABLE review_items (item TEXT PRIMARY KEY, request TEXT NOT NULL REFERENCES requests (id), gate INTEGER NOT NULL,
    added_ms INTEGER NOT NULL);
CREATE TABLE people (name TEXT PRIMARY KEY, token_hash TEXT NOT NULL, added_ms INTEGER NOT NULL, revoked_ms INTEGER);
CREATE TABLE verdicts (id INTEGER PRIMARY KEY AUTOINCREMENT, item TEXT NOT NULL, request TEXT NOT NULL, reviewer TEXT NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('accept', 'correct', 'reject', 'skip')), correction TEXT, seconds REAL NOT NULL,
    at_ms INTEGER NOT NULL, revoked_ms INTEGER);
CREATE INDEX verdicts_of_item ON verdicts (item);
CREATE TABLE models (id TEXT PRIMARY KEY, path TEXT NOT NULL, turn INTEGER, added_ms INTEGER NOT NULL, flag TEXT);
-- The last row is the model in service.
CREATE TABLE service (id INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL REFERENCES models (id), person TEXT NOT NULL,
    reason TEXT NOT NULL, at_ms INTEGER NOT NULL);
CREATE TABLE turns (id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, recipe TEXT NOT NULL, incumbent TEXT NOT NULL,
    candidate TEXT, look INTEGER NOT NULL, outcome TEXT, decision TEXT);
-- What a turn learned from and was judged on.
CREATE TABLE turn_records (turn INTEGER NOT NULL REFERENCES turns (id), item TEXT NOT NULL, role TEXT NOT NULL, verdict INTEGER,
    PRIMARY KEY (turn, item, role)) WITHOUT ROWID;
-- A record that was forgotten, as a keyed hash: it is recognised when it comes again, and tells nobody what it was.
CREATE TABLE tombstones (mark TEXT PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID;
-- A row says that something was forgotten whose old pages may still stand in the write-ahead log.
CREATE TABLE erasures_due (id INTEGER PRIMARY KEY AUTOINCREMENT, since_ms INTEGER NOT NULL);
CREATE TABLE audit (sequence INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, person TEXT NOT NULL, action TEXT NOT NULL,
    subject TEXT NOT NULL, detail TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL);
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT raise(ABORT, 'the audit is only added to'); END;
CREATE TRIGGER audit_is_not_cut BEFORE DELETE ON audit BEGIN SELECT raise(ABORT, 'the audit is only added to'); END;
-- The newest line of the audit, a second time: `mark` is a hash of both columns under the folder's key.
CREATE TABLE audit_head (id INTEGER PRIMARY KEY CHECK (id = 1), sequence INTEGER NOT NULL, hash TEXT NOT NULL, mark TEXT NOT NULL);
PRAGMA user_version = 3;
