"""Where benchmarks keep what they measured: a section of RESULTS.json each, and its table in RESULTS.md."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent


def machine() -> dict[str, Any]:
    """Return where and when this runs."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    processor = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def record(name: str, facts: dict[str, Any], table: str, *, folder: Path = HERE) -> None:
    """Replace a section of RESULTS.json, and the lines of RESULTS.md between `<!-- NAME -->` and `<!-- end -->`."""
    figures, page = folder / "RESULTS.json", folder / "RESULTS.md"
    figures.write_text(json.dumps({**json.loads(figures.read_text()), name: facts}, indent=1) + "\n")
    before, begin, rest = page.read_text().partition(f"<!-- {name} -->\n")
    page.write_text(f"{before}{begin}{table}\n<!-- end -->{rest.partition('<!-- end -->')[2]}")
