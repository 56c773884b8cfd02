"""Distillation losses by name. docs/losses.md describes when to use which.

A loss is a function of tensors that returns one value per sample [B]. Its inputs are selected by parameter name:
`student`, `teacher` (logits or features), `label`, `index`; all other parameters are keywords with defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn

from potstill import own_code
from potstill.errors import ConfigError, did_you_mean
from potstill.losses import own
from potstill.losses.contrastive import Crd
from potstill.losses.correlation import dist, mlld
from potstill.losses.decoupled import dkd, nkd
from potstill.losses.features import feature_mse, hcl
from potstill.losses.fusion import ReviewKD, SimKD
from potstill.losses.learned import LearnedTemperature, Ofd, Srrl, Vid
from potstill.losses.logits import cross_entropy, hard_label, kd, ls_kd, soft_cross_entropy, ttm, wttm
from potstill.losses.maps import at, fsp, ickd, nst
from potstill.losses.relations import pkt, rkd, sp
from potstill.losses.spec import Spec

OTHER_CLASSES = "it compares the classes other than the labelled one, and with two classes there is only one"

SPECS: dict[str, Spec] = {
    "cross_entropy": Spec(cross_entropy),
    "soft_cross_entropy": Spec(soft_cross_entropy),
    "hard_label": Spec(hard_label),
    "kd": Spec(kd),
    "ls_kd": Spec(
        ls_kd,
        two_classes="two standardised logits are always 0.71 and -0.71, so that only their order remains, which has "
        "no gradient",
    ),
    "dkd": Spec(dkd, two_classes=f"{OTHER_CLASSES}; what remains is kd"),
    "nkd": Spec(nkd, two_classes=OTHER_CLASSES),
    "dist": Spec(dist, whole_batch=True),
    "ttm": Spec(ttm),
    "wttm": Spec(wttm),
    "mlld": Spec(mlld, whole_batch=True),
    "ctkd": Spec(LearnedTemperature),
    "feature_mse": Spec(feature_mse, on="features", projects=True),
    "sp": Spec(sp, on="features", whole_batch=True),
    "rkd": Spec(rkd, on="features", tap="pooled", whole_batch=True),
    "pkt": Spec(pkt, on="features", tap="pooled", whole_batch=True),
    "vid": Spec(Vid, on="features", projects=True, channels_first=True),
    "srrl": Spec(Srrl, on="pooled", tap="pooled"),
    "crd": Spec(Crd, on="pooled", tap="pooled", remembers=True),
    "at": Spec(at, on="maps"),
    "nst": Spec(nst, on="maps"),
    "ickd": Spec(ickd, on="maps", projects=True),
    "ofd": Spec(Ofd, on="maps", same_size=True, before_relu=True),
    "simkd": Spec(SimKD, on="maps", shares_head=True),
    "fsp": Spec(fsp, on="layers", projects=True, least_places=2),
    "hcl": Spec(hcl, on="layers", projects=True),
    "reviewkd": Spec(ReviewKD, on="layers"),
}
"""Every loss with its declaration (`losses/spec.py`)."""

LOSSES: dict[str, Callable[..., Tensor]] = {name: spec.function for name, spec in SPECS.items() if not spec.learned}
"""The losses without parameters."""

LEARNED: dict[str, type[nn.Module]] = {name: cast(Any, spec.function) for name, spec in SPECS.items() if spec.learned}
"""The losses that are modules: built once, trained with the student, called the same way."""


def spec_of(name: str) -> Spec:
    """Return the declaration of a loss; a user's own loss has the defaults. Raises like `resolve`."""
    return SPECS[name] if name in SPECS else Spec(resolve(name))


def resolve(name: str) -> Callable[..., Tensor]:
    """Return the loss `name`: a key of `LOSSES`, or `path/to/file.py:function`.

    Raises `ConfigError` if there is none, with the closest name and the list of all names.
    """
    if name in LOSSES:
        return LOSSES[name]
    if own_code.names_a_file(name):
        return own.load(name)
    raise ConfigError(
        f"There is no loss {name}.{did_you_mean(name, SPECS)} Losses: {', '.join(SPECS)}; "
        "or your own as FILE.py:FUNCTION."
    )
