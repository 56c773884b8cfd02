"""The sources of networks (built-in, torchvision, timm): `family_of(name)[0].build(...)` returns network and card."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from potstill.errors import ModelError, did_you_mean, missing
from potstill.models import shared_head, truncated
from potstill.models.builtin import BUILTIN, OWN_SIZE
from potstill.models.card import Card
from potstill.models.freeze import bits
from potstill.models.hub import FLAGS, TIMM, TORCHVISION, fetched
from potstill.models.outputs import Classifier
from potstill.models.shared_head import SHARED_HEAD
from potstill.models.truncated import AT, TRUNCATED

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# torchvision's versions have side heads, and warn without an explicit initialisation.
TORCHVISION_QUIRKS = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


@dataclass(frozen=True)
class Request:
    """The requested properties of a model; `name` is without the family's prefix."""

    name: str
    classes: tuple[str, ...]
    size: tuple[int, int] | None = None
    channels: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    hub: bool = False


# Options of timm that read or download a file: weights are loaded only by --weights, which reads them safely.
_READS_FILES = ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "weights")


def _refuse_files(options: dict[str, Any]) -> None:
    if reading := [name for name in options if name in _READS_FILES]:
        raise ModelError(
            f"The option {', '.join(reading)} would load a file without checks. Remove it from `options`, and use "
            "`weights` (or --weights FILE) for weights."
        )


@dataclass(frozen=True)
class Family:
    """A source of models: its prefix, its names and how it creates a model."""

    prefix: str
    names: Callable[[], Sequence[str]]
    knows: Callable[[str], bool]
    make: Callable[[Request], tuple[nn.Module, Card]]

    def spell(self, name: str) -> str:
        """Return the full name, with prefix, of one of its names."""
        return f"{self.prefix}{name}"

    def build(self, request: Request) -> tuple[nn.Module, Card]:
        """Return network and card; raise `ModelError` for options that the architecture does not accept."""
        _refuse_files(request.options)
        try:
            return self.make(request)
        except TypeError as error:
            if not request.options or "argument" not in str(error):
                raise
            raise ModelError(
                f"The model '{self.spell(request.name)}' does not accept these options "
                f"({', '.join(request.options)}): {error}. Remove or rename them."
            ) from None


def blueprint(spelling: str, classes: tuple[str, ...]) -> tuple[nn.Module, Card]:
    """Return network and card without allocating weights: shapes and names only, on the meta device."""
    family, name = family_of(spelling)
    request = Request(name, classes)
    try:
        with torch.device("meta"):
            return family.build(request)
    except NotImplementedError:
        # torchvision's RegNets compute their widths with tensors, which must not be on the meta device.
        return family.build(request)


LISTED = "`potstill models '*' --most 2000` lists them"


def family_of(spelling: str) -> tuple[Family, str]:
    """Return the family of a full name and the name inside it; raise `ModelError` if it is unknown.

    NAME@LAYER, a network that is truncated after a layer, has a family of its own, which lists no names.
    """
    if AT in spelling:
        family_of(spelling.rpartition(AT)[0])
        return CUT_AT, spelling
    prefix, colon, name = spelling.partition(":")
    if colon and f"{prefix}:" not in FAMILIES:
        raise ModelError(
            f"There are no models with the prefix '{prefix}:'. Use builtin:NAME, torchvision:NAME or a timm NAME; "
            f"{LISTED}."
        )
    family, name = (FAMILIES[f"{prefix}:"], name) if colon else (FAMILIES[""], spelling)
    if not family.knows(name):
        raise _unknown(spelling, family, name)
    return family, name


def _unknown(spelling: str, family: Family, name: str) -> ModelError:
    if Path(spelling).is_file():
        return ModelError(
            f"{spelling} is a file of weights, which does not contain the name of its network. Give the name of the "
            "network as the model, and the file as its weights."
        )
    if "/" in spelling:
        return ModelError(f"{missing(Path(spelling))} A model is the folder of a finished run, or a name; {LISTED}.")
    others = [f.spell(name) for f in FAMILIES.values() if f is not family and f.knows(name)]
    hint = f" Did you mean '{others[0]}'?" if others else ""
    hint = hint or did_you_mean(spelling, [family.spell(known) for known in family.names()])
    pattern = f"{name.split('-')[0].split('_')[0]}*"
    known = [f.spell(one) for f in FAMILIES.values() for one in f.names()]
    similar = len(pattern) > 1 and fnmatch.filter(known, pattern)
    listed = f"`potstill models '{pattern}'` lists similar names" if similar else LISTED
    return ModelError(f"There is no model '{spelling}'.{hint} {listed}.")


def _builtin(request: Request) -> tuple[nn.Module, Card]:
    if request.hub:
        raise _unpublished(f"builtin:{request.name}")
    size = request.size or OWN_SIZE.get(request.name, (32, 32))
    channels = request.channels or 3
    network = BUILTIN[request.name](len(request.classes), channels, size, **request.options)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,), (0.5,))
    return network, _card(f"builtin:{request.name}", request, size=size, mean=mean, std=std)


