"""Flags and arguments that several commands share, each defined once.

The name of a parameter is the keyword of the public function. Sections of the help are named by `panel`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from potstill.cli.command import Rare

IMAGES, NETWORKS, TRAINING, MACHINES = "Images", "Networks", "Training", "Machines"


def option(
    panel: str | None, text: str, *flags: str, parser: Callable[[str], Any] | None = None, rare: bool = False
) -> Any:
    """Return a flag in a section of the help.

    parser: makes its value of what was typed. rare: only `--help-all` shows it.
    """
    metavar = None if parser is None else f"<{parser.__name__}>"
    section = Rare(panel or "Others") if rare else panel
    return typer.Option(*flags, help=text, rich_help_panel=section, parser=parser, metavar=metavar)


def numbers(text: str) -> list[float]:
    """Return the numbers of "0.485,0.456,0.406"."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter("it takes numbers with commas between, such as 0.485,0.456,0.406.") from None


def counts(text: str) -> list[int]:
    """Return the whole numbers of "1,32"."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter("it takes whole numbers with commas between, such as 1,32.") from None


def names(text: str) -> list[str]:
    """Return the parts of "cat, dog"."""
    return [part.strip() for part in text.split(",")]


# arguments
Data = Annotated[str, typer.Argument(help="A folder of images, an archive, MNIST files, or 'digits'.")]
Model = Annotated[str, typer.Argument(help="A run or stage folder, an exported or packed file, or a name.")]
Network = Annotated[str, typer.Argument(help="A run or stage folder, or a name with --weights.")]
Recipe = Annotated[Path, typer.Argument(help="A YAML recipe.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change.")]

# output
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the results (default: a new one under runs/).")]
Json = Annotated[bool, typer.Option("--json", help="Print the figures as JSON on standard output.")]
Force = Annotated[bool, typer.Option("--force", help="Replace existing output files, even those of other programs.")]
AllowCode = Annotated[
    list[Path] | None,
    typer.Option("--allow-code", metavar="FILE.py", help="A Python file whose losses may be executed."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no notes and no progress.")]

# machines
Workers = Annotated[
    int | None, option(MACHINES, "Trainings at a time, in processes of one thread (default: 1).", rare=True)
]
Ray = Annotated[
    str | None, option(MACHINES, "A Ray cluster that trains: auto, or HOST:PORT (docs/scaling.md).", rare=True)
]
Gpus = Annotated[float | None, option(MACHINES, "With --ray: the share of a GPU that a training takes.", rare=True)]

# images
RunData = Annotated[str | None, option(IMAGES, "The images (default: those of the run).")]
Limit = Annotated[int | None, option(IMAGES, "Use about this many images, stratified by class.")]
Unlabelled = Annotated[str | None, option(IMAGES, "A folder or archive of images without labels, to learn from too.")]
Group = Annotated[
    str | None,
    option(IMAGES, "Keep images in one split: a pattern of paths below the data, near-copies or exif.", rare=True),
]
TestFrom = Annotated[
    str | None, option(IMAGES, "If there is no test split, make one from train or half of val, or none.", rare=True)
]
Augment = Annotated[str | None, option(IMAGES, "Augmentation policy, or none (default: auto).")]
Views = Annotated[int | None, option(IMAGES, "Augmented views of each image.", rare=True)]
Fit = Annotated[str | None, option(IMAGES, "Photos of another shape: crop (default), letterbox or stretch.", rare=True)]
Split = Annotated[str, option(IMAGES, "train, validation or test.")]

# goal
GOAL = "Goal"
MinAccuracy = Annotated[float | None, option(GOAL, "Accuracy that the shipped file must reach, in percent.", rare=True)]
MaxDrop = Annotated[float | None, option(GOAL, "Points that it may be below the teacher.", rare=True)]
MaxBytes = Annotated[str | None, option(GOAL, "Size of the shipped file: 300kB.", rare=True)]
MaxLatency = Annotated[str | None, option(GOAL, "One image, one thread, on this machine: 2ms.", rare=True)]

# networks
Weights = Annotated[Path | None, option(NETWORKS, "For a name: a file of weights, package:NAME, hub or auto.")]
TeacherWeights = Annotated[Path | None, option(NETWORKS, "For a name: a file of weights, package:NAME, hub or auto.")]
Classes = Annotated[Any, option(NETWORKS, "Comma-separated class names, for weights that carry none.", parser=names)]
Retrainer = Annotated[
    str | None, option(NETWORKS, "The teacher (default: the run's, else the model as it was), or 'none'.")
]
Mean = Annotated[
    Any,
    option(NETWORKS, "Normalisation mean, for weights without a card: 0.5,0.5,0.5.", parser=numbers, rare=True),
]
Std = Annotated[
    Any, option(NETWORKS, "Normalisation standard deviation, of images in 0..1.", parser=numbers, rare=True)
]

# training
Epochs = Annotated[int | None, option(TRAINING, "Training epochs.")]
TrainImages = Annotated[int | None, option(TRAINING, "Train on this many images, instead of --epochs.")]
BatchSize = Annotated[
    int | None, option(TRAINING, "Batch size (default: 128, or 32 of fewer than 1,000 training images).")
]
LearningRate = Annotated[float | None, option(TRAINING, "Peak learning rate.")]
Select = Annotated[
    str | None, option(TRAINING, "Kept epoch: last, best on validation, or balanced (best by balanced accuracy).")
]
Balance = Annotated[
    str | None, option(TRAINING, "For classes of unequal size: none, sqrt, full or logit-adjust (docs/recipes.md).")
]
Seeds = Annotated[int | None, option(TRAINING, "Number of seeds.")]
FirstSeed = Annotated[int | None, option(TRAINING, "First random seed.")]
Seed = Annotated[int | None, option(TRAINING, "Random seed.")]
Reject = Annotated[
    str | None,
    typer.Option(
        metavar="'precision>=0.99'",
        help="Answer only where so much precision is guaranteed.",
        rich_help_panel=Rare("Others"),
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="NAME:FLASH/RAM",
        help="The device it must fit on: cortex-m4:256k/64k.",
        rich_help_panel=Rare("Others"),
    ),
]
Input = Annotated[
    str | None,
    option(None, "What ONNX files take: raw (photos of any size; default) or prepared.", rare=True),
]
Calibration = Annotated[
    int | None,
    typer.Option(help="Number of training images for calibration (default: 512).", rich_help_panel=Rare("Others")),
]
