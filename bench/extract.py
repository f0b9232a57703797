#!/usr/bin/env python3
"""Scores `ferule data extract judgment` against labels.

    python3 bench/extract.py target/release/ferule judgments.jsonl judgments_labels.jsonl [--show N] [--part held-out|tuned]

The labels stand line for line beside the documents, with `status`, `defendants`, `articles` and, where a document has no sentence, `why`.
A quarter of the documents, by the hash of their id, is held out: rules are tuned on the other three. Right means: the same set of charges;
the same kind and months of the sentence to be served; the same probation; the same fine; the same articles.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import tempfile

# Documents without a sentence, as the labels word it; others are only too hard for the labels' own rules.
NO_SENTENCE = {"civil", "no sentence in this document", "verdict cut off by the source"}


def held_out(id):
    return int(hashlib.sha256(id.encode()).hexdigest(), 16) % 4 == 0


def charges(row):
    # What stands in brackets (attempted, of a unit) and a final 罪 are no part of a name.
    return sorted(re.sub("（.*?）|罪$", "", c["charge"]) for d in row["defendants"] for c in d["charges"])


def same(found, label):
    one, other = found["defendants"][0], label["defendants"]
    single = len(other) == 1
    other = other[0] if single else {}
    equal = {key: single and one[key] == other[key] for key in ["kind", "months", "probation_months", "fine"]}
    result = {
        "charges": single and charges(found) == charges(label),
        "term": equal["kind"] and equal["months"],
        "probation": equal["probation_months"],
        "fine": equal["fine"],
        "articles": found["articles"] == label["articles"],
    }
    result["charges and term"] = result["charges"] and result["term"]
    return result


def report(name, rows, show):
    accepted = [(f, l) for f, l in rows if f["status"] == "full"]
    none = [f for f, l in rows if l["status"] == "none" and (l["why"] in NO_SENTENCE)]
    false = [f for f in none if f["status"] == "full"]
    known = [(f, l) for f, l in accepted if l["status"] == "full"]
    one = [f for f, l in rows if l["status"] == "full" and len(l["defendants"]) == 1]
    print(f"\n{name}: {len(rows)} documents")
    print(f"  accepted                 {len(accepted)} ({len(accepted) / len(rows):.1%} of all)")
    print(f"  of those labelled full with one defendant, of any instance: {sum(f['status'] == 'full' for f in one)} of {len(one)}")
    print(f"  accepted, labelled in part or not at all: {len(accepted) - len(known)}")
    print(f"  sentences found where there is none: {len(false)} of {len(none)}")
    scores = [(f, l, same(f, l)) for f, l in known]
    for key in ["charges and term", "charges", "term", "probation", "fine", "articles"]:
        right = sum(s[key] for _, _, s in scores)
        print(f"  {key:<18} {right} of {len(scores)} ({right / max(1, len(scores)):.2%})")
    cases = [(f["case"], l["case"]) for f, l in known if "case" in f and "case" in l]
    keys = ["charges", "articles", "months", "life", "death"]
    right = sum(all((sorted(a[k]) == sorted(b[k])) if isinstance(a[k], list) else a[k] == b[k] for k in keys) for a, b in cases)
    print(f"  case               {right} of {len(cases)} that both have; found {sum('case' in f for f, _ in known)}, labelled {sum('case' in l for _, l in known)}")
    for section in ["facts", "reasoning", "verdict"]:
        pairs = [(f["sections"].get(section), l["sections"][section]) for f, l in known if section in l.get("sections", {})]
        right = sum(a is not None and list(a) == b for a, b in pairs)
        print(f"  {section:<18} {right} of {len(pairs)} sections with the same bounds")
    if show:
        wrong = [(f, l, s) for f, l, s in scores if not all(s.values())]
        for found, label, score in wrong[:show]:
            print("\n ", found["id"], ", ".join(k for k, v in score.items() if not v), "checked" if label["checked"] else "")
            print("   found", json.dumps(found["defendants"], ensure_ascii=False), found["articles"])
            print("   label", json.dumps(label["defendants"], ensure_ascii=False), label["articles"])
        for found in false:
            print("\n  false", found["id"], json.dumps(found["defendants"], ensure_ascii=False))
        for found, label in accepted:
            if label["status"] != "full":
                print("\n  label is", label["status"], label["why"], found["id"], json.dumps(found["defendants"], ensure_ascii=False))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ferule")
    parser.add_argument("documents")
    parser.add_argument("labels")
    parser.add_argument("--show", type=int, default=0, help="print so many of the documents that differ")
    parser.add_argument("--part", choices=["tuned", "held-out"], help="only one part")
    parser.add_argument("--rounds", type=int, default=5, help="runs of which the fastest counts")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "found.jsonl")
        seconds = []
        for _ in range(arguments.rounds):
            command = [arguments.ferule, "data", "extract", "judgment", arguments.documents, out, "--json"]
            counts = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            seconds.append(counts["seconds"])
        found = [json.loads(line) for line in open(out, encoding="utf-8")]
    labels = [json.loads(line) for line in open(arguments.labels, encoding="utf-8")]
    rows = list(zip(found, labels, strict=True))
    assert all(f["id"] == l["id"] for f, l in rows), "OUT is not in the order of IN"
    parts = {"tuned": [r for r in rows if not held_out(r[0]["id"])], "held-out": [r for r in rows if held_out(r[0]["id"])]}
    for name, part in parts.items():
        if arguments.part in (None, name):
            report(name, part, arguments.show)
    if arguments.part is None:
        report("all", rows, 0)
        print("\nrefused:")
        for why, count in sorted(counts["why"].items(), key=lambda item: -item[1]):
            print(f"  {count:5} {why}")
    print(f"\n{counts['bytes'] / min(seconds) / 1e6:.1f} MB/s (fastest of {len(seconds)} runs, one core; {counts['bytes']} bytes)")


main()
