"""What goes wrong, as a tree.

SimtoolError         something gave out on the way       (exit code 1)
├── InputError       the question is malformed           (exit code 2)
└── InfeasibleError  the question has no answer          (exit code 1)
"""

from __future__ import annotations


class SimtoolError(Exception):
    """Base of every error that simtool raises on purpose."""


class InputError(SimtoolError):
    """A value breaks a rule; `hint` says what to give instead."""

    def __init__(self, value: object, rule: str, hint: str = "") -> None:
        self.value = value
        self.rule = rule
        self.hint = hint
        super().__init__(value, rule, hint)  # all of them: simpy and pickle make it anew from its arguments

    def __str__(self) -> str:
        return f"{self.value}: {self.rule}" + (f" ({self.hint})" if self.hint else "")


class InfeasibleError(SimtoolError):
    """No plan answers the question; `constraint` is the one that binds, `relaxation` the smallest that would help."""

    def __init__(self, constraint: str, detail: str, relaxation: str = "") -> None:
        self.constraint = constraint
        self.detail = detail
        self.relaxation = relaxation
        super().__init__(constraint, detail, relaxation)

    def __str__(self) -> str:
        return f"{self.constraint}: {self.detail}" + (f"; {self.relaxation}" if self.relaxation else "")
