-- From format 1 to format 2: a stage's `recipe` is called `kind`, a cost that nobody asked for is null where it was 0, and the
-- table of verdicts, into which nothing was ever written, goes. Row ids stay, because checkpoints speak of them.
ALTER TABLE stages RENAME TO stages_1;
CREATE TABLE stages (id INTEGER PRIMARY KEY, stage TEXT NOT NULL UNIQUE, stage_index INTEGER NOT NULL, kind TEXT NOT NULL,
    model TEXT NOT NULL, accuracy REAL, low REAL, high REAL, n INTEGER NOT NULL, labels INTEGER NOT NULL,
    answers_read INTEGER NOT NULL, rollouts INTEGER NOT NULL, teacher_tokens INTEGER NOT NULL, train_tokens INTEGER NOT NULL,
    flops REAL NOT NULL, seconds REAL NOT NULL, cost REAL, digest TEXT, extra TEXT NOT NULL);
INSERT INTO stages SELECT id, stage, stage_index, recipe, model, accuracy, low, high, n, labels, answers_read, rollouts,
    teacher_tokens, train_tokens, flops, seconds, nullif(cost, 0), digest, extra FROM stages_1;
DROP TABLE stages_1;
DROP TABLE verdicts;
PRAGMA user_version = 2;
