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
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

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


def plain(world: World, folder: Path, *, workers: int) -> Step:
    """Return a step of the published loop."""
    return published(world, world.network(STUDENT), workers=workers)


def published(
    world: World,
    classifier: Classifier,
    *,
    workers: int = 0,
    steps: int | None = None,
    variant: Variant = PUBLISHED,
    sgd: Mapping[str, float] = SGD,
) -> Step:
    """Return a step that trains a student: teacher in eval mode without gradient, temperature 4, SGD.

    steps: over which the learning rate falls to 0 (cosine); None keeps it. sgd: rate, momentum and weight decay.
    """
    on = devices.device()
    teacher, student = world.network(TEACHER).network.eval().to(on), classifier.network.train().to(on)
    optimizer = torch.optim.SGD(student.parameters(), **sgd, nesterov=variant.nesterov)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) if steps else None
    batches = _batches(InMemory(world, variant), workers)

    def step() -> int:
        image, label = (part.to(on) for part in next(batches))
        with torch.no_grad():
            target = teacher(image)
        with autocast(on, "bf16" if variant.bf16 else "fp32"):
            said = student(image)
        said = said.float()
        soft = F.kl_div(F.log_softmax(said / TEMPERATURE, 1), F.softmax(target / TEMPERATURE, 1), reduction="batchmean")
        loss = ALPHA * F.cross_entropy(said, label) + (1 - ALPHA) * TEMPERATURE**2 * soft
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # they all log it
        if schedule:
            schedule.step()
        return len(label)

    return step


def _batches(images: InMemory, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    made = torch.utils.data.DataLoader(
        images, batch_size=BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
    )
    return itertools.chain.from_iterable(made for _ in itertools.count())


def torchdistill(world: World, folder: Path) -> Step:
    """Return a step of torchdistill's KD recipe for CIFAR-10, with these networks and images."""
    return their_training(world, world.network(STUDENT))


def their_training(world: World, student: Classifier, *, epochs: int = 182, sgd: Mapping[str, float] = SGD) -> Step:
    """Return a step of torchdistill's KD recipe that trains a student; epochs: 182 in the recipe."""
    from torchdistill.core.distillation import get_distillation_box

    on = devices.device()
    networks = (one.network.to(on) for one in (world.network(TEACHER), student))
    box = get_distillation_box(*networks, {"train": InMemory(world)}, _their_settings(epochs, sgd), on, [], False, 1)
    box.teacher_model.eval()
    batches = _their_batches(box)

    def step() -> int:
        image, label, extra = next(batches)
        loss = box.forward_process(image.to(on), label.to(on), extra)
        box.post_forward_process(loss)
        loss.item()
        return len(label)

    return step


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


def _their_batches(box: object) -> Iterator[tuple[Tensor, Tensor, dict]]:
    for epoch in itertools.count():
        box.pre_epoch_process(epoch=epoch)
        yield from box.train_data_loader
        box.lr_scheduler.step()
