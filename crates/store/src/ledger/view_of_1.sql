-- A ledger of format 1 that can only be read: its stages appear as format 2 has them. A temporary view hides the table.
CREATE TEMP VIEW stages AS SELECT id, stage, stage_index, recipe AS kind, model, accuracy, low, high, n, labels, answers_read,
    rollouts, teacher_tokens, train_tokens, flops, seconds, nullif(cost, 0) AS cost, digest, extra FROM main.stages;
