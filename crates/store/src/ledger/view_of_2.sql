-- A ledger before format 3 that can only be read: it knows no files of exported models and no inputs.
CREATE TEMP TABLE exported_files (id INTEGER PRIMARY KEY, stage TEXT, name TEXT, blake3 TEXT);
CREATE TEMP TABLE inputs (path TEXT, blake3 TEXT);
