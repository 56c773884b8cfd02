"""Every loss against values and gradients of the original implementations, in float64 and float32.

The numbers lie in the folder named by POTSTILL_REFERENCE_LOSSES, else in the development data. A method, a case, a
hyper-parameter or a stored number that this file does not know fails; it does not pass in silence.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from potstill.losses import contrastive, correlation, decoupled, features, logits, maps, relations

Numbers = dict[str, Tensor]


def _folder() -> Path:
    if named := os.environ.get("POTSTILL_REFERENCE_LOSSES"):
        return Path(named)
    beside = Path(__file__).resolve().parents[3] / "shared"
    return Path(os.environ.get("POTSTILL_SHARED", beside)) / "reference" / "losses"


FOLDER = _folder()
PRESENT = (FOLDER / "index.json").is_file()
METHODS = json.loads((FOLDER / "index.json").read_text())["methods"] if PRESENT else {}

# Hyper-parameters of the reference under another name here. Any other is passed by its own name.
RENAMED = {
    "T": "temperature",
    "p": "power",
    "w_distance": "distance_weight",
    "w_angle": "angle_weight",
    "w_feature": "feature_weight",
    "w_logit": "logit_weight",
    "tau": "temperature",
}

# Stored for information and not a target (the README of the reference says so), by (method, name or case).
INFORMATION = {
    ("deit_soft", "value_original_numel"),
    ("function_matching", "value_original"),
    ("ickd", "value_imagenet_scale"),
    ("mlld", "mask_instance"),
    ("mlld", "mask_class"),
}


def _is_information(method: str, case: str) -> bool:
    return method == "fsp_torchdistill" or (method == "mlld" and case.startswith("two_views_as_coded"))


def _layers(x: Numbers, side: str) -> list[Tensor]:
    if side in x:
        return [x[side]]
    return [x[f"{side}_{layer}"] for layer in range(sum(name.startswith(f"{side}_") for name in x))]


def plain(function: Callable[..., Tensor], **fixed: Any) -> Callable[..., Numbers]:
    """A loss whose only number is its value; takes the label where the reference has one."""

    def run(x: Numbers, **hyper: Any) -> Numbers:
        given = {"label": x["target"]} if "target" in x else {}
        return {"value": function(x["student"], x["teacher"], **given, **fixed, **hyper)}

    return run


def in_layers(function: Callable[..., Tensor]) -> Callable[..., Numbers]:
    return lambda x, **hyper: {"value": function(_layers(x, "student"), _layers(x, "teacher"), **hyper)}


def dkd(x: Numbers, *, temperature: float, **weights: float) -> Numbers:
    given = x["student"], x["teacher"], x["target"]
    return {
        "value": decoupled.dkd(*given, temperature=temperature, **weights),
        "value_tckd": decoupled.tckd(*given, temperature=temperature),
        "value_nckd": decoupled.nckd(*given, temperature=temperature),
    }


def nkd(x: Numbers, *, temperature: float, **weights: float) -> Numbers:
    given = x["student"], x["teacher"], x["target"]
    return {
        "value": decoupled.nkd(*given, temperature=temperature, **weights),
        "value_target": decoupled.nkd_target(*given),
        "value_nontarget": decoupled.nkd_nontarget(*given, temperature=temperature),
    }


def dist(x: Numbers, *, temperature: float, eps: float, **weights: float) -> Numbers:
    given = x["student"], x["teacher"]
    return {
        "value": correlation.dist(*given, temperature=temperature, eps=eps, **weights),
        "value_inter": correlation.dist_inter(*given, temperature=temperature, eps=eps),
        "value_intra": correlation.dist_intra(*given, temperature=temperature, eps=eps),
    }


def wttm(x: Numbers, *, gamma: float) -> Numbers:
    value = logits.wttm(x["student"], x["teacher"], gamma=gamma)
    return {"value": value, "weight": logits.wttm_weight(x["teacher"], gamma=gamma)}


def mlld(x: Numbers, *, temperature: list[float], logit_standardisation: bool) -> Numbers:
    given = x["student"], x["teacher"]
    instance = logits.ls_kd if logit_standardisation else logits.kd
    parts = {
        "value_instance": instance,
        "value_class": correlation.class_correlation,
        "value_batch": correlation.batch_correlation,
    }
    return {
        "value": correlation.mlld(*given, temperatures=temperature, standardised=logit_standardisation),
        **{
            name: torch.stack([part(*given, temperature=t).mean() for t in temperature]) for name, part in parts.items()
        },
    }


def dml(x: Numbers, *, temperature: float, K: int = 2) -> Numbers:
    """Mutual learning is `kd` at temperature 1 towards every other network's logits, held constant."""
    assert len(x) == K
    own = {}
    for name in x:
        others = [other.detach() for peer, other in x.items() if peer != name]
        own[name] = sum(logits.kd(x[name], other, temperature=temperature) for other in others) / len(others)
    return {"value": sum(own.values()), **{f"value_{name}": value for name, value in own.items()}}


