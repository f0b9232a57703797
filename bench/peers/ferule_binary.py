"""Running the `ferule` binary from the comparison scripts: JSON lines in, JSON lines out."""

import json
import os
import subprocess
from pathlib import Path


def default():
    """`$FERULE`, or the release build beside these scripts."""
    return os.environ.get("FERULE", str(Path(__file__).resolve().parents[2] / "target" / "release" / "ferule"))


def run(arguments, stdin=None, binary=None):
    """Standard output of one run; its standard error goes to ours. Ends the script when ferule fails."""
    done = subprocess.run([binary or default(), *map(str, arguments)], input=stdin, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"ferule {arguments[0]} ended with exit code {done.returncode}")
    return done.stdout


def json_lines(arguments, rows, binary=None):
    """Feed `rows` as JSON lines and parse the lines that come back, one for each row."""
    text = run(arguments, "".join(json.dumps(row) + "\n" for row in rows), binary)
    answers = [json.loads(line) for line in text.splitlines() if line.strip()]
    if len(answers) != len(rows):
        raise SystemExit(f"ferule {arguments[0]}: {len(rows)} lines in, {len(answers)} lines out")
    return answers
