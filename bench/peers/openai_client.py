"""The `openai` Python client against `ferule serve`: chat, stream, stop, seed, log-probabilities, errors, cancellation.

    pip install openai
    python openai_client.py MODEL [--ferule BIN] [--upstream FILE.gguf]

Starts the server itself, on a free port. Greedy answers are compared with those of `ferule generate`. With --upstream, the GGUF file is
served by llama.cpp (through xllamacpp), and Ferule stands in front of it. Prints one JSON line a check; exit code 1 if one fails.
"""

import argparse
import json
import subprocess
import sys
import time
import urllib.request

import openai

import ferule_binary

QUESTION = [{"role": "user", "content": "Tell me about the sea."}]
FAILED = []


def check(name, good, **figures):
    """Prints a line, and remembers a failure."""
    print(json.dumps({"check": name, "good": bool(good), **figures}, ensure_ascii=False), flush=True)
    if not good:
        FAILED.append(name)


def start(binary, arguments):
    """A server and its address."""
    server = subprocess.Popen([binary, "serve", "--port", "0", *arguments], stdout=subprocess.PIPE, text=True)
    address = server.stdout.readline().strip()
    if not address:
        sys.exit("the server did not start")
    return server, address


def refused(kind, code, call):
    """Whether a call raises this error with this code."""
    try:
        call()
    except kind as error:
        return error.code == code, str(error)
    return False, "no error"


def figure(address, name):
    """A figure of /metrics."""
    text = urllib.request.urlopen(f"{address}/metrics").read().decode()
    return next(float(line.split(" ")[1]) for line in text.splitlines() if line.startswith(name + " "))


def idle(address, seconds=20):
    """Whether nothing runs or waits before long, and after how many seconds."""
    began = time.time()
    while time.time() - began < seconds:
        if figure(address, "ferule_requests_running") + figure(address, "ferule_requests_waiting") == 0:
            return True, round(time.time() - began, 3)
        time.sleep(0.02)
    return False, seconds


def text_of(stream):
    """The text of a stream."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def common(client, model, name):
    """What holds for a model and for an upstream; returns the greedy answer."""
    ask = lambda **more: client.chat.completions.create(model=model, messages=QUESTION, **{"max_tokens": 40, **more})
    whole = ask(temperature=0)
    greedy = whole.choices[0].message.content
    check(f"{name}: chat", greedy and whole.usage.completion_tokens > 0 and whole.id.startswith("chatcmpl-"), text=greedy)
    streamed = text_of(ask(temperature=0, stream=True))
    check(f"{name}: stream is chat", streamed == greedy)
    stop = greedy[10:14]
    stopped = ask(temperature=0, stop=[stop]).choices[0]
    check(f"{name}: stop", stopped.message.content == greedy[: greedy.index(stop)] and stopped.finish_reason == "stop")
    one, two = (ask(temperature=0.9, seed=5).choices[0].message.content for _ in range(2))
    check(f"{name}: seed", one == two)
    answer = refused(openai.BadRequestError, None, lambda: ask(temperature=9))
    check(f"{name}: error", answer[0], said=answer[1])
    answer = refused(openai.BadRequestError, None, lambda: ask(tools=[{"type": "function", "function": {"name": "f"}}]))
    check(f"{name}: tools are refused", answer[0], said=answer[1])
    return greedy


def of_model(arguments, binary):
    """A model of this process."""
    server, address = start(binary, [arguments.model])
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    model = client.models.list().data[0].id
    greedy = common(client, model, "model")
    command = [binary, "generate", "--model", arguments.model, "--max-new-tokens", "40"]
    line = json.dumps({"messages": QUESTION})
    ours = json.loads(subprocess.run(command, input=line, capture_output=True, text=True, check=True).stdout)["text"]
    check("model: greedy is generate's", ours == greedy)
    seeded = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=40, temperature=0.9, seed=5)
    command += ["--temperature", "0.9", "--seed", "5"]
    ours = json.loads(subprocess.run(command, input=line, capture_output=True, text=True, check=True).stdout)["text"]
    check("model: seeded is generate's", ours == seeded.choices[0].message.content)
    told = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=5, temperature=0, logprobs=True, top_logprobs=3
    ).choices[0].logprobs.content
    best = all(token.logprob == token.top_logprobs[0].logprob for token in told)
    check("model: log-probabilities", told and best and all(len(token.top_logprobs) == 3 for token in told))
    several = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=8, temperature=1, seed=1, n=3)
    check("model: n", [choice.index for choice in several.choices] == [0, 1, 2])
    chunks = list(
        client.chat.completions.create(
            model=model, messages=QUESTION, max_tokens=8, stream=True, stream_options={"include_usage": True}
        )
    )
    check("model: usage of a stream", chunks[-1].usage is not None and not chunks[-1].choices)
    answer = refused(openai.NotFoundError, "model_not_found", lambda: client.chat.completions.create(model="x", messages=QUESTION))
    check("model: unknown model", answer[0], said=answer[1])
    endless = [{"role": "user", "content": "word " * 200_000}]
    answer = refused(
        openai.BadRequestError, "context_length_exceeded", lambda: client.chat.completions.create(model=model, messages=endless)
    )
    check("model: too long", answer[0], said=answer[1])

    # Cancellation: a stream that is closed, and an answer that is given up.
    stream = client.chat.completions.create(model=model, messages=QUESTION, stream=True, temperature=1, seed=1)
    next(iter(stream))
    stream.close()
    gone, seconds = idle(address)
    check("model: a closed stream is cancelled", gone, seconds=seconds)
    try:
        impatient = client.with_options(timeout=0.2)
        for seed in range(8):
            impatient.chat.completions.create(model=model, messages=QUESTION, n=16, temperature=1, seed=seed)
        given_up = False
    except openai.APITimeoutError:
        given_up = True
    gone, seconds = idle(address)
    check("model: an answer that is given up is cancelled", given_up and gone, seconds=seconds)
    server.terminate()
    check("model: ends in order", server.wait(60) == 0)


def of_upstream(arguments, binary):
    """llama.cpp behind Ferule."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = arguments.upstream
    parameters.n_ctx = 2048
    behind = xllamacpp.Server(parameters)
    url = behind.listening_address
    server, address = start(binary, ["--upstream", f"{url}/v1", "--allow-egress", "127.0.0.1"])
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    greedy = common(client, "llama", "upstream")
    direct = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    theirs = direct.chat.completions.create(model="llama", messages=QUESTION, max_tokens=40, temperature=0)
    check("upstream: the same as without Ferule", theirs.choices[0].message.content == greedy)
    stream = client.chat.completions.create(model="llama", messages=QUESTION, stream=True, max_tokens=1000)
    next(iter(stream))
    stream.close()
    began = time.time()
    client.chat.completions.create(model="llama", messages=QUESTION, max_tokens=1)
    check("upstream: a closed stream makes room", time.time() - began < 5, seconds=round(time.time() - began, 3))
    server.terminate()
    check("upstream: ends in order", server.wait(60) == 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--ferule")
    parser.add_argument("--upstream", metavar="FILE.gguf")
    arguments = parser.parse_args()
    binary = arguments.ferule or ferule_binary.default()
    of_model(arguments, binary)
    if arguments.upstream:
        of_upstream(arguments, binary)
    sys.exit(1 if FAILED else 0)


if __name__ == "__main__":
    main()
