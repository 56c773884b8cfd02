"""Generated C as a model `image -> Outputs`: compiled on this machine, so that the code itself is measured."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from potstill.errors import ModelError
from potstill.models.card import Card
from potstill.models.outputs import Outputs, resized

FLAGS = ("-O2", "-std=c99", "-Wall")


def compiler() -> str:
    """Return the path of the C compiler: `CC`, cc or gcc. Raises `ModelError` if there is none."""
    for name in (os.environ.get("CC", ""), "cc", "gcc"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise ModelError(
        "There is no C compiler, and generated C is compiled and run before it is delivered. Install gcc or clang, "
        "name it in the variable CC, or leave c out of --to."
    )


class CModel:
    """Generated C, compiled and loaded. card: of the model; arena: bytes of working memory.

    Only for code that potstill has just written: it runs in this process.

    warnings: of the compiler. flash: bytes of code and constants.
    """

    def __init__(self, source: Path, card: Card, arena: int) -> None:
        self.card = card
        self._memory = np.zeros(arena // 8 + 2, np.float64)
        with tempfile.TemporaryDirectory(prefix="potstill-c-") as folder:
            library, code = Path(folder) / "model.so", Path(folder) / "model.o"
            self.warnings = len(re.findall(r"warning:", _compile(source, code, "-c")))
            _compile(source, library, "-shared", "-fPIC")
            self.flash = _code_and_constants(code)
            # The library stays loaded when its file is removed.
            self._function = getattr(ctypes.CDLL(str(library)), source.stem)
        self._function.restype = None

    def arranged(self, image: Tensor) -> np.ndarray:
        """Return images [B, C, H, W] in 0..1 at the card's size."""
        size = self.card.size
        return np.ascontiguousarray(resized(image.float().cpu(), channels=self.card.channels, size=size).numpy())

    def run(self, image: np.ndarray) -> np.ndarray:
        """Return the logits [B, K] of the result of `arranged`, one image at a time."""
        logits = np.zeros((len(image), len(self.card.classes)), np.float32)
        for one, result in zip(image, logits, strict=True):
            self._function(*(ctypes.c_void_p(array.ctypes.data) for array in (one, result, self._memory)))
        return logits

    def __call__(self, image: Tensor) -> Outputs:
        """Return the outputs for images [B, C, H, W] in 0..1 of any size."""
        return Outputs(torch.from_numpy(self.run(self.arranged(image))).to(image.device))


def compiler_version() -> str:
    """Return the first line of what the compiler says of itself."""
    shown = subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=False).stdout
    return (shown.splitlines() or ["unknown"])[0]


def _compile(source: Path, out: Path, *how: str) -> str:
    """Compile, and return what the compiler printed."""
    command = [compiler(), *FLAGS, *how, str(source), "-o", str(out), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = next((line for line in done.stderr.splitlines() if "error" in line), "no message")
        raise ModelError(f"{source} does not compile with {command[0]}: {reason[:300]}. Leave c out of --to.")
    return done.stderr


def _code_and_constants(code: Path) -> int | None:
    """Return the bytes of an object file that go into flash memory; None without the program `size`."""
    if shutil.which("size") is None:
        return None
    shown = subprocess.run(["size", str(code)], capture_output=True, text=True, check=True).stdout
    text, data = shown.splitlines()[1].split()[:2]
    return int(text) + int(data)
