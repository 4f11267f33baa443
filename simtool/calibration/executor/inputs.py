"""StepInputs: a batch as tensors on the device; what all layers share is made once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from simtool.calibration.executor.batch import Slot, StepBatch
from simtool.calibration.kernels.attention import length_mask

ROTARY_BASE = 10000.0  # RoFormer, arXiv 2104.09864, section 3.2.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What inputs are made for. rotary: elements of a head that turn."""

    block_size: int
    rotary: int
    device: str
    dtype: torch.dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A prefill chunk: rows start..start+new-1 of the step; total: tokens in the cache with it.

    table int64[1, blocks]: its pages where it has earlier context, else None.
    """

    start: int
    new: int
    total: int
    table: torch.Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInputs:
    """ids, slots int64[tokens]: token ids and cache places; cos, sin [tokens, 1, rotary / 2].

    The first `decodes` rows are decodes: tables int64[decodes, pages] and mask [decodes, 1, 1, pages x block_size].
    sampled int64[samples]: rows whose logits are sampled. widest: most tokens of any data-parallel rank. parts: the
    nano-batches of a step that is cut, whose rows follow each other in it; layers read theirs alone.
    """

    ids: torch.Tensor
    slots: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor
    decodes: int
    tables: torch.Tensor
    mask: torch.Tensor
    chunks: tuple[Chunk, ...]
    sampled: torch.Tensor
    widest: int
    parts: tuple[StepInputs, ...] = ()

    @property
    def tokens(self) -> int:
        """Rows of the step."""
        return len(self.ids)


def make_inputs(batch: StepBatch, layout: Layout, widest: int = 0) -> StepInputs:
    """The inputs of one data-parallel rank; an empty batch has no rows."""
    slots, size = batch.slots, layout.block_size
    ids = _joined([slot.tokens for slot in slots])
    positions = _joined([np.arange(slot.context, slot.context + slot.new) for slot in slots])
    places = _joined([_cache_places(slot, size) for slot in slots])
    cos, sin = turns(torch.from_numpy(positions).to(layout.device), layout)
    tables, mask = decode_tables(batch.decodes, layout)
    ends = np.cumsum([slot.new for slot in slots], dtype=np.int64)
    sampled = np.array([end - 1 for slot, end in zip(slots, ends, strict=True) if slot.samples], dtype=np.int64)
    return StepInputs(
        ids=torch.from_numpy(ids).to(layout.device),
        slots=torch.from_numpy(places).to(layout.device),
        cos=cos,
        sin=sin,
        decodes=len(batch.decodes),
        tables=tables,
        mask=mask,
        chunks=_chunks(batch, layout),
        sampled=torch.from_numpy(sampled).to(layout.device),
        widest=max(widest, len(ids)),
    )


def turns(positions: torch.Tensor, layout: Layout) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of the rotary angles at int64[tokens] positions, [tokens, 1, rotary / 2] each."""
    exponents = torch.arange(0, layout.rotary, 2, device=positions.device) / layout.rotary
    angles = positions[:, None, None] * ROTARY_BASE**-exponents
    return angles.cos().to(layout.dtype), angles.sin().to(layout.dtype)


def decode_tables(decodes: Sequence[Slot], layout: Layout, pages: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Block tables padded to the longest request's (at least `pages`), and the mask of the keys that exist."""
    lengths = np.array([slot.context + 1 for slot in decodes], dtype=np.int64)
    wide = max(pages, -(-int(lengths.max(initial=0)) // layout.block_size))
    tables = np.zeros((len(decodes), wide), dtype=np.int64)
    for row, slot in zip(tables, decodes, strict=True):
        used = -(-(slot.context + 1) // layout.block_size)
        row[:used] = slot.blocks[:used]
    there = torch.from_numpy(lengths).to(layout.device)
    return torch.from_numpy(tables).to(layout.device), length_mask(there, wide * layout.block_size, layout.dtype)


def _chunks(batch: StepBatch, layout: Layout) -> tuple[Chunk, ...]:
    chunks, start = [], len(batch.decodes)
    for slot in batch.prefills:
        total, table = slot.context + slot.new, None
        if slot.context:
            pages = slot.blocks[: -(-total // layout.block_size)]
            table = torch.from_numpy(np.ascontiguousarray(pages)[None]).to(layout.device)
        chunks.append(Chunk(start=start, new=slot.new, total=total, table=table))
        start += slot.new
    return tuple(chunks)


def _cache_places(slot: Slot, size: int) -> NDArray[np.int64]:
    positions = np.arange(slot.context, slot.context + slot.new)
    return np.asarray(slot.blocks[positions // size] * size + positions % size, dtype=np.int64)


def _joined(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, dtype=np.int64)
