"""Fit the latency of a request outside the engine on every other H200 row, and judge it on the rest.

    python -m benchmarks.validation.fit_request_latency

Rows in the order of silicon.py (model, TP, concurrency): the first, third, … choose the even number of
milliseconds with the least median TTFT error, which host.toml holds for vLLM as request_latency_us; the others never
take part and are the held-out rows of silicon.py.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.validation.comparison import Row, arguments, data_folder, errors_of
from benchmarks.validation.silicon import MODELS, plan_of, read_runs, split_of, workload_of
from simtool.metrics import serving_metrics
from simtool.run import engines_of
from simtool.simulator.run import simulate_engines

CANDIDATES_MS = range(0, 32, 2)


def main() -> None:
    """Print the median error of both halves for each candidate, and the choice."""
    runs = read_runs(data_folder(arguments(__doc__.splitlines()[0])))
    engines = [engines_of(plan_of(run), workload_of(run)) for run in runs]
    best: dict[int, float] = {}
    print(f"{'latency ms':>10} {'fitted rows':>12} {'held-out rows':>14}")
    for latency_ms in CANDIDATES_MS:
        rows = []
        for place, (run, built) in enumerate(zip(runs, engines, strict=True)):
            slower = [replace(engine, request_latency_s=latency_ms * 1e-3) for engine in built]
            metrics = serving_metrics(simulate_engines(slower, workload_of(run)))
            measured, split = float(run["silicon_ttft_ms"]), split_of(place)
            predicted = metrics["mean_ttft_ms"]
            rows.append(
                Row(
                    name=MODELS[run["model_path"]][0],
                    quantity="ttft",
                    predicted=predicted,
                    measured=measured,
                    split=split,
                )
            )
        fitted, held_out = (errors_of([row for row in rows if row.split == split]) for split in ("fitted", "held out"))
        best[latency_ms] = fitted.median
        print(f"{latency_ms:>10} {fitted.median:>12.1%} {held_out.median:>14.1%}")
    print(f"least on the fitted rows: {min(best, key=best.__getitem__)} ms")


if __name__ == "__main__":
    main()
