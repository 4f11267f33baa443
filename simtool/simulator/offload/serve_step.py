"""One step of a served store, compiled: the batch's tokens, the experts that they need, and what these take."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simtool.simulator.jit import jit, jit_entry
from simtool.simulator.offload.arrays import F8, I8, LOCK, NONE, WANTED, Arrays
from simtool.simulator.offload.loop import advance_store
from simtool.simulator.state import (
    CHUNK_CONTEXT,
    CHUNK_NEW,
    CHUNK_REQ,
    CHUNKS,
    COMPUTED,
    FINISH_HEAP,
    I4,
    ITER,
    START,
    STEP_DECODES,
)

I2 = NDArray[np.int16]
_SPREAD = 2654435761  # Knuth's multiplicative hash: neighbouring requests take unlike sequences


@jit
def row_of(row: I8, starts: I8, recorded: bool, req: int, position: int) -> int:
    """The bank's row of a request's token (NONE: it was not recorded)."""
    sequences = starts.shape[0] - 1
    if recorded:
        known = req < sequences and position < starts[req + 1] - starts[req]
        return int(row[starts[req] + position]) if known else NONE
    spread = (req * _SPREAD) & 0x7FFFFFFF
    first = starts[spread % sequences]
    length = starts[spread % sequences + 1] - first
    return int(row[first + (position + spread // sequences) % length])


@jit
def batch_rows(row: I8, starts: I8, recorded: bool, req_i: I4, heap: I8, chunks: I4, lane: I8, rows: I8) -> int:
    """The bank's rows of all tokens that the lane's step computes, into `rows`; how many, or NONE for one it lacks."""
    count = 0
    if lane[STEP_DECODES] > 0:
        for i in range(lane[FINISH_HEAP]):
            req = heap[i] & 0xFFFFFFFF
            position = req_i[req, COMPUTED] + lane[ITER] - req_i[req, START]
            rows[count] = row_of(row, starts, recorded, req, position)
            count += 1
    for i in range(lane[CHUNKS]):
        for token in range(chunks[i, CHUNK_NEW]):
            position = chunks[i, CHUNK_CONTEXT] + token
            rows[count] = row_of(row, starts, recorded, chunks[i, CHUNK_REQ], position)
            count += 1
    for i in range(count):
        if rows[i] == NONE:
            return NONE
    return count


@jit
def fill_needs(a: Arrays, experts: I2, rows: I8, count: int, counts: I8) -> None:
    """What each layer needs, ascending, with its tokens."""
    size, k = counts.shape[1], 0
    for layer in range(experts.shape[1]):
        for i in range(count):
            for j in range(experts.shape[2]):
                counts[0, experts[rows[i], layer, j]] += 1
        for expert in range(size):
            if counts[0, expert] > 0:
                a.need_object[k], a.need_tokens[k] = layer * size + expert, counts[0, expert]
                counts[0, expert] = 0
                k += 1
        a.need_start[layer + 1] = k


@jit
def fill_guesses(a: Arrays, guess: I2, rows: I8, count: int, counts: I8) -> None:
    """What is predicted of each layer: by how many tokens name it, then by its best place, then by number."""
    size, width, k = counts.shape[1], guess.shape[2], 0
    for layer in range(guess.shape[1]):
        found = 0
        counts[1, :] = width
        for i in range(count):
            for j in range(width):
                expert = guess[rows[i], layer, j]
                if expert >= 0:
                    found += int(counts[0, expert] == 0)
                    counts[0, expert] += 1
                    counts[1, expert] = min(counts[1, expert], j)
        keys = np.empty(found, np.int64)
        place = 0
        for expert in range(size):
            if counts[0, expert] > 0:
                keys[place] = ((counts[0, expert] + 1) * (width + 1) - counts[1, expert]) * size - expert
                counts[0, expert] = 0
                place += 1
        keys.sort()
        for place in range(found - 1, -1, -1):
            a.guess_object[k] = layer * size + (-keys[place]) % size
            k += 1
        a.guess_start[layer + 1] = k


@jit_entry
def serve_step(
    a: Arrays,
    experts: I2,
    guess: I2,
    row: I8,
    starts: I8,
    recorded: bool,
    req_i: I4,
    heap: I8,
    chunks: I4,
    lane: I8,
    rows: I8,
    counts: I8,
    dense_s: F8,
    rest_s: float,
    now_s: float,
) -> float:
    """The end of the step that begins at now_s (NaN: a token has no route). Arguments as ServedStore's and State's."""
    count = batch_rows(row, starts, recorded, req_i, heap, chunks, lane, rows)
    if count < 0:
        return float(np.nan)
    fill_needs(a, experts, rows, count, counts)
    if guess.shape[2] > 0:
        fill_guesses(a, guess, rows, count, counts)
    a.dense_s[0, :] = dense_s
    a.step_s[0] = rest_s
    end_s = advance_store(a, 0, 1, now_s)
    a.object_i[:, LOCK] = NONE
    a.object_i[:, WANTED] = NONE
    return float(end_s)
