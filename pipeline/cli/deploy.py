"""`decant export` and `decant predict`: a finished network as files for other runtimes, and its predictions."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from decant.pipeline.cli import completion
from decant.pipeline.cli.given_paths import FOLDER, PATH
from decant.pipeline.cli.options import (
    as_json,
    command_line,
    percent,
    print_json,
    print_table,
    say,
    trust_option,
)

if TYPE_CHECKING:
    from decant.pipeline.deploy import Exported
    from decant.pipeline.runs.open import FinishedRun

_FORMATS = ("pt2", "onnx", "int8", "transformers")
_run = click.argument("run", metavar="RUN", type=PATH, shell_complete=completion.runs)


def _formats(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Parses format names separated by commas; None where the option is not given. Raises BadParameter."""
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
    help="Formats, separated by commas: pt2 (torch.export), onnx, int8 (ONNX in 8 bits); of a language model "
    "transformers, a folder for from_pretrained.  [default: all whose libraries are installed]",
)
@click.option("--probabilities", is_flag=True, help="Output probabilities instead of logits.")
@click.option(
    "--calibration",
    type=click.IntRange(1),
    default=512,
    show_default=True,
    help="Number of training views from which the int8 ranges are computed.",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Check each file on at most this many test samples.",
)
@click.option(
    "--max-loss",
    type=click.FloatRange(0),
    default=2.0,
    show_default=True,
    help="Points of top-1 accuracy that int8 may lose, or of mAP; for a regression, hundredths of R².",
)
@click.option(
    "--output",
    type=FOLDER,
    help="Folder to write to.  [default: RUN/export]",
)
@trust_option
@as_json
def export(
    run: Path,
    formats: tuple[str, ...] | None,
    probabilities: bool,
    calibration: int,
    samples: int,
    max_loss: float,
    output: Path | None,
    as_json: bool,
) -> None:
    """Export the network of a run to run without Decant.

    RUN is the folder of a run. The files are written to RUN/export, or to --output where the run is not
    yours to write to; each is checked in its own runtime before.
    """
    from decant.pipeline.deploy import export_run
    from decant.pipeline.runs.open import open_run

    opened = open_run(run)
    if opened.recipe.settings.data.of_tokens:
        _export_language_model(opened, formats, probabilities, output, as_json)
        return
    exported = export_run(
        opened,
        formats,
        probabilities=probabilities,
        calibration=calibration,
        samples=samples,
        max_loss=max_loss,
        output=output,
    )
    if as_json:
        print_json(asdict(exported))
    else:
        _print_exported(exported)
    if exported.problems:
        for problem in exported.problems:
            say(f"decant: {run}: {problem}", err=True)
        say("decant: nothing was published", err=True)
        sys.exit(1)
    say(f"made {', '.join(map(str, exported.files))}")
    if exported.missing:
        for missing in exported.missing:
            say(f"decant: {run}: {missing}", err=True)
        sys.exit(1)
    if _takes_images(opened):
        say(f"next: {command_line('predict', opened.folder, 'IMAGE')}")


@click.command()
@_run
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=PATH)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Number of classes to print for each file.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Probability from which a class is predicted by a binary or multi-label network.  [default: 0.5]",
)
@trust_option
@as_json
def predict(run: Path, images: tuple[Path, ...], top: int, threshold: float | None, as_json: bool) -> None:
    """Print the most likely classes of images.

    RUN is the folder of a run; its network predicts the classes. IMAGE is a file, or a folder of which all images are
    taken. Exit code 1 if a file cannot be read; the others are classified all the same.
    """
    from decant.pipeline.deploy.predict import Prediction, Predictor
    from decant.pipeline.runs.open import open_run

    predictor = Predictor.of(open_run(run), threshold)
    if predictor.names_missing is not None:
        say(predictor.names_missing, err=True)
    predictions = list[Prediction]()
    for prediction in predictor.predict(images, top):
        predictions.append(prediction)
        if prediction.problem is not None:
            say(f"decant: {prediction.problem}", err=True)
        elif not as_json:
            likeliest = ", ".join(f"{name} {percent(share)}" for name, share in prediction.classes)
            predicted = (
                "" if prediction.predicted is None else f"{', '.join(prediction.predicted) or 'none'}: "
            )
            say(f"{prediction.file}: {predicted}{likeliest}")
    if as_json:
        print_json([prediction.as_json() for prediction in predictions])
    if any(prediction.problem is not None for prediction in predictions):
        sys.exit(1)


def _export_language_model(
    run: FinishedRun,
    formats: tuple[str, ...] | None,
    probabilities: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    from decant.pipeline.deploy.language_model import export_language_model

    if probabilities:
        raise click.UsageError("--probabilities: is not of language models; leave it out")
    made = export_language_model(run, formats, output)
    if as_json:
        print_json(asdict(made))
    say(
        f"made {made.folder}: {made.bytes:,} bytes; loaded again, its tokens are the same, and its logits differ by at "
        f"most {made.largest_difference:.1e} on {made.samples:,} test samples"
    )


def _takes_images(run: FinishedRun) -> bool:
    """Whether `decant predict` can use the network of a run."""
    shape, pixels = run.result.network.input_shape, run.result.input_dtype in ("uint8", None)
    return pixels and not run.is_regression and len(shape) == 3 and shape[0] in (1, 3)


def _print_exported(exported: Exported) -> None:
    from decant.pipeline.deploy.check import HEADINGS

    print_table(HEADINGS, [row.cells() for row in exported.rows])
    say(f"on {exported.rows[0].samples:,} test samples; milliseconds at batch 1 on 1 thread")
    if exported.left_out is not None:
        say(exported.left_out)
