"""StepTables: a plan compiled into arrays, so that the replica prices one iteration in O(1)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from simtool.simulator.offload.costs import ExpertPrices

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTables:
    """Seconds (and joules) of one step of one replica, by pipeline stage. S = pp stages.

    A step of stage s on the slowest data-parallel rank, with T tokens (T_all over all ranks), D decodes of mean KV
    length x, prefill chunks (q_i new tokens after c_i cached) and n sampled tokens takes
      token_s[s, T] + shared_s[s, T_all] + decode(s, D, x) + sum_i prefill(s, q_i, c_i) + [last stage] head_s[n]
    and a step of the replica adds host_s[requests], or hides it where `host_overlapped`.

    token_s   [S, max_tokens+1]          dense layers, norms, TP collectives (CUDA-graph padding applied)
    shared_s  [S, max_tokens*dp+1]       experts and their dispatch/combine (all zero for a dense model)
    decode_s  [S, max_seqs+1, K]         decode attention at mean KV length kv_knots[k]; piecewise linear in x
    kv_knots  [K]                        tokens, increasing, kv_knots[0] = 0, last >= the longest context
    prefill_rate [S, Q, C]               seconds per (query, key) pair: prefill(q, c) = rate * q * (c + (q+1)/2);
                                         bilinear in log2(q) and log2(c+1), knots prefill_step apart from 0
    head_s    [max_seqs*dp+1]            LM head, sampling on the last stage, by sampled tokens of all ranks
    host_s    [max_seqs+1]               scheduler, launch, detokenise
    p2p_s     [max_tokens+1]             activation transfer to the next stage (zero where S = 1)
    token_j   [max_tokens*dp+1]          dynamic joules of the replica, all stages, for so many tokens of all ranks
    mixed_decode                         a step with prefill chunks takes so many times decode(s, D, x)
    gain      [S, max_tokens+1, U, V]    share of a stage's step that an overlap saves, by the tokens of a rank and the
                                         share of decode attention, and of prefill attention, in it: U, V are a step
                                         without that attention, then knots from 0 to 1 (empty: nothing overlaps)
    leap_s    [max_seqs+1, K]            decode_s[0] less what the overlap saves of a step of D decodes and nothing else
    attention_w, idle_w                  dynamic watts during attention; static watts of the replica's devices
    experts                              of offloaded ones (None: all are in HBM); shared_s is then the least they take
    """

    token_s: Array
    shared_s: Array
    decode_s: Array
    kv_knots: Array
    prefill_rate: Array
    prefill_step: float
    head_s: Array
    host_s: Array
    host_overlapped: bool
    p2p_s: Array
    token_j: Array
    attention_w: float
    idle_w: float
    mixed_decode: float = 1.0
    gain: Array = field(default_factory=lambda: np.zeros((1, 0, 2, 2)))
    leap_s: Array = field(default_factory=lambda: np.zeros((0, 2)))
    experts: ExpertPrices | None = None

    @property
    def overlapped(self) -> bool:
        """Whether an overlap saves anything, or costs."""
        return bool(self.gain.shape[1] > 0)

    def without_overlap(self) -> StepTables:
        """Tables without a gain whose steps are never slower than these: all save the most that any can."""
        if not self.overlapped:
            return self
        at_tokens = 1.0 - np.maximum(self.gain.max(axis=(2, 3)), 0.0)  # [S, T]
        least = at_tokens.min(axis=1)
        return replace(
            self,
            token_s=self.token_s * at_tokens,
            shared_s=self.shared_s * least[:, None],
            decode_s=self.decode_s * least[:, None, None],
            prefill_rate=self.prefill_rate * least[:, None, None],
            gain=self.gain[:, :0],
            leap_s=self.leap_s[:0],
        )

    def narrowed(self, max_tokens: int, dp: int) -> StepTables:
        """The tables of the same engine with a smaller token budget: views, so that both share their memory."""
        return replace(
            self,
            token_s=self.token_s[:, : max_tokens + 1],
            shared_s=self.shared_s[:, : max_tokens * dp + 1],
            p2p_s=self.p2p_s[: max_tokens + 1],
            token_j=self.token_j[: max_tokens * dp + 1],
            gain=self.gain[:, : max_tokens + 1],
        )
