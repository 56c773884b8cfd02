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

LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "soft_cross_entropy": soft_cross_entropy,
    "hard_label": hard_label,
    "kd": kd,
    "ls_kd": ls_kd,
    "dkd": dkd,
    "nkd": nkd,
    "dist": dist,
    "ttm": ttm,
    "wttm": wttm,
    "mlld": mlld,
    "feature_mse": feature_mse,
    "at": at,
    "sp": sp,
    "rkd": rkd,
    "pkt": pkt,
    "nst": nst,
    "ickd": ickd,
    "fsp": fsp,
    "hcl": hcl,
}

# With parameters, memories or pieces of the teacher: built once, trained with the student, called like the others.
LEARNED: dict[str, type[nn.Module]] = {
    "ctkd": LearnedTemperature,
    "vid": Vid,
    "srrl": Srrl,
    "ofd": Ofd,
    "crd": Crd,
    "reviewkd": ReviewKD,
    "simkd": SimKD,
}

# What `student` and `teacher` are. Losses that are not named here act on logits [B, K].
FEATURES = frozenset({"feature_mse", "sp", "rkd", "pkt", "vid"})  # any shape [B, ...]
POOLED = frozenset({"srrl", "crd"})  # [B, D]
MAPS = frozenset({"at", "nst", "ickd", "ofd", "simkd"})  # [B, C, H, W]
LAYERS = frozenset({"fsp", "hcl", "reviewkd"})  # lists of maps, shallow to deep

# The student's feature needs a projector to the teacher's shape (channels are enough for ickd and fsp).
NEEDS_PROJECTOR = frozenset({"feature_mse", "vid", "ickd", "fsp", "hcl"})

# Why a method has nothing to say, or only half of it, where there are two classes.
NEEDS_THREE_CLASSES: dict[str, str] = {
    "dkd": "it compares the classes other than the labelled one, and with two classes that is a single one; "
    "what is left is kd",
    "nkd": "it compares the classes other than the labelled one, and with two classes that is a single one",
    "ls_kd": "two standardised logits are always 0.71 and -0.71, so that nothing but their order is left, "
    "which has no gradient",
}


def resolve(name: str) -> Callable[..., Tensor]:
    """Return the loss called `name`: a key of `LOSSES`, or `path/to/file.py:function`.

    Raises `ConfigError` where there is none, with the nearest name and the list of them.
    """
    if name in LOSSES:
        return LOSSES[name]
    if own_code.names_a_file(name):
        return own.load(name)
    raise ConfigError(
        f"There is no loss {name}.{did_you_mean(name, [*LOSSES, *LEARNED])} Losses: {', '.join([*LOSSES, *LEARNED])}; "
        "or one of your own as FILE.py:FUNCTION."
    )