def rkd(x: Numbers, **weights: float) -> Numbers:
    given = x["student"], x["teacher"]
    return {
        "value": relations.rkd(*given, **weights),
        "value_distance": relations.rkd_distance(*given),
        "value_angle": relations.rkd_angle(*given),
    }


def vid(x: Numbers, **hyper: float) -> Numbers:
    return {"value": features.vid(x["student"], x["teacher"], log_scale=x["log_scale"], **hyper)}


def srrl(x: Numbers, **weights: float) -> Numbers:
    teacher = {name: x[name] for name in ("weight", "bias", "teacher_logits")}

    def part(**chosen: float) -> Tensor:
        return features.srrl(x["student"], x["teacher"], **teacher, **chosen)

    return {
        "value": part(**weights),
        "value_feature": part(feature_weight=1.0, logit_weight=0.0),
        "value_logit": part(feature_weight=0.0, logit_weight=1.0),
    }


def _unit(embedding: Tensor) -> Tensor:
    """The reference has embeddings of length 1, and one case of raw ones that are normalised first."""
    lengths = embedding.detach().norm(dim=1)
    return embedding if torch.allclose(lengths, torch.ones_like(lengths)) else F.normalize(embedding, dim=1)


def crd(x: Numbers, *, N: int, K: int, momentum: float, temperature: float, **hyper: float) -> Numbers:
    assert x["memory_s"].shape[0] == N
    assert x["idx"].shape[1] == K + 1
    numbers: Numbers = {}
    for side, other, long in (("s", "t", "student"), ("t", "s", "teacher")):
        embedding, memory = _unit(x[long]), x[f"memory_{other}"]
        score = contrastive.contrast_scores(embedding, memory, x["idx"], temperature=temperature)
        log_z = x[f"z_{side}"].log() if f"z_{side}" in x else contrastive.log_partition(score, N)
        numbers[f"value_{long}_side"] = contrastive.crd_nce(
            embedding, memory, x["idx"], temperature=temperature, log_z=log_z, **hyper
        )
        numbers[f"z_{long}"] = log_z.exp()
        updated = contrastive.refreshed(x[f"memory_{side}"], x["y"], embedding, momentum=momentum)
        numbers[f"memory_{side}_updated"] = updated[x["y"]]
    numbers["value"] = numbers["value_student_side"] + numbers["value_teacher_side"]
    return numbers


def ofd(x: Numbers) -> Numbers:
    return {"value": features.ofd(x["student"], x["teacher"], margin=x["margin"])}


def ofd_margin(x: Numbers, **hyper: float) -> Numbers:
    margin = features.ofd_margin(x["bn_weight"], x["bn_bias"], **hyper)
    return {"margin": margin, "value": margin}


KNOWN: dict[str, Callable[..., Numbers]] = {
    "kd": plain(logits.kd),
    "ls_kd": plain(logits.ls_kd),
    "dkd": dkd,
    "nkd": nkd,
    "dist": dist,
    "ttm": plain(logits.ttm),
    "wttm": wttm,
    "mlld": mlld,
    # Two more names of the same function.
    "deit_soft": plain(logits.kd),
    "function_matching": plain(logits.kd),
    "deit_hard": plain(logits.hard_label),
    "dml": dml,
    "fitnet": plain(features.feature_mse),
    "at_code": plain(maps.at, variant="code"),
    "at_paper": plain(maps.at, variant="paper"),
    "sp": plain(relations.sp),
    "rkd": rkd,
    "pkt": plain(relations.pkt),
    "nst": plain(maps.nst),
    "reviewkd_hcl": in_layers(features.hcl),
    "ickd": plain(maps.ickd),
    "fsp": in_layers(maps.fsp),
    "vid": vid,
    "srrl": srrl,
    "crd_nce": crd,
    "ofd": ofd,
    "ofd_margin": ofd_margin,
}