def _torchvision(request: Request) -> tuple[nn.Module, Card]:
    from torchvision.models import get_model, get_model_weights

    published = cast(Any, get_model_weights(request.name)).DEFAULT
    preset = published.transforms()
    own = (preset.crop_size[0], preset.crop_size[0])
    options = {**TORCHVISION_QUIRKS.get(request.name, {}), **request.options}
    if request.name.startswith("vit_"):
        options.setdefault("image_size", (request.size or own)[0])
    network = get_model(request.name, weights=None, num_classes=len(request.classes), **options)
    card = _card(
        f"torchvision:{request.name}",
        request,
        size=request.size or own,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )
    card = card if card.size != own else card.replace(resize=preset.resize_size[0])
    if request.hub:
        state = fetched(lambda: published.get_state_dict(progress=False), model=card.model, host=TORCHVISION)
        shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
        fitting = {name: tensor for name, tensor in state.items() if shapes.get(name) == tensor.shape}
        network.load_state_dict(fitting, strict=False)  # the rest is a head for other classes
        card = card.replace(source=f"torchvision {published}", weights_sha256=bits(network))
    return network, card


def _timm(request: Request) -> tuple[nn.Module, Card]:
    import timm

    settings: Any = timm.get_pretrained_cfg(request.name)
    own: tuple[int, int] = settings.input_size[1:]
    size = request.size or own
    options = dict(request.options)
    if settings.fixed_input_size and size != own:
        options["img_size"] = size
    if request.channels == 1:
        options["in_chans"] = 1
    network = _timm_network(request, settings, options)
    card = _card(
        request.name,
        request,
        size=size,
        mean=_per_channel(settings.mean, request.channels),
        std=_per_channel(settings.std, request.channels),
        licence=settings.license or "unknown",
    )
    card = card if size != own else card.replace(resize=int(min(size) / settings.crop_pct))
    if request.hub:
        card = card.replace(source=f"timm {settings.architecture}.{settings.tag}", weights_sha256=bits(network))
    return network, card


def _timm_network(request: Request, settings: Any, options: dict[str, Any]) -> nn.Module:
    import timm

    def make() -> nn.Module:
        return timm.create_model(request.name, pretrained=request.hub, num_classes=len(request.classes), **options)

    if not request.hub:
        return make()
    if not settings.has_weights:
        raise _unpublished(request.name)
    return fetched(make, model=request.name, host=TIMM)


def _unpublished(spelling: str) -> ModelError:
    return ModelError(f"There are no published weights for '{spelling}'. Use a file ({FLAGS}), or train it yourself.")


def _per_channel(values: tuple[float, ...], channels: int | None) -> tuple[float, ...]:
    """Return the normalisation; for a grey network the mean over the three colours."""
    return (sum(values) / len(values),) if channels == 1 else tuple(values)


def _card(model: str, request: Request, *, size: tuple[int, int], mean: tuple[float, ...], **more: Any) -> Card:
    return Card(
        model=model,
        classes=request.classes,
        channels=len(mean),
        size=(size[0], size[1]),
        resize=min(size),
        crop=(size[0], size[1]),
        mean=mean,
        options=dict(request.options),
        **more,
    )


def _timm_names() -> list[str]:
    import timm

    return timm.list_models()


def _timm_knows(name: str) -> bool:
    import timm

    architecture, dot, _ = name.partition(".")
    return timm.is_model(architecture) and (not dot or name in timm.list_pretrained(f"{architecture}.*"))


def _torchvision_names() -> list[str]:
    import torchvision.models

    # The classifiers; segmentation, video and others are in other modules.
    return torchvision.models.list_models(module=torchvision.models)


def _known(name: str) -> bool:
    return any(name.startswith(f.prefix) and f.knows(name.removeprefix(f.prefix)) for f in FAMILIES.values())


def _whole(request: Request, options: dict[str, Any]) -> tuple[nn.Module, Card]:
    """Return the original network of a derived one, with its options."""
    family, name = family_of(request.name)
    return family.build(replace(request, name=name, options=options))


def _truncated(request: Request) -> tuple[nn.Module, Card]:
    _refuse_typed(request, "whole", "NAME@LAYER")
    network, card = _whole(request, request.options["whole"])
    rebuilt = truncated.rebuild(network, request.name, request.options, len(request.classes))
    return rebuilt, card.replace(model=f"{TRUNCATED}{request.name}", options=request.options)


def _cut_at(request: Request) -> tuple[nn.Module, Card]:
    name, _, place = request.name.rpartition(AT)
    family, inner = family_of(name)
    network, card = family.build(replace(request, name=inner))
    made = truncated.cut_at(Classifier(network, card), place)
    return made.network, made.card


def _refuse_typed(request: Request, key: str, typed: str) -> None:
    """Raise `ModelError` for a name that only cards have, without the options that belong to it."""
    if key not in request.options:
        raise ModelError(f"{request.name} with the prefix of a card is no name of a model. Type {typed}.")


def _shared_head(request: Request) -> tuple[nn.Module, Card]:
    _refuse_typed(request, "student", "the folder of the stage that made it")
    network, card = _whole(request, request.options["student"])
    rebuilt = shared_head.rebuild(network, request.options, len(request.classes))
    return rebuilt, card.replace(model=f"{SHARED_HEAD}{request.name}", options=request.options)


FAMILIES: dict[str, Family] = {
    "builtin:": Family("builtin:", lambda: list(BUILTIN), BUILTIN.__contains__, _builtin),
    "torchvision:": Family("torchvision:", _torchvision_names, lambda name: name in _torchvision_names(), _torchvision),
    "": Family("", _timm_names, _timm_knows, _timm),
    TRUNCATED: Family(TRUNCATED, lambda: [], _known, _truncated),
    SHARED_HEAD: Family(SHARED_HEAD, lambda: [], _known, _shared_head),
}

CUT_AT = Family("", lambda: [], _known, _cut_at)
"""Networks that are truncated where the name says, NAME@LAYER; their cards use the prefix `TRUNCATED`."""
