"""Ferule and its peers alternately in one run, medians over the rounds, and their ratios as a Markdown table.

    python run.py [--rounds 3] [--only train decode llama grpo] [--ferule BIN] [--out FILE.json]
    python run.py --only llama --smollm2 FOLDER --gguf F16.gguf BF16.gguf ...
    NODE_LLAMA_CPP=FOLDER python run.py --only llama ...     with llama_cpp.mjs as a second llama.cpp

Every measurement is a process of its own. `1x` is the best peer of those that ran; `floor` is the least that Ferule
promises. A quiet machine is up to you: the load average before each round is recorded with the raw figures.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import ferule_binary

HERE = Path(__file__).resolve().parent
TOPICS = ["train", "decode", "llama", "grpo"]
# Least ratio of speed, and greatest share of memory, by (topic, dtype, batch).
FLOORS = {
    ("train", "f32", None): 1.45,
    ("train", "bf16", None): 1.7,
    ("decode", "f32", 1): 10.0,
    ("decode", "bf16", 1): 10.0,
    ("decode", "f32", 32): 4.0,
    ("decode", "bf16", 32): 5.0,
    ("decode", "f32", 256): 4.0,
    ("decode", "bf16", 256): 4.0,
    ("llama", "f32", 1): 1.0,
    ("llama", "f32", 16): 1.0,
    ("llama", "bf16", 1): 1.0,
    ("llama", "bf16", 16): 1.0,
    ("grpo", "f32", None): 2.5,
    ("grpo", "bf16", None): 4.0,
}
# Steps of a training round, of which every contestant gives the median.
TRAINING_STEPS = 12
MEMORY_CEILINGS = {"train": 1 / 3, "grpo": 1 / 4}


def peer(script, *arguments):
    """The JSON lines that one of these scripts prints; libraries' chatter on stdout is left out."""
    interpreter = "node" if script.endswith(".mjs") else sys.executable
    done = subprocess.run([interpreter, HERE / script, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{script} ended with exit code {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]


class Figures:
    """Speeds and memory by (topic, dtype, batch) and contestant, gathered over the rounds."""

    def __init__(self):
        self.speed = defaultdict(lambda: defaultdict(list))
        self.memory = defaultdict(lambda: defaultdict(list))
        self.load = []

    def add(self, key, contestant, speed, peak_bytes=None):
        self.speed[key][contestant].append(speed)
        if peak_bytes is not None:
            self.memory[key][contestant].append(peak_bytes)

    def table(self):
        """Markdown rows: ours, the best peer's, ratio, floor."""
        lines = ["| what | dtype | batch | ferule | best peer | which | ratio | floor |", "|---|---|---|---|---|---|---|---|"]
        for key in sorted(self.speed, key=str):
            lines.append(self.row(key, self.speed[key], max, FLOORS.get(key), "≥"))
        for key in sorted(self.memory, key=str):
            ceiling = MEMORY_CEILINGS.get(key[0])
            if ceiling:
                lines.append(self.row(key, self.memory[key], min, ceiling, "≤", " bytes"))
        return "\n".join(lines)

    @staticmethod
    def row(key, contestants, best_of, floor, sign, unit=""):
        topic, dtype, batch = key
        middle = {name: statistics.median(values) for name, values in contestants.items()}
        ours = middle.pop("ferule", None)
        which = best_of(middle, key=middle.get) if middle else "–"
        best = middle.get(which)
        ratio = ours / best if ours and best else None
        bound = "–" if floor is None else f"{sign} {floor:.3g}"
        return f"| {topic}{unit} | {dtype} | {batch or '–'} | {show(ours)} | {show(best)} | {which} | {show(ratio)} | {bound} |"


def show(value):
    """Four digits, or a dash for what was not measured."""
    return "–" if value is None else f"{value:.4g}"


def ferule_bench(arguments, *options):
    return json.loads(ferule_binary.run(["bench", *options, "--json"], binary=arguments.ferule))


def add_ferule_decode(figures, topic, bench):
    for row in bench["decode"]:
        figures.add((topic, row["dtype"], row["batch"]), "ferule", row["tokens_per_s"])


def round_of(arguments, figures):
    """One round: Ferule, then each peer, for every topic asked for."""
    shape = ["--shape", HERE / "reference.json"]
    if "train" in arguments.only:
        for row in ferule_bench(arguments, *shape, "--only", "train", "--rounds", str(TRAINING_STEPS))["train"]:
            figures.add(("train", row["dtype"], None), "ferule", row["tokens_per_s"], row["peak_bytes"])
        for model in ("plain", "transformers"):
            for dtype in ("f32", "bf16"):
                (row,) = peer("train.py", "--model", model, "--dtype", dtype, "--steps", TRAINING_STEPS)
                figures.add(("train", dtype, None), f"torch, {model}", row["tokens_per_s"], row["peak_bytes"])
    if "decode" in arguments.only:
        add_ferule_decode(figures, "decode", ferule_bench(arguments, *shape, "--only", "decode"))
        for model in ("plain", "transformers"):
            for row in peer("decode.py", "--model", model):
                figures.add(("decode", row["dtype"], row["batch"]), f"torch, {model}", row["tokens_per_s"])
    if "llama" in arguments.only:
        if not arguments.smollm2 or not arguments.gguf:
            raise SystemExit("the llama topic needs --smollm2 FOLDER and --gguf FILES\nhint: README.md says how to make them")
        add_ferule_decode(figures, "llama", ferule_bench(arguments, "--model", arguments.smollm2, "--batch", "1,16"))
        rows = peer("llama_cpp.py", *arguments.gguf)
        if os.environ.get("NODE_LLAMA_CPP"):
            rows += peer("llama_cpp.mjs", *arguments.gguf)
        for row in rows:
            # f16 has no counterpart among Ferule's dtypes: it is a rival of bf16, which moves as many bytes.
            dtype = "f32" if "f32" in row["model"].lower() else "bf16"
            figures.add(("llama", dtype, row["batch"]), f"{row['peer']}, {row['model']}", row["tokens_per_s"])
    if "grpo" in arguments.only:
        for row in ferule_bench(arguments, "--only", "grpo", *shape)["grpo"]:
            figures.add(("grpo", row["dtype"], None), "ferule", 1 / row["seconds_per_step"], row["peak_bytes"])
        for dtype in ("f32", "bf16"):
            (row,) = peer("grpo.py", "--dtype", dtype)
            figures.add(("grpo", dtype, None), "TRL", 1 / row["seconds_per_step"], row["peak_bytes"])


def processor():
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=TOPICS, default=["train", "decode"])
    parser.add_argument("--ferule")
    parser.add_argument("--smollm2", type=Path)
    parser.add_argument("--gguf", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    figures = Figures()
    for _ in range(arguments.rounds):
        figures.load.append(os.getloadavg()[0])
        round_of(arguments, figures)
    print(f"{processor()}, {os.cpu_count()} cores, {datetime.date.today()}, {arguments.rounds} rounds, load before each {figures.load}\n")
    print("Speeds are tokens a second (grpo: steps a second), medians of the rounds.\n")
    print(figures.table())
    if arguments.out:
        raw = [
            {"topic": key[0], "dtype": key[1], "batch": key[2], "contestant": name, "speed": speeds, "peak_bytes": figures.memory[key].get(name)}
            for key, contestants in figures.speed.items()
            for name, speeds in contestants.items()
        ]
        arguments.out.write_text(json.dumps({"processor": processor(), "load": figures.load, "figures": raw}, indent=1) + "\n")


if __name__ == "__main__":
    main()
