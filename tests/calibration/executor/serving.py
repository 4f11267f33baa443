"""A scheduler of few lines: prompts in chunks beside decodes, block tables at random, until all have their tokens."""

from __future__ import annotations

import numpy as np

from simtool.calibration.executor.batch import Slot, StepBatch

BLOCK = 4


class Request:
    """A prompt, its block table and what came out."""

    def __init__(self, number, prompt, blocks, done=0):
        self.number, self.prompt, self.blocks, self.done = number, list(prompt), np.asarray(blocks), done
        self.out = []

    def slot(self, new):
        """The next `new` tokens."""
        ids = np.asarray((self.prompt + self.out)[self.done : self.done + new], dtype=np.int64)
        end = self.done + new
        return Slot(
            request=self.number,
            tokens=ids,
            context=self.done,
            blocks=self.blocks[: -(-end // BLOCK)],
            samples=end >= len(self.prompt),
        )

    def advance(self, slot, token):
        self.done += slot.new
        if token is not None:
            self.out.append(int(token))


def prompts(count, seed=0, longest=21, vocabulary=131):
    random = np.random.default_rng(seed)
    return [random.integers(0, vocabulary, random.integers(2, longest)).tolist() for _ in range(count)]


def requests(all_prompts, count, num_blocks, seed=0):
    """Requests with block tables drawn from a shuffled pool."""
    free = np.random.default_rng(seed).permutation(num_blocks).tolist()
    made = []
    for number, prompt in enumerate(all_prompts):
        need = -(-(len(prompt) + count) // BLOCK)
        made.append(Request(number, prompt, [free.pop() for _ in range(need)]))
    return made


def next_batch(running, count, budget):
    """(batch, its requests in order): decodes first, then prefill chunks within the budget of tokens."""
    live = [r for r in running if len(r.out) < count]
    decodes = [r for r in live if r.done >= len(r.prompt)]
    left, prefills = budget - len(decodes), []
    for r in live:
        if r.done < len(r.prompt) and left > 0:
            new = min(left, len(r.prompt) - r.done)
            prefills.append((r, r.slot(new)))
            left -= new
    pairs = [(r, r.slot(1)) for r in decodes]
    batch = StepBatch(decodes=tuple(s for _, s in pairs), prefills=tuple(s for _, s in prefills))
    return batch, pairs + prefills


def take(pairs, tokens):
    """Give each request its sampled token."""
    sampled = iter(tokens.tolist())
    for r, slot in pairs:
        r.advance(slot, next(sampled) if slot.samples else None)


def serve(runner, ranks, count, budget, lanes=1):
    """Run the requests of each data-parallel rank to `count` tokens each; with lanes, each lane has its share of them.

    Returns the outputs a rank, and the outcomes.
    """
    outcomes = []
    while True:
        flying = []
        for lane in range(lanes):
            step = [next_batch(rows[lane::lanes], count, budget) for rows in ranks]
            if any(batch.slots for batch, _ in step):
                runner.submit(lane, [batch for batch, _ in step])
                flying.append((lane, step))
        if not flying:
            return [[r.out for r in rows] for rows in ranks], outcomes
        for lane, step in flying:
            outcome = runner.collect(lane)
            outcomes.append(outcome)
            for (_, pairs), tokens in zip(step, outcome.tokens, strict=True):
                take(pairs, tokens)
