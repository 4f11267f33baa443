"""`simtool calibrate`: measure this machine, or take measurements made elsewhere, and fit the cost model to them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simtool.cli_options import Json

if TYPE_CHECKING:
    from simtool.calibration.profiling.request import ProfileRequest
    from simtool.hardware.collective_curves import Curve
    from simtool.hardware.kernel_profile import FamilyFit, KernelProfile

app = typer.Typer(
    help="Measure this machine's kernels, fit the cost model, and say how wrong it is on points it did not see.",
    invoke_without_command=True,
)

FIT_HEADS = ("family", "dtype", "points", "in sample", "held out", "p95", "noise", "roofline", "90% covers")
CURVE_HEADS = ("curve", "library", "ranks", "points", "held out", "p95", "noise")

Out = Annotated[Path, typer.Option("--out", help="Folder for points, profile and report.")]
Budget = Annotated[str, typer.Option("--budget", help="Time to measure for: 240, 240s, 8m.")]
Where = Annotated[str, typer.Option("--device", help="cuda or cpu \\[the GPU where there is one].")]
Models = Annotated[
    str, typer.Option("--models", help="Models to be served: catalogue names or config.json paths, a,b.")
]
Degrees = Annotated[
    str, typer.Option("--tensor-parallel-size", "-tp", help="Tensor parallel degrees to cut them by: 1,8.")
]
Dtypes = Annotated[str, typer.Option("--dtypes", help="fp32, fp16, bf16, fp8, int8_wo, int4 \\[what it has].")]
Families = Annotated[str, typer.Option("--families", help="Only these, as gemm,attention_decode,copies \\[all].")]
MaxTokens = Annotated[int, typer.Option("--max-num-batched-tokens", help="Most tokens of a step \\[usual].", min=0)]
MaxSeqs = Annotated[int, typer.Option("--max-num-seqs", help="Most requests of a step \\[usual].", min=0)]
MaxLen = Annotated[int, typer.Option("--max-model-len", help="Longest context \\[usual].", min=0)]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the design and of the fit.", min=0)]
FormatName = Annotated[
    str, typer.Argument(help="aiconfigurator, vidur, llmservingsim, apex, splitwise, nccl-tests, kineto.")
]
Measured = Annotated[Path, typer.Argument(help="Folder or file of the measurements; aiconfigurator: also 'installed'.")]
Named = Annotated[str | None, typer.Option("--device", help="Only this device, or what a single file was measured on.")]
Library = Annotated[str | None, typer.Option("--library", help="Only this library (as vllm, or vllm==0.24.0).")]
Points = Annotated[Path, typer.Argument(help="points.jsonl, as a calibration writes it on any machine.")]
Profiles = Annotated[list[Path], typer.Argument(help="Profiles, .json or .json.gz.")]
Page = Annotated[Path, typer.Option("--out", help="The page to write.")]


@app.callback()
def calibrate(
    context: typer.Context,
    out: Out = Path("calibration"),
    budget: Budget = "4m",
    device: Where = "",
    models: Models = "",
    tensor_parallel_size: Degrees = "",
    dtypes: Dtypes = "",
    families: Families = "",
    max_num_batched_tokens: MaxTokens = 0,
    max_num_seqs: MaxSeqs = 0,
    max_model_len: MaxLen = 0,
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """Measure this machine's kernels, fit the cost model, and say how wrong it is on points it did not see.

    Ctrl-C keeps what was measured; the same command goes on. Use the profile with --profile in plan, simulate, explain.

    Example: simtool calibrate --budget 8m --models llama-3.1-70b -tp 4,8 --out h200/
    """
    if context.invoked_subcommand is not None:
        return 0
    from simtool.calibration.profiling.request import SIZES
    from simtool.calibration.profiling.request_text import parsed_request

    request = parsed_request(
        budget=budget,
        device=device,
        models=models,
        tp=tensor_parallel_size,
        dtypes=dtypes,
        families=families,
        sizes=dict(zip(SIZES, (max_num_batched_tokens, max_num_seqs, max_model_len), strict=True)),
        seed=seed,
    )
    return _measured(request, out, json)


def _measured(request: ProfileRequest, out: Path, json: bool) -> int:
    """Measure, fit, print and draw."""
    from simtool.calibration.calibrate import calibrate as measure_and_fit
    from simtool.terminal import note, progress

    with progress("measuring") as show:
        path = measure_and_fit(request, out, tell=note, progress=show)
    return 130 if path is None else _told([path], out / "calibration.html", json)


@app.command("fit")
def fit(points: Points, out: Out = Path("calibration"), json: Json = False) -> int:
    """Fit points that were measured elsewhere (python -m simtool.calibration.profiling, in any container)."""
    from simtool.calibration.calibrate import fit_points
    from simtool.terminal import note

    return _told([fit_points(points, out, tell=note)], out / "calibration.html", json)


@app.command("import")
def import_command(
    format: FormatName,
    path: Measured,
    out: Out = Path("calibration"),
    device: Named = None,
    library: Library = None,
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """Fit other people's measurements: one profile a device and library, every row checked for unit and physics.

    Example: simtool calibrate import nccl-tests all_reduce.txt --device h200 --out nccl/
    """
    from simtool.calibration.calibrate import import_profiles
    from simtool.terminal import note

    paths = import_profiles(format, path, out, device=device, library=library, seed=seed, tell=note)
    return _told(paths, out / "calibration.html", json)


@app.command("report")
def report(profiles: Profiles, out: Page = Path("calibration.html")) -> int:
    """Draw profiles: predicted against measured, errors, roofline, contention, where more points would help."""
    from simtool.hardware.profile_file import read_profile
    from simtool.report.calibration_page import write_calibration_report
    from simtool.terminal import note

    write_calibration_report([read_profile(path) for path in profiles], out)
    note(f"{out} written")
    return 0


def _told(paths: list[Path], page: Path, json: bool) -> int:
    """Print the errors of the profiles at `paths`, and draw them."""
    from simtool.hardware.profile_file import read_profile
    from simtool.report.calibration_page import write_calibration_report
    from simtool.terminal import note, print_json

    profiles = [read_profile(path) for path in paths]
    write_calibration_report(profiles, page)
    if json:
        from simtool.json_text import json_text

        print_json(json_text({"profiles": [_object(p, path) for p, path in zip(profiles, paths, strict=True)]}))
    else:
        _print_tables(profiles)
    for path in (*paths, page):
        note(f"{path} written")
    return 0


def _object(profile: KernelProfile, path: Path) -> dict[str, Any]:
    from simtool.json_text import plain

    return {
        "path": str(path),
        "device": profile.device,
        "library": profile.library,
        "version": profile.version,
        "fits": [{"family": f.family, "dtype": f.dtype, **plain(f.errors)} for f in profile.fits.values()],
        "curves": [_curve_object(curve) for curve in (*profile.curves, *profile.copies)],
    }


def _curve_object(curve: Curve) -> dict[str, Any]:
    median, p95 = curve.held_out
    names = {"kind": curve.kind, "library": curve.library, "ranks": curve.ranks, "points": curve.points}
    return {**names, "held_out_median": median, "held_out_p95": p95, "noise_median": curve.noise}


def _print_tables(profiles: list[KernelProfile]) -> None:
    """What each profile's fits and curves are worth: held-out error beside the noise of the measurement."""
    from simtool.terminal import print_table, print_text

    for profile in profiles:
        print_text(f"{profile.device}, {profile.library} {profile.version}".rstrip())
        if profile.fits:
            print_table(FIT_HEADS, [_fit_row(fit) for fit in profile.fits.values()], left=2)
        curves = (*profile.curves, *profile.copies)
        if curves:
            print_table(CURVE_HEADS, [_curve_row(curve) for curve in curves], left=2)


def _fit_row(fit: FamilyFit) -> list[str]:
    errors = fit.errors
    shares = (errors.in_sample_median, errors.held_out_median, errors.held_out_p95)
    return [
        fit.family,
        fit.dtype,
        str(errors.in_sample_points),
        *(_percent(share) for share in shares),
        _percent(errors.noise_median) if errors.noise_points else "-",
        _percent(errors.law_only_median),
        f"{100 * errors.coverage_90:.0f}%",
    ]


def _curve_row(curve: Curve) -> list[str]:
    errors = [_percent(share) for share in curve.held_out]
    noise = _percent(curve.noise) if curve.noise else "-"
    return [curve.kind, curve.library, str(curve.ranks), str(curve.points), *errors, noise]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"
