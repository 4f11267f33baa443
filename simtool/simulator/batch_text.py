"""The text of one step's batch: `decode:64x2048+prefill:1x512@1024`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from simtool.errors import InputError

_TERM = re.compile(r"(?P<kind>prefill|decode):(?P<count>\d+)x(?P<tokens>\d+)(?:@(?P<context>\d+))?")
_EXAMPLE = 'for example "decode:64x2048", "prefill:1x512@1024" or "decode:64x2048+prefill:1x512"'
_MOST = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """`requests` equal prefill chunks of `new_tokens` each, after `context_tokens` cached ones."""

    requests: int
    new_tokens: int
    context_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepText:
    """One step of one data-parallel rank: decodes with the sum of their KV lengths, and prefill chunks."""

    text: str
    decodes: int
    decode_kv_tokens: int
    chunks: tuple[Chunk, ...]
    longest_tokens: int
    longest_decode_tokens: int = 0

    @property
    def tokens(self) -> int:
        """New tokens of the step."""
        return self.decodes + sum(chunk.requests * chunk.new_tokens for chunk in self.chunks)

    @property
    def requests(self) -> int:
        """Requests of the step; each samples a token (a chunk is taken as the last of its prompt)."""
        return self.decodes + sum(chunk.requests for chunk in self.chunks)


def parse_batch(text: str) -> StepText:
    """The step written as terms joined by `+`.

    `decode:NxL`: N requests, one new token each, KV length L. `prefill:NxQ` or `prefill:NxQ@C`: N chunks of Q new
    tokens after C cached ones. Raises InputError for anything else, for zeros, and for numbers above 10^9.
    """
    decodes, kv_tokens, longest, longest_decode, chunks = 0, 0, 0, 0, []
    for term in text.replace(" ", "").split("+"):
        match = _TERM.fullmatch(term)
        if match is None:
            raise InputError(term or text, "is no part of a batch", _EXAMPLE)
        count, tokens, context = int(match["count"]), int(match["tokens"]), int(match["context"] or 0)
        if not (1 <= count <= _MOST and 1 <= tokens <= _MOST and context <= _MOST):
            raise InputError(term, "numbers must be between 1 and 10^9", _EXAMPLE)
        if match["kind"] == "decode":
            if match["context"]:
                raise InputError(term, "a decode has no @context, its length is its KV length", _EXAMPLE)
            decodes, kv_tokens = decodes + count, kv_tokens + count * tokens
            longest_decode = max(longest_decode, tokens)
        else:
            chunks.append(Chunk(requests=count, new_tokens=tokens, context_tokens=context))
        longest = max(longest, tokens + context)
    return StepText(
        text=text,
        decodes=decodes,
        decode_kv_tokens=kv_tokens,
        chunks=tuple(chunks),
        longest_tokens=longest,
        longest_decode_tokens=longest_decode,
    )
