"""KvLedger: segments of KV with reference counts, held as long as anyone goes on from them."""

from __future__ import annotations

from simtool.errors import InputError


class KvLedger:
    """The KV of running branches. A segment is referred to by its holder and by each segment that goes on from it.

    `held_tokens` are in memory now, `peak_tokens` were at most. Misuse (of a freed segment, say)
    raises InputError.
    """

    def __init__(self) -> None:
        self.held_tokens = 0
        self.peak_tokens = 0
        self._parent: list[int] = []
        self._tokens: list[int] = []
        self._references: list[int] = []
        self._children: list[int] = []
        self._held: list[bool] = []

    def begin(self, prompt_tokens: int) -> int:
        """A new root of so many tokens; the caller holds it."""
        return self._open(-1, prompt_tokens)

    def fork(self, segment: int) -> int:
        """An empty segment that goes on from this one (copying nothing). The caller holds both."""
        self._check_held(segment)
        self._references[segment] += 1
        self._children[segment] += 1
        return self._open(segment, 0)

    def append(self, segment: int, tokens: int) -> None:
        """Write tokens at a segment's end, which nothing may have gone on from."""
        self._check_held(segment)
        if self._children[segment]:
            raise InputError(f"segment {segment}", "has been forked, its end is fixed", "append to a fork")
        if tokens < 0:
            raise InputError(tokens, "tokens are 0 or more")
        self._tokens[segment] += tokens
        self._add(tokens)

    def release(self, segment: int) -> int:
        """The holder lets go; tokens freed, here and above, where nobody refers to them any more."""
        self._check_held(segment)
        self._held[segment] = False
        freed = 0
        while segment >= 0:
            self._references[segment] -= 1
            if self._references[segment]:
                break
            freed += self._tokens[segment]
            segment = self._parent[segment]
        self.held_tokens -= freed
        return freed

    def references(self, segment: int) -> int:
        """Holder and segments that go on from this one; 0 once it is freed."""
        return self._references[segment]

    def path_tokens(self, segment: int) -> int:
        """Length of the sequence that ends with this segment."""
        self._check_held(segment)
        found = 0
        while segment >= 0:
            found += self._tokens[segment]
            segment = self._parent[segment]
        return found

    def _open(self, parent: int, tokens: int) -> int:
        if tokens < 0:
            raise InputError(tokens, "tokens are 0 or more")
        self._parent.append(parent)
        self._tokens.append(tokens)
        self._references.append(1)
        self._children.append(0)
        self._held.append(True)
        self._add(tokens)
        return len(self._parent) - 1

    def _add(self, tokens: int) -> None:
        self.held_tokens += tokens
        self.peak_tokens = max(self.peak_tokens, self.held_tokens)

    def _check_held(self, segment: int) -> None:
        if not 0 <= segment < len(self._held) or not self._held[segment]:
            raise InputError(f"segment {segment}", "is not held", "it was released, or never made")
