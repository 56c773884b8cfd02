"""What potstill is compared with: distillation as it is published, by itself and by another library.

Both have the dataset in memory behind torchvision's transforms and a DataLoader, ask a live fp32 teacher in every
step, and train with SGD.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from potstill.models.outputs import Classifier
from potstill.torch_context import autocast
from potstill.training import devices

from .world import ALPHA, BATCH, MEAN, STD, STUDENT, TEACHER, TEMPERATURE, World

Step = Callable[[], int]
SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}


@dataclass(frozen=True)
class Variant:
    """What potstill's loop does otherwise, one at a time: Nesterov momentum, mirrored borders of shifted images, bf16,
    and `views` fixed views of each image instead of new ones.
    """

    nesterov: bool = False
    mirrored: bool = False
    bf16: bool = False
    views: int | None = None


PUBLISHED = Variant()
VARIANTS = {
    "published": PUBLISHED,
    "nesterov": Variant(nesterov=True),
    "mirrored borders": Variant(mirrored=True),
    "bf16": Variant(bf16=True),
    "2 repeated views": Variant(views=2),
    "all four": Variant(True, True, True, 2),
}


class InMemory(torch.utils.data.Dataset):
    """Images in memory behind torchvision transforms, as torchvision's own CIFAR-10 is."""

    def __init__(self, world: World, variant: Variant = PUBLISHED) -> None:
        from torchvision import transforms

        self._images, self._label, self._views = world.images, world.label.tolist(), variant.views
        self._random = random.Random(0)
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4, padding_mode="reflect" if variant.mirrored else "constant"),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self._label)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        from PIL import Image

        image = Image.fromarray(self._images[row])
        if self._views is None:
            return self._transform(image), self._label[row]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(row * self._views + self._random.randrange(self._views))
            return self._transform(image), self._label[row]


class Rival(Protocol):
    """A training by steps whose state can be saved after an epoch: each call trains on a batch, returns its images."""

    def __call__(self) -> int: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def plain(world: World, folder: Path, *, workers: int) -> Step:
    """Return a step of the published loop."""
    return Published(world, world.network(STUDENT), workers=workers)


class Published:
    """The published loop, which trains a student: teacher in eval mode without gradient, temperature 4, SGD.

    steps: over which the learning rate falls to 0 (cosine); None keeps it. sgd: rate, momentum and weight decay.
    """

    def __init__(
        self,
        world: World,
        classifier: Classifier,
        *,
        workers: int = 0,
        steps: int | None = None,
        variant: Variant = PUBLISHED,
        sgd: Mapping[str, float] = SGD,
    ) -> None:
        self._on, self._precision = devices.device(), "bf16" if variant.bf16 else "fp32"
        self._teacher = world.network(TEACHER).network.eval().to(self._on)
        self._student = classifier.network.train().to(self._on)
        self._optimizer = torch.optim.SGD(self._student.parameters(), **sgd, nesterov=variant.nesterov)
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, steps) if steps else None
        self._batches = _batches(InMemory(world, variant), workers)

    def __call__(self) -> int:
        image, label = (part.to(self._on) for part in next(self._batches))
        with torch.no_grad():
            target = self._teacher(image)
        with autocast(self._on, self._precision):
            said = self._student(image)
        said = said.float()
        soft = F.kl_div(F.log_softmax(said / TEMPERATURE, 1), F.softmax(target / TEMPERATURE, 1), reduction="batchmean")
        loss = ALPHA * F.cross_entropy(said, label) + (1 - ALPHA) * TEMPERATURE**2 * soft
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        loss.item()  # they all log it
        if self._schedule:
            self._schedule.step()
        return len(label)

    def state_dict(self) -> dict[str, Any]:
        """Return what the training goes on from after an epoch."""
        return _state(self._student, self._optimizer, self._schedule)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        _set_state(state, self._student, self._optimizer, self._schedule)


