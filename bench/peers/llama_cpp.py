"""llama.cpp's greedy decoding of a GGUF, through xllamacpp: new tokens a second, as JSON, one line a measurement.

    python llama_cpp.py MODEL.gguf [MODEL.gguf ...] [--batch 1 16] [--prompt 32] [--new 128] [--threads 2]

`tokens_per_s` counts the new tokens of all sequences over the wall time of the whole batch, prefill included;
`decode_tokens_per_s` (batch 1) is llama.cpp's own figure for the tokens after the prefill.
"""

import argparse
import json
import resource
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import xllamacpp


def server(path, batch, context, threads):
    """An in-process server with one slot a sequence."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_parallel = batch
    parameters.n_ctx = batch * context
    parameters.cpuparams.n_threads = threads
    parameters.cpuparams_batch.n_threads = threads
    parameters.verbosity = 0
    return xllamacpp.Server(parameters)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    for path in arguments.models:
        for batch in arguments.batch:
            engine = server(path, batch, arguments.prompt + arguments.new + 32, arguments.threads)

            def complete(sequence):
                # Every sequence has a prompt of its own, so that no cached prefix shortens the work.
                prompt = [1000 + (37 * sequence + 11 * i) % 20000 for i in range(arguments.prompt)]
                answer = engine.handle_completions(
                    {
                        "prompt": prompt,
                        "max_tokens": arguments.new,
                        "temperature": 0,
                        "ignore_eos": True,
                        "cache_prompt": False,
                        "timings_per_token": True,
                    }
                )
                if answer["usage"]["completion_tokens"] != arguments.new:
                    raise SystemExit(f"llama.cpp stopped early: {answer['usage']}")
                return answer["timings"]["predicted_per_second"]

            seconds, decoding = [], []
            with ThreadPoolExecutor(batch) as pool:
                for _ in range(arguments.repeats + 1):
                    began = time.perf_counter()
                    decoding.append(list(pool.map(complete, range(batch))))
                    seconds.append(time.perf_counter() - began)
            row = {
                "peer": f"llama.cpp (xllamacpp {xllamacpp.__version__})",
                "model": path.name,
                "batch": batch,
                "prompt": arguments.prompt,
                "new": arguments.new,
                "threads": arguments.threads,
                "tokens_per_s": batch * arguments.new / statistics.median(seconds[1:]),
            }
            if batch == 1:
                row["decode_tokens_per_s"] = statistics.median(run[0] for run in decoding[1:])
            row["peak_bytes_so_far"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            row["system"] = xllamacpp.get_system_info().strip()
            print(json.dumps(row), flush=True)
            del engine


if __name__ == "__main__":
    main()
