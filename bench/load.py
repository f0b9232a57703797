"""Streaming clients against `ferule serve`: errors, tokens a second beside `ferule bench`'s decode, and the server's memory.

    python bench/load.py [BINARY] [--clients 32] [--minutes 3] [--new 128] [--dtype bf16]

Makes the reference shape (hidden 256, 6 layers, 8 heads of 32, SwiGLU 704, vocabulary 4,096, untied) by a recipe of a tokenizer and one
step of pretraining, so that the weights are near random ones and answers as long as asked for. Each client asks again as soon as its
answer has come. A first round of clients warms the server up and is not counted. Prints one JSON line; exit code 1 when an error other than
429 came, when tokens/s are below 70 % of `ferule bench` decode at the same number of sequences, or when memory grew by over a tenth.
"""

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time

# Seconds that are not counted.
WARM_UP = 10

RECIPE = """
dtype = "{dtype}"
seed = 1
[task]
name = "idiom_chain"
[models.policy]
hidden_size = 256
intermediate_size = 704
num_hidden_layers = 6
num_attention_heads = 8
num_key_value_heads = 8
tie_word_embeddings = false
max_position_embeddings = 512
[[stages]]
kind = "tokenizer"
vocab_size = 4096
documents = 4000
[[stages]]
kind = "pretrain"
model = "policy"
tokens = 4096
tokens_per_step = 2048
learning_rate = 1e-5
"""

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("binary", nargs="?", default="target/release/ferule")
for name, default in [("clients", 32), ("minutes", 3.0), ("new", 128)]:
    parser.add_argument(f"--{name}", type=type(default), default=default)
parser.add_argument("--dtype", default="bf16")
arguments = parser.parse_args()
binary = os.path.abspath(arguments.binary)


def resident(process):
    """Resident memory in MiB."""
    with open(f"/proc/{process}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


async def ask(address, draw):
    """One streamed answer: status and tokens. The stream is read in blocks, so that the client costs the server's cores little."""
    words = " ".join(str(draw.randrange(10)) for _ in range(16))
    body = {"messages": [{"role": "user", "content": words}], "max_tokens": arguments.new, "temperature": 1.0}
    body |= {"seed": draw.randrange(1 << 30), "stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(*address.rsplit(":", 1))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = b"".join([block async for block in blocks(reader)])
    writer.close()
    status = int(answer.split(b" ", 2)[1]) if answer else 0
    if status != 200:
        return status, 0
    told = re.search(rb'"completion_tokens":(\d+)', answer)
    return (200, int(told[1])) if told and b"data: [DONE]" in answer else (0, 0)


async def blocks(reader):
    """What comes, until the end."""
    while block := await reader.read(1 << 16):
        yield block


def main():
    """Bench, load, bench again, and compare."""
    with tempfile.TemporaryDirectory() as folder:
        open(f"{folder}/recipe.toml", "w").write(RECIPE.format(dtype=arguments.dtype))
        subprocess.run([binary, "run", "recipe.toml", "--quiet", "--name", "shape"], cwd=folder, check=True, stdout=subprocess.DEVNULL)

        def decode():
            command = [binary, "bench", "--only", "decode", "--json", "--dtype", arguments.dtype, "--batch", str(arguments.clients), "--new", str(arguments.new)]
            done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
            return json.loads(done.stdout)["decode"][0]["tokens_per_s"]

        before = decode()
        server = subprocess.Popen([binary, "serve", "shape", "--port", "0", "--dtype", arguments.dtype], cwd=folder, stdout=subprocess.PIPE, text=True)
        address = server.stdout.readline().strip().removeprefix("http://")
        statuses, tokens, memory = {}, [], []

        async def client(number, end):
            draw = random.Random(number)
            while time.monotonic() < end:
                status, made = await ask(address, draw)
                statuses[status] = statuses.get(status, 0) + 1
                tokens.append((time.monotonic(), made))

        async def watch(end):
            while time.monotonic() < end:
                memory.append(resident(server.pid))
                await asyncio.sleep(1)

        async def load():
            began = time.monotonic()
            end = began + WARM_UP + arguments.minutes * 60
            await asyncio.gather(*(client(number, end) for number in range(arguments.clients)), watch(end))
            return began + WARM_UP, end

        began, ended = asyncio.run(load())
        memory = memory[WARM_UP:]
        server.terminate()
        code = server.wait()
        after = decode()
    made = sum(count for at, count in tokens if began <= at < ended) / (ended - began)
    bench = statistics.mean([before, after])
    grown = statistics.mean(memory[-10:]) / statistics.mean(memory[:10])
    errors = sum(count for status, count in statuses.items() if status not in (200, 429))
    print(json.dumps({"clients": arguments.clients, "dtype": arguments.dtype, "statuses": statuses, "tokens_per_second": round(made), "bench": round(bench), "share": round(made / bench, 3),
                      "memory_mib": [round(memory[0]), round(max(memory)), round(memory[-1])], "ended": code}))
    sys.exit(errors > 0 or made < 0.7 * bench or grown > 1.1 or code != 0)


main()
