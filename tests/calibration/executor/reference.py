"""A decoder as plain as can be: the whole sequence, no cache, one token and head after the other, in float64.

It takes its matrices from Weights and shares no other code with the executor.
"""

from __future__ import annotations

import torch

from simtool.calibration.executor.weights import Weights
from simtool.models.architecture import DenseMlp, LatentAttention


class Reference:
    """Logits of whole sequences."""

    def __init__(self, arch, seed=0):
        self.arch = arch
        self.made = Weights(seed, "cpu", torch.float32)
        self.known = {}
        self.chosen = []

    def matrix(self, layer, name, rows, columns):
        key = (layer, name)
        if key not in self.known:
            self.known[key] = self.made.matrix(layer, name, rows, columns).double()
        return self.known[key]

    def norm(self, layer, name, x):
        weight = self.made.norm(layer, name, x.shape[-1]).double()
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight

    def logits(self, ids):
        """[tokens, vocabulary] of a list of ids."""
        arch, hidden = self.arch, self.arch.hidden_size
        embedding = self.matrix(-1, "embedding", arch.vocab_size, hidden)
        x = embedding[torch.as_tensor(ids)]
        for index, layer in enumerate(arch.layers):
            mix = self.latent if isinstance(layer.mixer, LatentAttention) else self.grouped
            x = x + mix(index, layer.mixer, self.norm(index, "mixer_norm", x))
            feed = self.dense if isinstance(layer.mlp, DenseMlp) else self.mixture
            x = x + feed(index, layer.mlp, self.norm(index, "mlp_norm", x))
        head = embedding if arch.tie_word_embeddings else self.matrix(-1, "lm_head", arch.vocab_size, hidden)
        return self.norm(-1, "final_norm", x) @ head.T

    def generate(self, prompt, count):
        ids = list(prompt)
        for _ in range(count):
            ids.append(int(self.logits(ids)[-1].argmax()))
        return ids[len(prompt) :]

    def routing(self, ids):
        """Experts of each token and mixture, likeliest first: [tokens, layers, top_k]."""
        self.chosen = []
        self.logits(ids)
        return torch.tensor(self.chosen).view(-1, len(ids), len(self.chosen[0])).transpose(0, 1)

    def grouped(self, index, mixer, x):
        hidden, size = self.arch.hidden_size, mixer.head_dim
        parts = {}
        for name, heads in (("q", mixer.num_heads), ("k", mixer.num_kv_heads), ("v", mixer.num_kv_heads)):
            part = x @ self.matrix(index, name, heads * size, hidden).T
            if mixer.qkv_bias:
                part = part + self.made.vector(index, f"{name}_bias", heads * size).double()
            parts[name] = part.view(len(x), heads, size)
        if mixer.extra_params:
            parts["q"] = self.norm(index, "q_norm", parts["q"])
            parts["k"] = self.norm(index, "k_norm", parts["k"])
        q, k, v = turned(parts["q"]), turned(parts["k"]), parts["v"]
        group = mixer.num_heads // mixer.num_kv_heads
        heads = [attended(q[:, h], k[:, h // group], v[:, h // group]) for h in range(mixer.num_heads)]
        return torch.cat(heads, dim=1) @ self.matrix(index, "o", hidden, mixer.num_heads * size).T

    def latent(self, index, mixer, x):
        hidden, nope, rope = self.arch.hidden_size, mixer.qk_nope_head_dim, mixer.qk_rope_head_dim
        source = x
        if mixer.q_lora_rank:
            source = self.norm(index, "q_a_norm", x @ self.matrix(index, "q_a", mixer.q_lora_rank, hidden).T)
        wide = source.shape[1]
        q = source @ self.matrix(index, "q", mixer.num_heads * (nope + rope), wide).T
        q = q.view(len(x), mixer.num_heads, nope + rope)
        down = x @ self.matrix(index, "kv_a", mixer.kv_lora_rank + rope, hidden).T
        latent = self.norm(index, "kv_a_norm", down[:, : mixer.kv_lora_rank])
        key_rope = turned(down[:, None, mixer.kv_lora_rank :])[:, 0]
        each = nope + mixer.v_head_dim
        kv = (latent @ self.matrix(index, "kv_b", mixer.num_heads * each, mixer.kv_lora_rank).T).view(len(x), -1, each)
        heads = []
        for h in range(mixer.num_heads):
            query = torch.cat((q[:, h, :nope], turned(q[:, h : h + 1, nope:])[:, 0]), dim=1)
            key = torch.cat((kv[:, h, :nope], key_rope), dim=1)
            heads.append(attended(query, key, kv[:, h, nope:]))
        return torch.cat(heads, dim=1) @ self.matrix(index, "o", hidden, mixer.num_heads * mixer.v_head_dim).T

    def dense(self, index, mlp, x, prefix="", inner=0, gated=None):
        inner, gated = inner or mlp.intermediate_size, mlp.gated if gated is None else gated
        hidden = self.arch.hidden_size
        up = x @ self.matrix(index, f"{prefix}up", inner, hidden).T
        up = silu(x @ self.matrix(index, f"{prefix}gate", inner, hidden).T) * up if gated else silu(up)
        return up @ self.matrix(index, f"{prefix}down", hidden, inner).T

    def mixture(self, index, mlp, x):
        hidden, out = self.arch.hidden_size, torch.zeros_like(x)
        scores = torch.softmax(x @ self.matrix(index, "router", mlp.num_experts, hidden).T, dim=1)
        bias = torch.zeros(mlp.num_experts).double()
        if mlp.router_bias:
            bias = self.made.vector(index, "router_bias", mlp.num_experts, spread=0.01).double()
        for token, score in enumerate(scores):
            value = (score + bias).view(mlp.num_groups, -1)
            for group in value.amax(1).argsort(descending=True)[mlp.topk_groups :] if mlp.num_groups > 1 else ():
                value[group] = float("-inf")
            best = value.flatten().argsort(descending=True)[: mlp.top_k].tolist()
            self.chosen.append(best)
            total = sum(float(score[e]) for e in best)
            for e in best:
                found = self.dense(index, mlp, x[token : token + 1], f"expert_{e}_")
                out[token] += float(score[e]) / total * found[0]
        if mlp.shared_intermediate_size:
            shared = self.dense(index, mlp, x, "shared_", mlp.shared_intermediate_size, mlp.shared_gated)
            if mlp.shared_expert_gate:
                shared = torch.sigmoid(x @ self.matrix(index, "shared_expert_gate", 1, hidden).T) * shared
            out = out + shared
        return out


def silu(x):
    return x / (1 + torch.exp(-x))


def attended(q, k, v):
    """One head: each query sees the keys up to itself."""
    rows = []
    for i in range(len(q)):
        scores = torch.softmax(k[: i + 1] @ q[i] / q.shape[1] ** 0.5, dim=0)
        rows.append(scores @ v[: i + 1])
    return torch.stack(rows)


def turned(x):
    """[tokens, heads, d]: the pair (j, j + d/2) turns by position / 10000^(2j/d)."""
    half = x.shape[2] // 2
    out = torch.empty_like(x)
    for j in range(half):
        angle = torch.arange(len(x)).double()[:, None] / 10000 ** (2 * j / x.shape[2])
        a, b = x[:, :, j], x[:, :, j + half]
        out[:, :, j] = a * angle.cos() - b * angle.sin()
        out[:, :, j + half] = b * angle.cos() + a * angle.sin()
    return out
