"""`potstill.load`: a trained model as an `nn.Module` that takes images as people have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from potstill.api.answers import Evaluation, Prediction
from potstill.api.verb import verb
from potstill.compress.quantize import quantized_layers
from potstill.errors import ModelError, Unanswered
from potstill.exporters import export_onnx, gate
from potstill.exporters.onnx_float import OPSET
from potstill.model_files.onnx_input import InputForm
from potstill.model_files.open import Opened
from potstill.models.card import Card
from potstill.models.outputs import Classifier, bare
from potstill.stages.inference.evaluate import evaluate as evaluate_stage
from potstill.stages.inference.images import collected
from potstill.stages.inference.predict import classify, trained
from potstill.words import plural


class Model(nn.Module):
    """A trained classifier, in eval mode.

    card: classes, input size, normalisation, licence and hash of the weights. source: where it was loaded from.
    classifier: the network with its card; None where the model is an exported file, which has no parameters here.
    """

    def __init__(self, opened: Opened, source: str) -> None:
        super().__init__()
        self.card: Card = opened.card
        self.source = source
        self.classifier = opened if isinstance(opened, Classifier) else None
        self._opened = (opened,)  # a tuple, so that the classifier is registered once
        self.eval()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return tuple(self.card.classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [B, K] for images [B, C, H, W] in 0..1 of any size; it resizes and normalises them itself."""
        return self._opened[0](image).logits

    @verb
    def predict(self, images: Any) -> Prediction | list[Prediction]:
        """Return the class of an image, or a list for several.

        images: a path of a file, a Pillow image, an array [H, W] or [H, W, C] or a tensor [C, H, W] (uint8, or floats
        in 0..1) is one image. A folder (searched with all below), a batch [N, H, W, C] (array) or [N, C, H, W]
        (tensor), and a list of any of these are several. Floats are rounded to 8 bits, as an image file holds them.
        Raises `UserError` that names everything that is no image, when the others are classified: its `answered` has
        their predictions.
        """
        return answers_of(self, images).predictions()

    @verb
    def evaluate(
        self, data: str | Path | Mapping[str, Any], *, split: str = "test", limit: int | None = None
    ) -> Evaluation:
        """Return accuracy (percent), its 95 % interval and per-class recall on a split of labelled images.

        data: a path, or settings such as {"path": "photos", "group": ...}. The images are split as the run did whose
        folder was loaded. limit: images used, stratified.
        """
        path, settings = data_settings(data)
        device = None if self.classifier is None else next(self.classifier.parameters()).device
        try:
            return Evaluation(
                evaluate_stage(self._opened[0], path, split=split, limit=limit, source=self.source, settings=settings)
            )
        finally:
            if device is not None:
                self.to(device)

    def to_onnx(self, path: str | Path, *, input: InputForm = "raw", opset: int = OPSET) -> Path:
        """Write the network as an ONNX file with preprocessing, normalisation and card inside; return its path.

        input: "raw" (photos of any size, uint8 [batch, height, width, 1 or 3]) or "prepared" (float32 [batch, C, H, W]
        in 0..1 at the size of the network).

        Raises `ModelError` where it is an exported file already, or was quantized.
        """
        file = Path(path)
        if self.classifier is None:
            raise ModelError(
                f"{self.source} is an exported file already: copy it, or load the run or stage folder that it was "
                "exported from and call to_onnx on that."
            )
        if quantized_layers(bare(self.classifier.network)):
            raise ModelError(
                f"{self.source} was quantized, and its integers need images to calibrate with. Export it with "
                f"potstill.export({self.source!r}), which writes {file.name} as it should be."
            )
        file = file if file.suffix else file.with_suffix(".onnx")
        export_onnx(self.classifier, file, input=input, opset=opset)
        gate.check_float(file, self.classifier, gate.noise(self.classifier))
        return file

    def extra_repr(self) -> str:
        """Return what the model is, for print."""
        shape = "x".join(map(str, (self.card.channels, *self.card.size)))
        return f"{self.card.model!r}, {len(self.classes)} classes, {shape}, {self.source!r}"


@dataclass(frozen=True)
class Answers:
    """What a model answers to images. rows: as `classify` returns them. problems: of what is no image.

    single: whether it was one image instead of several.
    """

    rows: list[dict[str, Any]]
    problems: list[str]
    single: bool

    @property
    def found(self) -> list[Prediction]:
        """The predictions of the images that can be read."""
        return [Prediction(row) for row in self.rows if "class" in row]

    def predictions(self) -> Prediction | list[Prediction]:
        """Return all predictions; raise `Unanswered` with those there are if there is anything without one."""
        found = self.found
        problems = [*self.problems, *self._unreadable(len(found))]
        if problems:
            raise Unanswered(*problems, answered=found)
        return found[0] if self.single else found

    def _unreadable(self, found: int) -> Iterator[str]:
        for row in self.rows:
            yield from row.get("problems", ())
        if missing := len(self.rows) - found:
            which, them = ("has", "it") if missing == 1 else ("have", "them")
            others = "; the others have one" if found else ""
            yield (
                f"{missing:,} of {plural(len(self.rows), 'image')} cannot be read and {which} no answer{others}. "
                f"Repair, replace or remove {them}, and run this again."
            )

    def table(self) -> Iterator[tuple[str, str, str]]:
        """Yield path, class and probability of each image; the last two are empty where it cannot be read."""
        for row in self.rows:
            yield row["image"], row.get("class", ""), f"{row['probability']:.4f}" if "class" in row else ""


def answers_of(model: Model, images: Any) -> Answers:
    """Return the answers of a model to images in any form that `Model.predict` takes."""
    given, problems, single = collected(images)
    return Answers(classify(model._opened[0], given), problems, single)


def data_settings(data: str | Path | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the path of images that were given as such or as settings, and the other settings."""
    if not isinstance(data, Mapping):
        return str(data), {}
    settings = {name: value for name, value in data.items() if name != "path"}
    return str(data.get("path", "")), settings


@verb
def load(path_or_name: str | Path, weights: str | Path | None = None, classes: Sequence[str] | None = None) -> Model:
    """Return a trained model: an `nn.Module` with `predict`, `evaluate` and `to_onnx`.

    Args:
        path_or_name: a run folder (its best student), a stage folder, an exported or packed file, or a network's name.
        weights: a file, for a network given by name.
        classes: their names, for weights that carry none.

    Raises `ModelError` where there is no such model.
    """
    source = str(path_or_name)
    return Model(trained(source, weights=weights, classes=classes), source)
