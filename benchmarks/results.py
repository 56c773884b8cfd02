"""Where benchmarks keep what they measured: a section of RESULTS.json each, and its lines in RESULTS.md."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peers.bars import as_json, table, where

HERE = Path(__file__).parent


def parser(description: str) -> argparse.ArgumentParser:
    """Return the options that the benchmarks share."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--threads", type=int, default=2, help="of torch (default 2)")
    made.add_argument("--json", action="store_true", help="print every figure as JSON")
    made.add_argument("--record", action="store_true", help="also write RESULTS.json and RESULTS.md")
    made.add_argument("--command", help="what RESULTS.md says was typed, where paths of this machine were")
    return made


def tell(name: str, found: Mapping[str, Any], details: str, given: argparse.Namespace) -> None:
    """Print what was measured, and record it where that was asked for. details: a second table."""
    text = "\n\n".join([table(found["bars"]), details]) if found["bars"] else details
    print(json.dumps(as_json(found), indent=1) if given.json else text)
    if given.record:
        command = given.command or shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
        record(name, {"command": command, **found}, f"{text}\n\n`{command}`: {where(found)}")


def record(name: str, facts: Mapping[str, Any], text: str, *, folder: Path = HERE) -> None:
    """Replace a section of RESULTS.json, and the lines of RESULTS.md between `<!-- NAME -->` and `<!-- end -->`."""
    figures, page = folder / "RESULTS.json", folder / "RESULTS.md"
    figures.write_text(json.dumps({**json.loads(figures.read_text()), name: facts}, indent=1) + "\n")
    before, begin, rest = page.read_text().partition(f"<!-- {name} -->\n")
    assert begin, f"{page} has no section {name}"
    page.write_text(f"{before}{begin}{text}\n<!-- end -->{rest.partition('<!-- end -->')[2]}")
