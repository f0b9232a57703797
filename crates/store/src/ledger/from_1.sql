-- From format 1 to format 2. A stage's `recipe` becomes its `kind`. A cost that nobody asked for was 0 and becomes null. The table of
-- verdicts and the step of a notice were never used and are dropped. Row ids stay the same, because checkpoints refer to them.
ALTER TABLE stages RENAME TO stages_1;
CREATE TABLE stages (id INTEGER PRIMARY KEY, stage TEXT NOT NULL UNIQUE, stage_index INTEGER NOT NULL, kind TEXT NOT NULL,
    model TEXT NOT NULL, accuracy REAL, low REAL, high REAL, n INTEGER NOT NULL, labels INTEGER NOT NULL,
    answers_read INTEGER NOT NULL, rollouts INTEGER NOT NULL, teacher_tokens INTEGER NOT NULL, train_tokens INTEGER NOT NULL,
    flops REAL NOT NULL, seconds REAL NOT NULL, cost REAL, digest TEXT, extra TEXT NOT NULL);
INSERT INTO stages SELECT id, stage, stage_index, recipe, model, accuracy, low, high, n, labels, answers_read, rollouts,
    teacher_tokens, train_tokens, flops, seconds, nullif(cost, 0), digest, extra FROM stages_1;
DROP TABLE stages_1;
DROP TABLE verdicts;
ALTER TABLE notices DROP COLUMN step;
PRAGMA user_version = 2;
