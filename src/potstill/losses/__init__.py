"""Distillation losses: what to type, and the function behind it. docs/losses.md says when to use which.

A loss is a function of tensors that returns one value a sample [B]. The names of its parameters are the wiring:
`student`, `teacher` (logits or features), `label`, `index`; everything else is a keyword with a default.
"""

from __future__ import annotations

from collections.abc import Callable

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

OTHER_CLASSES = "it compares the classes other than the labelled one, and with two classes that is a single one"

SPECS: dict[str, Spec] = {
    "cross_entropy": Spec(cross_entropy),
    "soft_cross_entropy": Spec(soft_cross_entropy),
    "hard_label": Spec(hard_label),
    "kd": Spec(kd),
    "ls_kd": Spec(
        ls_kd,
        two_classes="two standardised logits are always 0.71 and -0.71, so that nothing but their order is left, "
        "which has no gradient",
    ),
    "dkd": Spec(dkd, two_classes=f"{OTHER_CLASSES}; what is left is kd"),
    "nkd": Spec(nkd, two_classes=OTHER_CLASSES),
    "dist": Spec(dist),
    "ttm": Spec(ttm),
    "wttm": Spec(wttm),
    "mlld": Spec(mlld),
    "ctkd": Spec(LearnedTemperature),
    "feature_mse": Spec(feature_mse, on="features", projects=True),
    "sp": Spec(sp, on="features"),
    "rkd": Spec(rkd, on="features", tap="pooled"),
    "pkt": Spec(pkt, on="features", tap="pooled"),
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
"""Every loss: its function or its module, and what it compares (`losses/spec.py`)."""

LOSSES: dict[str, Callable[..., Tensor]] = {name: spec.function for name, spec in SPECS.items() if not spec.learned}
"""The losses that are functions."""

LEARNED: dict[str, type[nn.Module]] = {name: spec.function for name, spec in SPECS.items() if spec.learned}  # type: ignore[misc]
"""The losses that are modules: built once, trained with the student, called like the others."""


def spec_of(name: str) -> Spec:
    """Return what the loss called `name` declares; one of the user's own declares nothing. Raises as `resolve` does."""
    return SPECS[name] if name in SPECS else Spec(resolve(name))


def resolve(name: str) -> Callable[..., Tensor]:
    """Return the loss called `name`: a key of `LOSSES`, or `path/to/file.py:function`.

    Raises `ConfigError` where there is none, with the nearest name and the list of them.
    """
    if name in LOSSES:
        return LOSSES[name]
    if own_code.names_a_file(name):
        return own.load(name)
    raise ConfigError(
        f"There is no loss {name}.{did_you_mean(name, SPECS)} Losses: {', '.join(SPECS)}; "
        "or one of your own as FILE.py:FUNCTION."
    )
