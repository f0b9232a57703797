"""Log-probs of transformers and of `ferule score`, side by side.

    python logits.py MODEL [MODEL ...]                 run both, print differences, exit 1 above the tolerance
    python logits.py MODEL --input ROWS.jsonl          on these rows ({"text": ...} or {"tokens": [...]})
    python logits.py MODEL --write OUT.jsonl           only transformers' answers, in the form of `ferule score`
    python logits.py MODEL --scores OUT.jsonl          compare with an existing output of `ferule score`

Without --input the rows are random token lists of awkward lengths, the same on every machine. `relative` is
max |a - b| over max |b|, over all rows. In bf16 the peer computes in bf16 too, and the difference is only reported.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import ferule_binary

TOLERANCE = 1e-4
LENGTHS = [1, 2, 3, 16, 17, 63, 130, 300]


def random_rows(config, seed=5):
    """Token lists that fit the model's context."""
    draw = torch.Generator().manual_seed(seed)
    lengths = [n for n in LENGTHS if n <= config.max_position_embeddings]
    return [{"tokens": torch.randint(config.vocab_size, (n,), generator=draw).tolist()} for n in lengths]


def tokens_of(rows, folder):
    """Token lists of input rows; text is encoded with the tokenizer's own special tokens."""
    words = AutoTokenizer.from_pretrained(folder) if any("text" in row for row in rows) else None
    return [row["tokens"] if "tokens" in row else words(row["text"])["input_ids"] for row in rows]


@torch.no_grad()
def score(model, tokens):
    """`logprobs[t]` of `tokens[t]` given those before it; the first is None."""
    ids = torch.tensor([tokens])
    logprobs = model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
    return [None] + [logprobs[t - 1, tokens[t]].item() for t in range(1, len(tokens))]


def difference(ours, theirs):
    """Greatest absolute difference of two lists of rows, and that over the peer's greatest magnitude."""
    apart, magnitude = 0.0, 0.0
    for a, b in zip(ours, theirs, strict=True):
        if a["tokens"] != b["tokens"]:
            sys.exit(f"token ids differ: {a['tokens'][:12]}... against {b['tokens'][:12]}...")
        for x, y in zip(a["logprobs"], b["logprobs"], strict=True):
            if (x is None) != (y is None):
                sys.exit("a log-prob is null on one side only")
            if x is not None:
                apart, magnitude = max(apart, abs(x - y)), max(magnitude, abs(y))
    return apart, apart / max(magnitude, 1e-30)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--input", type=Path)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--scores", type=Path)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--ferule")
    arguments = parser.parse_args()
    good = True
    for folder in arguments.models:
        config = AutoConfig.from_pretrained(folder)
        rows = [json.loads(line) for line in arguments.input.open()] if arguments.input else random_rows(config)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32 if arguments.dtype == "f32" else torch.bfloat16
        ).eval()
        theirs = [{"tokens": t, "logprobs": score(model, t)} for t in tokens_of(rows, folder)]
        if arguments.write:
            arguments.write.write_text("".join(json.dumps(row) + "\n" for row in theirs))
            continue
        if arguments.scores:
            ours = [json.loads(line) for line in arguments.scores.open()]
        else:
            command = ["score", "--model", folder, "--dtype", arguments.dtype]
            ours = ferule_binary.json_lines(command, rows, arguments.ferule)
        apart, relative = difference(ours, theirs)
        good &= arguments.dtype != "f32" or relative <= TOLERANCE
        print(json.dumps({"model": folder.name, "dtype": arguments.dtype, "max_abs": apart, "relative": relative}))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