CASES = [
    pytest.param(method, case, id=f"{method}-{case}")
    for method, info in METHODS.items()
    for case in info["cases"]
    if not _is_information(method, case)
]
needs_reference = pytest.mark.skipif(not PRESENT, reason=f"no reference values in {FOLDER}")


def _stored(method: str, case: str) -> Numbers:
    tensors = load_file(FOLDER / METHODS[method]["file"])
    return {name.split("/", 1)[1]: t for name, t in tensors.items() if name.split("/", 1)[0] == case}


def _differentiated(name: str, inputs: list[str]) -> tuple[str, str]:
    """Split grad_INPUT or grad_INPUT_PART into the input and the name of the value."""
    rest = name.removeprefix("grad_")
    matching = [i for i in inputs if rest == i or rest.startswith(f"{i}_")]
    given = max(matching, key=len)
    return given, f"value{rest.removeprefix(given)}"


def _run(method: str, case: str, stored: Numbers, dtype: torch.dtype) -> tuple[Numbers, Numbers]:
    """Return the inputs (of which those with a stored gradient want one) and what the loss says of them."""
    meta = METHODS[method]["cases"][case]
    inputs = {name: stored[name] for name in meta["inputs"]}
    inputs = {name: t.to(dtype) if t.is_floating_point() else t for name, t in inputs.items()}
    wanted = {_differentiated(name, list(inputs))[0] for name in meta["outputs"] if name.startswith("grad_")}
    for name in wanted | {name for name in inputs if name.startswith("student")}:
        inputs[name].requires_grad_()
    hyper = {RENAMED.get(name, name): value for name, value in meta["hyper_parameters"].items()}
    return inputs, KNOWN[method](inputs, **hyper)


def _scalar(values: Tensor, like: Tensor) -> Tensor:
    """The mean over the batch, where the reference holds one number and the loss gives one a sample."""
    return values if values.shape == like.shape else values.mean()


@needs_reference
def test_every_method_of_the_reference_is_known():
    information = {method for method in METHODS if _is_information(method, "")}
    assert set(METHODS) - information <= set(KNOWN)


@needs_reference
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize(("method", "case"), CASES)
def test_values_and_gradients_are_those_of_the_reference(method: str, case: str, precision: str):
    dtype = getattr(torch, precision)
    meta = METHODS[method]["cases"][case]
    stored, tolerance = _stored(method, case), meta["tolerance"][precision]
    inputs, said = _run(method, case, stored, dtype)
    for name in meta["outputs"]:
        if (method, name) in INFORMATION:
            continue
        if name.startswith("grad_"):
            given, value = _differentiated(name, list(inputs))
            total = _scalar(said[value], stored[value]).sum()
            found = torch.autograd.grad(total, inputs[given], retain_graph=True)[0]
            rtol, atol = tolerance["grad_rtol"], tolerance["grad_atol"]
        else:
            found, (rtol, atol) = _scalar(said[name], stored[name]), (tolerance["rtol"], tolerance["atol"])
        assert found.dtype == dtype
        torch.testing.assert_close(
            found.detach().double(), stored[name], rtol=rtol, atol=atol, msg=lambda m, name=name: f"{name}: {m}"
        )


@needs_reference
@pytest.mark.parametrize(("method", "case"), CASES)
def test_every_case_has_one_finite_value_a_sample_and_finite_gradients(method: str, case: str):
    inputs, said = _run(method, case, _stored(method, case), torch.float32)
    students = [t for name, t in inputs.items() if name.startswith("student")]
    if not students:  # ofd_margin: a property of the teacher
        return
    assert said["value"].shape == (len(students[0]),)
    assert said["value"].isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(said["value"].mean(), students))
