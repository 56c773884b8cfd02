"""A transfer: features, linear probe, fine-tuning, the choice between both, the test split once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from potstill import artifacts, distributed, progress
from potstill.errors import ConfigError
from potstill.evaluation import metrics
from potstill.evaluation.measured import measured
from potstill.model_files.folder import load_model, save_model
from potstill.models import zoo
from potstill.models.freeze import bits
from potstill.models.outputs import Classifier
from potstill.progress import parts
from potstill.stages import dataset, rejection
from potstill.stages.finetune.backbone import backbone, side_of
from potstill.stages.finetune.candidates import Candidate, candidate, sentence_of
from potstill.stages.finetune.choice import PROBE, TUNED, Choice, choose
from potstill.stages.finetune.features import Features, extract, layers_of
from potstill.stages.finetune.head import with_head
from potstill.stages.finetune.lazy_data import Images
from potstill.stages.finetune.probe import Probe, probe
from potstill.stages.finetune.settings import FinetuneConfig
from potstill.stages.finetune.tune import tune
from potstill.stages.run_folder import Journal
from potstill.stages.shipped import Delivered, Gain, shipped
from potstill.stages.stage import stage
from potstill.stages.summary import weights_of
from potstill.stages.test_split import FILE, clean_logits
from potstill.training import engine


def finetune(config: FinetuneConfig, folder: Path, *, command: str = "") -> dict[str, Any]:
    """Run a transfer in `folder`, resuming an interrupted call; return its summary.

    The folder can be used as a model or teacher. It also has `probe/` and `tuned/`, `summary.json`, and the test logits
    of both.
    """

    def work(journal: Journal) -> dict[str, Any] | None:
        _note_ignored(config)
        if distributed.world() > 1:
            return _shared_out(config, folder, journal)
        if len(config.networks) == 1:
            return _Transfer(config, folder, journal).carry_out()
        best, candidates = _best(config, folder, journal)
        return best.carry_out() | {"candidates": [each.to_json() for each in candidates]}

    return stage("finetune", config, folder, work, name=folder.name, command=command)


def _shared_out(config: FinetuneConfig, folder: Path, journal: Journal) -> dict[str, Any] | None:
    """Carry out a transfer under torchrun: the processes share the tuning; process 0 does the rest, alone."""
    if len(config.networks) > 1:
        raise ConfigError("Several networks are compared by their probes in one process: start without torchrun.")
    transfer = _Transfer(config, folder, journal)
    if not config.from_scratch:
        distributed.by_main(transfer.keep_probe)
        transfer.models[PROBE] = load_model(folder / PROBE)
    transfer.tune()
    if not distributed.is_main():
        return None
    with distributed.alone():
        return transfer.finish()


def fitted(config: FinetuneConfig, folder: Path, journal: Journal) -> dict[str, Any]:
    """Fit the network and save it into `folder`, without a look at the test split; return the record of the model.

    kept: "probe" or "tuned"; validation_accuracy: in percent.
    """
    transfer = _Transfer(config, folder, journal)
    transfer.fit()
    kept, choice = transfer.choose()
    return {"kept": kept, "choice": choice and choice.to_json(), "validation_accuracy": transfer.validated(kept)}


def _best(config: FinetuneConfig, folder: Path, journal: Journal) -> tuple[_Transfer, list[Candidate]]:
    """Return the transfer of the model with the best probe on held-out training images, the first of equal ones."""
    best, kept, candidates = None, None, []
    for name in config.networks:
        transfer = _Transfer(config.model_copy(update={"model": name}), folder, journal)
        images = len(transfer.images.manifest.rows("train", labelled=True))
        candidates.append(candidate(name, transfer.fit_probe(), images))
        if kept is None or candidates[-1].accuracy > kept.accuracy:
            best, kept = transfer, candidates[-1]
    assert best is not None and kept is not None, "there are at least two"
    progress.note(sentence_of(candidates, kept))
    return best, candidates


class _Transfer:
    """The state of one `finetune`."""

    def __init__(self, config: FinetuneConfig, folder: Path, journal: Journal) -> None:
        self.config, self.folder, self.journal = config, folder, journal
        self.images = Images(config.data, side_of(config))
        pretrained = backbone(config, self.images)
        self.pretrained = pretrained.with_card(pretrained.card.replace(reject={}, device={}))
        self.precision = rejection.precision_of(config.reject, self.pretrained.card)
        if self.precision is not None:  # the images are decoded only where they are needed
            rejection.refuse(self.precision, self.images.data)
        self.models: dict[str, Classifier] = {}
        self.features: Features | None = None
        self.probe: Probe | None = None
        self.record: dict[str, Any] = {}

    def carry_out(self) -> dict[str, Any]:
        """Fit the network, evaluate the test split; return the stage's part of the summary."""
        parts.announce(*self._parts(), "evaluation")
        self.fit()
        return self.finish()

    def _parts(self) -> list[str]:
        """Return the parts before the evaluation, in their order."""
        probe = [] if self.config.from_scratch else ["features", "probe"]
        return [*probe, "tuning"] if self.config.from_scratch or self.config.unfreeze not in ("none", 0) else probe

    def finish(self) -> dict[str, Any]:
        """Choose and save the model, evaluate the test split; return the stage's part of the summary."""
        kept, choice = self.choose()
        test = self.journal.timed("evaluation", "Evaluated the test split once", self._evaluate)
        return self._summary(kept, choice, test)

    def fit(self) -> None:
        """Fit the probe and tune."""
        if not self.config.from_scratch:
            self.keep_probe()
        self.tune()

    def keep_probe(self) -> None:
        """Fit the probe, unless that is done, and save the network with it."""
        self._keep(self.probe or self.fit_probe())

    def tune(self) -> None:
        """Train the layers that are not frozen, if there are any."""
        scratch = self.config.from_scratch
        if scratch or self.config.unfreeze not in ("none", 0):
            title = "Trained from random weights" if scratch else "Fine-tuned"
            self.journal.timed("tuning", title, self._tune)

    def choose(self) -> tuple[str, Choice | None]:
        """Choose by validation and save the model; return its name and the choice."""
        choice = self._choose()
        kept = choice.kept if choice else next(iter(self.models))
        self._reject(kept)
        save_model(self.models[kept].cpu(), self.folder)
        return kept, choice

    def validated(self, name: str) -> float:
        """Return the validation accuracy of a model in percent."""
        rows = self.images.manifest.rows("validation", labelled=True)
        return round(metrics.accuracy(self._logits(name, rows), self.images.manifest.label[rows]), 3)

    def fit_probe(self) -> Probe:
        """Compute the features, and return the fitted probe."""
        self.features = self.journal.timed("features", "Computed features of the frozen network", self._features)
        self.probe = self.journal.timed("probe", "Fitted the linear probe", self._probe)
        return self.probe

    def _features(self) -> Features:
        config = self.config
        layers = layers_of(self.pretrained, config.features)
        return extract(
            self.pretrained,
            self.images,
            layers,
            views=config.views,
            augment=config.augment,
            seed=config.seed,
            precision=config.train.precision,
        )

    def _probe(self) -> Probe:
        config = self.config
        assert self.features is not None
        return probe(
            self.features,
            self.images.manifest,
            penalty=config.penalty,
            folds=config.folds,
            seed=config.seed,
            balance=config.train.balance,
        )

    def _keep(self, fitted: Probe) -> None:
        """Save the network with the probe as its head."""
        self.models[PROBE] = with_head(self.pretrained.cpu(), fitted.layer, fitted.head)
        save_model(self.models[PROBE], self.folder / PROBE)
        artifacts.finish(self.folder / PROBE, {"inputs": {}, **fitted.to_json()})

    def _tune(self) -> None:
        folder = self.folder / TUNED
        start = engine.clone(self.models.get(PROBE, self.pretrained))
        title = "Training from scratch" if self.config.from_scratch else "Fine-tuning"
        # The folder belongs to one set of settings, except for the weights that training starts from.
        inputs = {"images": self.images.manifest.fingerprint, "start": bits(start)}
        self.record = artifacts.stage(
            folder, inputs, lambda: tune(self.config, self.images, start, folder, title=title)
        )
        self.models[TUNED] = load_model(folder)

    def _choose(self) -> Choice | None:
        """Return the choice between two models by validation; None if there is only one."""
        if len(self.models) < 2:
            return None
        rows = self.images.manifest.rows("validation", labelled=True)
        label = self.images.manifest.label[rows]
        correct = (self._logits(name, rows).argmax(1) == label for name in (PROBE, TUNED))
        choice = choose(*correct, weight=weights_of(label, self.config.train))
        progress.note(choice.sentence)
        return choice

    def _reject(self, kept: str) -> None:
        """Give the kept model the threshold that its validation images allow."""
        if self.precision is not None:
            rows = self.images.manifest.rows("validation", labelled=True)
            model, label = self.models[kept], self.images.manifest.label[rows]
            card = rejection.chosen(model.card, self._logits(kept, rows), label, self.precision)
            self.models[kept] = model.with_card(card)

    def _logits(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return the logits of a model, float32 [N, K]; those of the probe are computed from the stored features."""
        if name == PROBE and self.probe and self.features:
            return self.probe.logits(self.features, rows)
        return clean_logits(self.models[name], self.images.data, rows)

    def _evaluate(self) -> dict[str, np.ndarray]:
        """Return the logits of every model for the test split, computed once."""
        rows = self.images.manifest.rows("test", labelled=True)
        folder = self.folder / "evaluation"

        def work() -> dict[str, Any]:
            with artifacts.atomic(folder / FILE) as temporary:
                temporary.write_bytes(save({name: self._logits(name, rows) for name in self.models}))
            return {"images": len(rows)}

        tested = self.images.manifest.select(rows).fingerprint
        identities = {name: bits(model) for name, model in self.models.items()}
        artifacts.stage(folder, {"test": tested, "models": identities}, work)
        return load_file(folder / FILE)

    def _summary(self, kept: str, choice: Choice | None, test: dict[str, np.ndarray]) -> dict[str, Any]:
        manifest, card = self.images.manifest, self.models[kept].card
        label = manifest.label[manifest.rows("test", labelled=True)]
        return {
            "data": dataset.facts_of(manifest, self.config.data.path, self.images.shown.channels, card.size),
            "card": card.to_json(),
            "models": {
                name: {
                    "parameters": zoo.count_parameters(self.models[name]),
                    **measured(logits, label, classes=manifest.classes),
                    **rejection.tested(name, self.models[name], logits, label),
                }
                for name, logits in test.items()
            },
            **self._shipped(kept, test),
            "kept": kept,
            "choice": choice.to_json() if choice else None,
            "probe": self.probe.to_json() if self.probe else None,
            "tuning": self.record or None,
        }

    def _shipped(self, kept: str, test: dict[str, np.ndarray]) -> dict[str, Any]:
        """Return the kept model as what is shipped: its weights, of which `export` makes files."""
        why = "" if len(test) == 1 else "the better of probe and fine-tuned model on validation"
        size, card = (self.folder / zoo.WEIGHTS).stat().st_size, self.models[kept].card
        one = Delivered(kept, zoo.WEIGHTS, test[kept], size, why=why, card=card)
        gains = [] if len(test) == 1 else [Gain("Fine-tuning, against the probe", test[PROBE], test[TUNED])]
        return shipped(one, self.images.manifest, self.folder, gains=gains)


def _note_ignored(config: FinetuneConfig) -> None:
    plain = FinetuneConfig(data=config.data, model=config.model)
    names = ("features", "views", "penalty", "folds", "unfreeze", "head_rate", "layer_decay")
    ignored = [name for name in names if getattr(config, name) != getattr(plain, name)]
    if config.from_scratch and ignored:
        progress.note(f"Training from scratch has no probe and no frozen layers; ignored: {', '.join(ignored)}.")