def _state(student: nn.Module, optimizer: Any, schedule: Any) -> dict[str, Any]:
    parts = {"student": student, "optimizer": optimizer, "schedule": schedule}
    return {name: part and part.state_dict() for name, part in parts.items()} | {"random": torch.get_rng_state()}


def _set_state(state: dict[str, Any], student: nn.Module, optimizer: Any, schedule: Any) -> None:
    for name, part in (("student", student), ("optimizer", optimizer), ("schedule", schedule)):
        if part is not None:
            part.load_state_dict(state[name])
    torch.set_rng_state(state["random"])


def _batches(images: InMemory, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    made = torch.utils.data.DataLoader(
        images, batch_size=BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
    )
    return itertools.chain.from_iterable(made for _ in itertools.count())


def torchdistill(world: World, folder: Path) -> Step:
    """Return a step of torchdistill's KD recipe for CIFAR-10, with these networks and images."""
    return Theirs(world, world.network(STUDENT))


class Theirs:
    """torchdistill's KD recipe, which trains a student. epochs: 182 in the recipe."""

    def __init__(self, world: World, student: Classifier, *, epochs: int = 182, sgd: Mapping[str, float] = SGD) -> None:
        from torchdistill.core.distillation import get_distillation_box

        self._on, self._epoch, self._steps = devices.device(), 0, 0
        networks = (one.network.to(self._on) for one in (world.network(TEACHER), student))
        data, settings = {"train": InMemory(world)}, _their_settings(epochs, sgd)
        self._box = get_distillation_box(*networks, data, settings, self._on, [], False, 1)
        self._box.teacher_model.eval()
        self._batches = self._epochs()

    def __call__(self) -> int:
        image, label, extra = next(self._batches)
        loss = self._box.forward_process(image.to(self._on), label.to(self._on), extra)
        self._box.post_forward_process(loss)
        loss.item()
        self._steps += 1
        if self._steps % len(self._box.train_data_loader) == 0:
            self._box.lr_scheduler.step()
            self._epoch += 1
        return len(label)

    def _epochs(self) -> Iterator[tuple[Tensor, Tensor, dict]]:
        while True:
            self._box.pre_epoch_process(epoch=self._epoch)
            yield from self._box.train_data_loader

    def state_dict(self) -> dict[str, Any]:
        """Return what the training goes on from after an epoch."""
        box = self._box
        return _state(box.student_model, box.optimizer, box.lr_scheduler) | {"epoch": self._epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        box = self._box
        _set_state(state, box.student_model, box.optimizer, box.lr_scheduler)
        self._epoch = state["epoch"]


def _their_settings(epochs: int, sgd: Mapping[str, float]) -> dict[str, Any]:
    """Return the settings of their recipe for ResNet-20 on CIFAR-10, but for the names of data and networks.

    The learning rate falls after 91 and after 136 of their 182 epochs, and at the same parts of fewer.
    """
    loading = {
        "dataset_id": "train",
        "sampler": {"class_or_func": torch.utils.data.RandomSampler},
        "kwargs": {"batch_size": BATCH, "num_workers": 2, "drop_last": True, "persistent_workers": True},
    }
    says = {"student_module_path": ".", "student_module_io": "output", "teacher_module_path": "."}
    loss = {**says, "teacher_module_io": "output", "temperature": TEMPERATURE, "alpha": 1 - ALPHA}
    term = {"weight": 1.0, "criterion": {"key": "KDLoss", "kwargs": {**loss, "reduction": "batchmean"}}}
    return {
        "num_epochs": epochs,
        "train_data_loader": loading,
        "val_data_loader": {},
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only", "requires_grad": True},
        "optimizer": {"key": "SGD", "kwargs": dict(sgd)},
        "scheduler": {
            "key": "MultiStepLR",
            "kwargs": {"milestones": [epochs // 2, round(epochs * 136 / 182)], "gamma": 0.1},
        },
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": term}}},
    }
