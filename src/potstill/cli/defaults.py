"""Defaults that the settings have, for the help: it must not import them. `tests/cli` compares both."""

from __future__ import annotations

DEFAULTS: dict[str, dict[str, str]] = {
    "shrink": {"seed": "0"},
    "finetune": {"select": "best", "balance": "none", "seed": "0"},
    "selftrain": {
        "rounds": "2",
        "method": "teachers",
        "labelling": "soft",
        "noise": "auto",
        "min_confidence": "0.3",
        "steps": "2000",
        "batch_size": "128",
        "lr": "0.002",
        "seeds": "3",
        "seed": "0",
    },
    "label": {"views": "1", "seed": "0"},
    "distill": {
        "teacher_epochs": "10",
        "loss": "kd",
        "lr": "0.002",
        "select": "last",
        "balance": "none",
        "seeds": "3",
        "seed": "0",
    },
    "prune": {
        "structure": "inner",
        "importance": "l1",
        "scope": "layer",
        "round_to": "1",
        "rounds": "1",
        "epochs": "5",
        "lr": "0.02",
        "seed": "0",
    },
    "quantize": {"epochs": "1", "lr": "0.0005", "seed": "0"},
    "export": {"to": "onnx"},
}
