"""Choose: the planner that fits the question's cluster."""

from __future__ import annotations

from collections.abc import Callable

from simtool.hardware.own_cluster import own_cluster
from simtool.planners.question import Answer, Question


def choose(question: Question, progress: Callable[[str], None] | None = None) -> Answer:
    """The best plan for a question: by search over one device type, or by combination of unlike ones.

    Raises InputError for a malformed question and InfeasibleError where no plan can answer it.
    """
    if len(own_cluster(question.devices, question.profiles).devices_by_type) > 1:
        from simtool.planners.mixed import plan_mixed

        return plan_mixed(question, progress=progress)[0]
    from simtool.planners.search import plan

    return plan(question, progress=progress)
