"""A hand-written PyTorch Llama, the fastest plain form known to us: the peer to beat in train.py and decode.py.

Fused q/k/v and gate/up products, `scaled_dot_product_attention`, and for decoding a static cache whose filled part is
passed as a view. `reference_config` is the reference shape of all speed figures.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from transformers import LlamaConfig

REFERENCE = Path(__file__).with_name("reference.json")
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def reference_config():
    """reference.json: hidden 256, 6 layers, 8 heads of 32, SwiGLU 704, vocabulary 4096, untied."""
    return LlamaConfig.from_json_file(REFERENCE)


def rotate(x, cos, sin):
    """Half-split rotary embedding of [B, H, T, D]."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Layer(nn.Module):
    """One decoder layer; `cache` is (keys, values) of [B, K, T, D], filled up to `start`."""

    def __init__(self, config):
        super().__init__()
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim, self.eps = config.head_dim, config.rms_norm_eps
        inner, hidden = config.intermediate_size, config.hidden_size
        self.attention_norm = nn.Parameter(torch.ones(hidden))
        self.mlp_norm = nn.Parameter(torch.ones(hidden))
        self.qkv = nn.Linear(hidden, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=False)
        self.out = nn.Linear(self.heads * self.head_dim, hidden, bias=False)
        self.gate_up = nn.Linear(hidden, 2 * inner, bias=False)
        self.down = nn.Linear(inner, hidden, bias=False)

    def forward(self, x, cos, sin, cache=None, start=0):
        batch, length, hidden = x.shape
        qkv = self.qkv(F.rms_norm(x, (hidden,), self.attention_norm.to(x.dtype), self.eps))
        qkv = qkv.view(batch, length, -1, self.head_dim).transpose(1, 2)
        q, k, v = qkv.split((self.heads, self.kv_heads, self.kv_heads), 1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is not None:
            cache[0][:, :, start : start + length] = k
            cache[1][:, :, start : start + length] = v
            k, v = (c[:, :, : start + length] for c in cache)
        grouped = self.heads != self.kv_heads
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=length > 1, enable_gqa=grouped)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, -1))
        gate, up = self.gate_up(F.rms_norm(x, (hidden,), self.mlp_norm.to(x.dtype), self.eps)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Decoder(nn.Module):
    """The whole model: token ids [B, T] to logits [B, T, V], or of the last position alone."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.Parameter(torch.ones(config.hidden_size))
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=config.initializer_range)
        theta = config.rope_parameters["rope_theta"]
        steps = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
        angles = torch.outer(torch.arange(config.max_position_embeddings, dtype=torch.float64), theta**-steps)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def cache(self, batch, length):
        """An empty static cache for every layer."""
        c, dtype = self.config, self.head.weight.dtype
        shape = (batch, c.num_key_value_heads, length, c.head_dim)
        return [(torch.empty(shape, dtype=dtype), torch.empty(shape, dtype=dtype)) for _ in self.layers]

    def forward(self, tokens, cache=None, start=0, last_only=False):
        x = self.embedding(tokens)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        cos, sin = (t[start : start + tokens.shape[1]].to(dtype) for t in (self.cos, self.sin))
        for index, layer in enumerate(self.layers):
            x = layer(x, cos, sin, None if cache is None else cache[index], start)
        x = x[:, -1:] if last_only else x
        return self.head(F.rms_norm(x, (x.shape[-1],), self.norm.to(x.dtype), self.config.rms_norm_eps))
