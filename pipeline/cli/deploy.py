"""`decant export` and `decant predict`: what a person does with a finished network."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decant.pipeline.cli import completion
from decant.pipeline.cli.options import as_json, command_line, percent, print_json, print_table, printable

if TYPE_CHECKING:
    from decant.pipeline.deploy import Exported
    from decant.pipeline.runs.open import FinishedRun

_FORMATS = ("pt2", "onnx", "int8")
_run = click.argument("run", metavar="RUN", type=click.Path(path_type=Path), shell_complete=completion.runs)


def _formats(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Names with commas between them; None where none are given. Raises BadParameter for others."""
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    unknown = [name for name in names if name not in _FORMATS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(_FORMATS)}")
    return names


@click.command()
@_run
@click.option(
    "--formats",
    callback=_formats,
    metavar="NAMES",
    help="Of pt2 (torch.export), onnx and int8 (ONNX in 8 bits), with commas.  [default: all that can be made]",
)
@click.option("--probabilities", is_flag=True, help="Files give probabilities in place of logits.")
@click.option(
    "--calibration",
    type=click.IntRange(1),
    default=512,
    show_default=True,
    help="Training views that the ranges of int8 are taken from.",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Test samples that each file is checked on, at most.",
)
@click.option(
    "--max-loss",
    type=click.FloatRange(0),
    default=2.0,
    show_default=True,
    help="Points of top-1 that int8 may lose; of a regression, hundredths of R².",
)
@as_json
def export(run: Path, as_json: bool, **options: Any) -> None:
    """Write the network of a run as files that run without Decant, each checked in its own runtime.

    RUN is a run's folder. The files lie in RUN/export.
    """
    from decant.pipeline.deploy import export_run
    from decant.pipeline.runs.open import open_run

    opened = open_run(run)
    exported = export_run(opened, **options)
    if as_json:
        print_json(asdict(exported))
    else:
        _say_exported(exported)
    if exported.problems:
        for problem in exported.problems:
            click.echo(f"decant: {run}: {problem}", err=True)
        click.echo("decant: nothing was published", err=True)
        sys.exit(1)
    click.echo(f"made {', '.join(map(str, exported.files))}")
    if _takes_images(opened):
        click.echo(f"next: {command_line('predict', opened.folder, 'IMAGE')}")


@click.command()
@_run
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="How many classes a file.")
@as_json
def predict(run: Path, images: tuple[Path, ...], top: int, as_json: bool) -> None:
    """Print the likeliest classes of image files.

    RUN is the folder of a run, whose network is asked. Exit code 1 if a file cannot be read; the others are done.
    """
    from decant.pipeline.deploy.predict import Predictor
    from decant.pipeline.runs.open import open_run

    predictor = Predictor.of(open_run(run))
    if predictor.names_missing is not None:
        click.echo(predictor.names_missing, err=True)
    found = []
    for prediction in predictor.predict(images, top):
        found.append(prediction)
        if prediction.problem is not None:
            click.echo(f"decant: {prediction.problem}", err=True)
        elif not as_json:
            likeliest = ", ".join(f"{name} {percent(share)}" for name, share in prediction.classes)
            click.echo(printable(f"{prediction.file}: {likeliest}"))
    if as_json:
        print_json([one.as_json() for one in found])
    if any(prediction.problem is not None for prediction in found):
        sys.exit(1)


def _takes_images(run: FinishedRun) -> bool:
    """Whether `decant predict` can ask its network."""
    shape, pixels = run.result.network.input_shape, run.result.input_dtype in ("uint8", None)
    return pixels and not run.is_regression and len(shape) == 3 and shape[0] in (1, 3)


def _say_exported(exported: Exported) -> None:
    from decant.pipeline.deploy.check import HEADINGS

    print_table(HEADINGS, [row.cells() for row in exported.rows])
    click.echo(f"on {exported.rows[0].samples:,} test samples; milliseconds at batch 1 on 1 thread")
    if exported.left_out is not None:
        click.echo(exported.left_out)
