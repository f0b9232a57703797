"""Compare what Ferule reads from a model's files with what transformers, gguf and llama.cpp read from them.

    cargo build --release -p lm --example formats
    python formats.py MODEL … --ours target/release/examples/formats [--text FILE …] [--train SIZE] [--llama-cpp]

A MODEL is a Hugging Face folder (a tokenizer alone will do) or a GGUF file. Of each are compared: the token ids of the
given texts (`.jsonl` files give every string in them, others one text a file), the chat template over conversations
with tools, system prompts and thinking, and, of GGUF files, every dequantised weight bit for bit. With --llama-cpp
a GGUF file's tokenizer is compared with llama.cpp's (package xllamacpp) instead of transformers'. With --train a
tokenizer is trained on the texts and what it saved is compared too. Exit code 1 on any difference.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ODD = ["", " ", "\n\n\n", "a  b\t\tc \r\n d", "１２３ ＡＢＣ café e\u0301 ﬁ \u212b 𝄞👩‍👩‍👧‍👦 <|im_end|> </s> <think>x</think> ▁a <0x41>",
       "\u00a0\u3000\u200b\u2028", "don't I'LL we've", "'S 'ſ K"]
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "查询天气 <now> & \"quoted\"", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1.5}}}}},
    {"type": "function", "function": {"name": "noop", "parameters": {"type": "object", "properties": {}}}},
]


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def call(arguments):
    return {"type": "function", "function": {"name": "get_weather", "arguments": arguments}}


CONVERSATIONS = [
    [user("你好，世界")],
    [{"role": "system", "content": "You are terse."}, user(" hi \n")],
    [user("1+1?"), assistant("2"), user("再来")],
    [user("x"), assistant("<think>\n想一想\n</think>\n\n答案是 3"), user("为什么")],
    [user("x"), assistant("<think>\n\n</think>\n\nfin")],
    [user("x"), assistant("y", reasoning_content="因为\n")],
    [user("天气"), assistant("", tool_calls=[call({"city": "北京", "days": 2})]), {"role": "tool", "content": "晴 25°C"}],
    [user("天气"), assistant("先", tool_calls=[call('{"city": "a"}'), call({"city": "b"})]),
     {"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}, user("谢谢")],
    [user("<tool_response>\nq\n</tool_response>"), assistant("b")],
    [user("a"), user("b"), {"role": "system", "content": "late"}, user("c")],
    [user("\u2028 tab\t {{ x }} {% raw %}")],
    [],
]
VARIABLES = [{"date_string": "26 Jul 2024"}, {"date_string": "26 Jul 2024", "enable_thinking": False}]
CHATS = [
    {"messages": messages, "tools": tools, "add_generation_prompt": prompt, "variables": variables}
    for messages in CONVERSATIONS for tools in (None, TOOLS) for prompt in (False, True) for variables in VARIABLES
]

# Names of a GGUF file's tensors and Hugging Face's.
NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head", "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def read_texts(files):
    texts = list(ODD)
    for file in files:
        with open(file, encoding="utf-8", newline="") as lines:
            if file.suffix == ".jsonl":
                texts += [text for line in lines for text in strings(json.loads(line))]
            else:
                texts.append(lines.read())
    return texts


def ours(program, *arguments, lines=()):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    run = subprocess.run([program, *map(str, arguments)], input=text, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in run.stdout.split("\n") if line], run.stderr.strip()


def load_tokenizer(model):
    from transformers import AutoTokenizer

    if model.is_dir():
        return AutoTokenizer.from_pretrained(model)
    return AutoTokenizer.from_pretrained(model.parent, gguf_file=model.name)


def compare(name, what, theirs, mine, note=""):
    differ = [i for i, (a, b) in enumerate(zip(theirs, mine, strict=True)) if a != b]
    print(f"{name}: {what}: {len(theirs) - len(differ)} of {len(theirs)} equal {note}", flush=True)
    for i in differ[:3]:
        print(f"    {i}: theirs {str(theirs[i])[:200]!r}\n    {i}: ours   {str(mine[i])[:200]!r}")
    return not differ


def compare_ids(arguments, model, texts):
    mine, time_ours = ours(arguments.ours, "encode", model, lines=texts)
    size = sum(len(text.encode()) for text in texts) / 1e6
    if arguments.llama_cpp and model.is_file():
        tokenize = llama_cpp(model)
        few = range(0, len(texts), max(1, len(texts) // 200))
        theirs = [tokenize(texts[i]) for i in few]
        return compare(model, "token ids (llama.cpp)", theirs, [mine[i] for i in few])
    tokenizer = load_tokenizer(model)
    start = time.perf_counter()
    theirs = [list(tokenizer(text).input_ids) for text in texts]
    note = f"({size:.1f} MB; transformers {time.perf_counter() - start:.2f} s, ours {time_ours})"
    return compare(model, "token ids", theirs, mine, note)


def llama_cpp(model):
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.n_ctx, parameters.port = str(model), 512, 8791
    server = xllamacpp.Server(parameters)

    def tokenize(text):
        body = json.dumps({"content": text, "add_special": True, "parse_special": True}).encode()
        request = urllib.request.Request(server.listening_address + "/tokenize", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["tokens"]

    return tokenize


def compare_templates(arguments, model):
    tokenizer = load_tokenizer(model)
    if not tokenizer.chat_template:
        return True
    mine, _ = ours(arguments.ours, "render", model, lines=CHATS)
    theirs = []
    for chat in CHATS:
        try:
            text = tokenizer.apply_chat_template(
                chat["messages"], tools=chat["tools"], add_generation_prompt=chat["add_generation_prompt"],
                tokenize=False, **chat["variables"])
        except Exception:
            text = None
        theirs.append(text)
    return compare(model, "chat template", theirs, mine, f"({theirs.count(None)} refused by both)")


def compare_weights(arguments, model):
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(model)
    field = lambda key: reader.fields[key].contents()
    architecture = field("general.architecture")
    heads = {"attn_q": field(f"{architecture}.attention.head_count"), "attn_k": field(f"{architecture}.attention.head_count_kv")}
    tensors = {}
    for tensor in reader.tensors:
        parts = tensor.name.split(".")
        if parts[-2] not in NAMES:
            continue
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        values = values.reshape([int(dim) for dim in tensor.shape][::-1])
        if architecture == "llama" and parts[-2] in heads:
            count = heads[parts[-2]]
            paired = values.reshape(count, values.shape[0] // count // 2, 2, *values.shape[1:])
            values = paired.swapaxes(1, 2).reshape(values.shape)
        layer = f"model.layers.{parts[1]}." if parts[0] == "blk" else ""
        tensors[f"{layer}{NAMES[parts[-2]]}.{parts[-1]}"] = values.reshape(-1)
    with tempfile.TemporaryDirectory() as folder:
        ours(arguments.ours, "tensors", model, Path(folder) / "raw")
        raw = np.fromfile(Path(folder) / "raw", dtype="<u4")
    ends = np.cumsum([len(tensors[name]) for name in sorted(tensors)])
    if len(raw) != ends[-1]:
        print(f"{model}: weights: {ends[-1]} values there, {len(raw)} here")
        return False
    kinds = ", ".join(sorted({tensor.tensor_type.name for tensor in reader.tensors}))
    theirs = [tensors[name].view(np.uint32).tobytes() for name in sorted(tensors)]
    mine = [part.tobytes() for part in np.split(raw, ends[:-1])]
    return compare(model, "weights bit for bit", theirs, mine, f"({kinds})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL")
    parser.add_argument("--ours", default="target/release/examples/formats", help="the built example")
    parser.add_argument("--text", nargs="+", type=Path, default=[])
    parser.add_argument("--train", type=int, metavar="SIZE")
    parser.add_argument("--llama-cpp", action="store_true")
    arguments = parser.parse_args()
    texts = read_texts(arguments.text)
    equal = True
    if arguments.train:
        folder = Path(tempfile.mkdtemp())
        _, seconds = ours(arguments.ours, "train", arguments.train, folder, lines=texts)
        print(f"trained {arguments.train} tokens in {seconds}")
        equal &= compare_ids(arguments, folder, texts)
    for model in arguments.models:
        equal &= compare_ids(arguments, model, texts)
        equal &= compare_templates(arguments, model)
        if model.is_file():
            equal &= compare_weights(arguments, model)
    sys.stdout.flush()
    # llama.cpp's server threads do not end by themselves.
    os._exit(0 if equal else 1)


if __name__ == "__main__":
    main()
