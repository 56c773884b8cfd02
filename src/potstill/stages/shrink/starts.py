"""Where a pretrained student starts: truncated, with the head of a probe on its features.

A fitted head instead of a random one keeps the pretrained features in the first steps (LP-FT, arXiv:2202.10054), which
matters most where there is time for few epochs. Students and controls of all seeds share the start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from potstill import artifacts
from potstill.model_files.folder import save_model
from potstill.models.truncated import AT
from potstill.stages.finetune.head import with_head
from potstill.stages.finetune.probe import fit_head
from potstill.stages.shrink.candidates import Base, Candidate
from potstill.stages.shrink.forecast import PENALTY, Sampled, features_of
from potstill.stages.shrink.look import Look
from potstill.stages.shrink.settings import ShrinkConfig

FOLDER = "starts"


def place_of(folder: Path, candidate: Candidate) -> Path:
    """Return the folder of the network that a pretrained candidate starts from."""
    return folder / FOLDER / candidate.network


def layer_of(candidate: Candidate) -> str:
    """Return the layer whose features the head of a candidate sees."""
    return candidate.model.partition(AT)[2] or "pooled"


def made(candidate: Candidate, base: Base, config: ShrinkConfig, look: Look, folder: Path) -> None:
    """Save the network that a candidate starts from, unless it is there."""
    place, layer = place_of(folder, candidate), layer_of(candidate)
    assert candidate.size, "pretrained candidates are for photos"
    size = candidate.size

    def work() -> dict[str, Any]:
        sampled = features_of(base, config.data, (layer,), size, look.manifest)
        save_model(with_head(sampled.network, layer, _head(sampled, layer)), place)
        return {}

    inputs = {"candidate": {**candidate.to_json(), "prior": None, "bits": None, "name": candidate.network}}
    artifacts.stage(place, inputs | {"data": look.manifest.fingerprint}, work)


def _head(sampled: Sampled, layer: str) -> Any:
    rows = sampled.manifest.rows("train", labelled=True)
    x = torch.from_numpy(sampled.features.views_of(rows, layer))
    label = torch.from_numpy(sampled.manifest.label[rows])
    return fit_head(x, label, len(sampled.manifest.classes), PENALTY)
