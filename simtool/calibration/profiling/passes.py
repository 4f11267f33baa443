"""Passes over memory of memory-bound kernels, in elements read and written an element. They are what
simtool.models.lowering counts, whatever plain torch really makes: a fit is asked for the lowering's bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

# add+norm: input and residual read, both written. silu_mul: two in, one out. rope+write: queries and keys in and out,
# then keys and values in and out.
PASSES: Mapping[str, float] = {"add+rms_norm": 4.0, "silu_mul": 3.0, "rope+write": 2.0}
KINDS: Mapping[str, str] = {"add+rms_norm": "norm", "silu_mul": "activation", "rope+write": "rope"}
KV_WIDTHS = 3.0  # of rope+write beside the query's: keys rotated, keys and values stored
EMBEDDING_PASSES = 2.0
SAMPLING_PASSES = 4.5  # in fp32 elements: cast from bf16 (0.5 + 1), softmax (1 + 1), arg max (1)
