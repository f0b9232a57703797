"""Compares `ferule data extract judgment` with labels that were made by hand and rule.

    python3 bench/extract.py target/release/ferule judgments.jsonl judgments_labels.jsonl

Prints the share of documents that are accepted, and on those how often charges, term, suspension, fine and articles equal the labels; on documents that hold no sentence
how often one is found; and the speed. One document in four, by the hash of its id, is the part on which no rule was tried.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import time

binary, documents, labels = sys.argv[1:4]
show = len(sys.argv) > 4
with tempfile.TemporaryDirectory() as folder:
    out = f"{folder}/found.jsonl"
    began = time.time()
    counts = json.loads(subprocess.run([binary, "data", "extract", "judgment", documents, out, "--json"], check=True, capture_output=True).stdout)
    wall = time.time() - began
    found = [json.loads(line) for line in open(out, encoding="utf-8")]
texts = [json.loads(line) for line in open(documents, encoding="utf-8")]
truth = [json.loads(line) for line in open(labels, encoding="utf-8")]
assert [f["id"] for f in found] == [t["id"] for t in truth] == [t["id"] for t in texts]


def part(document):
    return "held out" if int(hashlib.sha256(document["id"].encode()).hexdigest(), 16) % 4 == 0 else "tried"


for name in ["tried", "held out"]:
    rows = [(f, t, x) for f, t, x in zip(found, truth, texts) if part(t) == name]
    accepted = [(f, t, x) for f, t, x in rows if f["status"] == "full"]
    single = [t for _, t, x in rows if x["instance"] == "first" and t["status"] == "full" and len(t["defendants"]) == 1]
    judged = [(f, t, x) for f, t, x in accepted if t["status"] == "full" and len(t["defendants"]) == 1]
    right = dict.fromkeys(["charges", "term", "both", "probation", "fine", "name", "articles"], 0)
    for f, t, x in judged:
        a, b = f["defendants"][0], t["defendants"][0]
        same = {
            "charges": sorted(c["charge"] for c in a["charges"]) == sorted(c["charge"] for c in b["charges"]),
            "term": (a["kind"], a["months"]) == (b["kind"], b["months"]),
            "probation": a["probation_months"] == b["probation_months"],
            "fine": a["fine"] == b["fine"],
            "name": a["name"] == b["name"],
            "articles": f["articles"] == t["articles"],
        }
        same["both"] = same["charges"] and same["term"]
        for key, value in same.items():
            right[key] += value
        if show and name == "tried" and not (same["both"] and same["probation"]):
            at = x["text"].rfind("如下")
            print(json.dumps([t["id"], a, b], ensure_ascii=False), x["text"][at : at + 260].replace("\n", " "))
    other = [t["id"] for f, t, x in accepted if not (t["status"] == "full" and len(t["defendants"]) == 1)]
    without = [f for f, t, x in rows if t["status"] == "none" and t.get("why") in ("no criminal verdict", "no sentence", "no verdict by nature")]
    print(f"{name}: {len(rows)} documents, {len(accepted)} accepted; {len(judged)} of {len(single)} of one defendant in first instance;",
          f"{len(other)} accepted that the labels do not hold as one full defendant {other[:8] if show else ''}")
    print("   ", ", ".join(f"{key} {100 * value / max(1, len(judged)):.2f} %" for key, value in right.items()))
none = [(f, t) for f, t in zip(found, truth) if t["status"] == "none"]
reasons = {}
for f, t in none:
    kind = reasons.setdefault(str(t.get("why")), [0, 0])
    kind[0] += 1
    kind[1] += f["status"] == "full"
print("documents whose label is none, by reason: [documents, accepted]", json.dumps(reasons, ensure_ascii=False))
if show:
    lost = {}
    for f, t, x in zip(found, truth, texts):
        if x["instance"] == "first" and t["status"] == "full" and len(t["defendants"]) == 1 and f["status"] != "full":
            lost.setdefault(f["why"], []).append(t["id"])
    for why, ids in sorted(lost.items(), key=lambda item: -len(item[1])):
        print(len(ids), why, ids[:6])
print(f"{counts['bytes'] / 1e6:.1f} MB in {counts['seconds']:.2f} s, {counts['bytes'] / 1e6 / counts['seconds']:.0f} MB/s on one core; the process {wall:.2f} s")
