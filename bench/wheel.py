"""Turns the wheel on real weights and real questions, with a scripted expert who knows the labels.

    python3 bench/wheel.py target/release/ferule MODEL_FOLDER rows.csv|rows.jsonl [--questions 150 300 600 1200] [--test 300] [--draw 1]

The rows have `text` and `label` (or `category`); or they are what `ferule data extract judgment` wrote: then a question is the first
`--characters` of a judgment's facts, and the answer its charge. Each turn asks its number of new `--questions` through the server, lets the expert
judge them over HTTP, and runs `ferule flywheel turn`. Then `--test` rows that are never kept measure the model in service. One JSON line a turn:
the gate's decision and its comparison; and one for the accuracy on the test rows with its Wilson interval.
"""

import argparse
import csv
import itertools
import json
import math
import os
import random
import subprocess
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

TURN = """
dtype = "bf16"
[flywheel]
planned_looks = {turns}
replay = 4.0
[eval]
max_new_tokens = 24
[[stages]]
kind = "sft"
epochs = {epochs}
demonstrations_per_step = 8
learning_rate = {rate}
warmup_steps = 4
tokens_per_micro_batch = 2048
"""

parser = argparse.ArgumentParser()
parser.add_argument("binary")
parser.add_argument("model")
parser.add_argument("rows")
parser.add_argument("--questions", type=int, nargs="+", default=[150, 300, 600, 1200])
for name, default in [("test", 300), ("draw", 1), ("epochs", 4), ("characters", 160)]:
    parser.add_argument(f"--{name}", type=int, default=default)
parser.add_argument("--rate", default="2e-4")
a = parser.parse_args()
a.binary, a.model = os.path.abspath(a.binary), os.path.abspath(a.model)

with open(a.rows, encoding="utf-8") as file:
    rows = list(csv.DictReader(file)) if a.rows.endswith(".csv") else [json.loads(line) for line in file]


def of(row):
    if "case" not in row and "status" not in row:
        return row["text"], row.get("label") or row["category"]
    case = row.get("case")
    return (case["fact"][: a.characters], case["charges"][0]) if case and len(case["charges"]) == 1 else None


rows = [pair for pair in map(of, rows) if pair]
rows = list(dict(rows).items())
random.Random(a.draw).shuffle(rows)
test, rows = rows[: a.test], rows[a.test :]
right = dict(rows)


def call(path, body, headers={}):
    request = urllib.request.Request(address + path, json.dumps(body).encode() if body is not None else None, {"content-type": "application/json", **headers})
    with urllib.request.urlopen(request) as response:
        return json.load(response), response.headers


def ask(text, store):
    body = {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 24, "store": store}
    return call("/v1/chat/completions", body)[0]["choices"][0]["message"]["content"].strip()


def wilson(k, n, z=1.959964):
    p = k / n
    middle, half = (p + z * z / 2 / n) / (1 + z * z / n), z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    return [round(middle - half, 4), round(middle + half, 4)]


def ask_all(texts, store):
    """The answers of sixteen clients at once."""
    with ThreadPoolExecutor(16) as clients:
        return list(clients.map(lambda text: ask(text, store), texts))


def measure(turn, decision):
    began = time.time()
    k = sum(answer == label for answer, (_, label) in zip(ask_all([text for text, _ in test], False), test))
    print(json.dumps({"draw": a.draw, "turn": turn, "decision": decision, "seconds": round(time.time() - began), "accuracy": round(k / len(test), 4), "interval": wilson(k, len(test)), "n": len(test)}), flush=True)


with tempfile.TemporaryDirectory() as folder:
    open(f"{folder}/turn.toml", "w").write(TURN.format(turns=len(a.questions), epochs=a.epochs, rate=a.rate))
    environment = dict(os.environ)
    token = subprocess.run([a.binary, "person", "add", "expert"], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
    environment["FERULE_TOKEN"] = token
    server = subprocess.Popen([a.binary, "serve", a.model, "--collect", "--port", "0"], cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().strip()
        measure(0, None)
        session, headers = call("/review/login", {"token": token})
        signed = {"cookie": headers["set-cookie"].split(";")[0], "x-ferule-csrf": session["csrf"]}
        fresh = iter(rows)
        for turn, questions in enumerate(a.questions, 1):
            began = time.time()
            ask_all([text for text, _ in itertools.islice(fresh, questions)], True)
            while items := call("/review/next", None, signed)[0]["items"]:
                item = items[0]
                label = right[item["messages"][0]["content"]]
                verdict = {"item": item["item"], "decision": "accept", "seconds": 3}
                if item["completion"].strip() != label:
                    verdict |= {"decision": "correct", "correction": label}
                call("/review/verdict", verdict, signed)
            done = subprocess.run([a.binary, "flywheel", "turn", "turn.toml", "--json", "--quiet"], cwd=folder, env=environment, capture_output=True, text=True)
            if done.returncode != 0:
                raise SystemExit(done.stderr)
            decided = json.loads(done.stdout)
            while decided["decision"] == "promoted" and call("/v1/models", None)[0]["data"][0]["digest"] != decided["candidate"]:
                pass
            print(json.dumps({"draw": a.draw, "turn": turn, "seconds": round(time.time() - began), **decided["comparison"]}), flush=True)
            measure(turn, decided["decision"])
    finally:
        server.terminate()
        server.wait()
