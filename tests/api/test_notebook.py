"""The notebooks of docs/notebooks are run, cell after cell, in one namespace."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import potstill

pytestmark = pytest.mark.slow

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))


def run_cells(notebook: Path) -> list[tuple[str, Any]]:
    """Execute the code cells in order; return each with the value of its last expression, None where there is none."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for cell in cells:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            tree = ast.parse(source)
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, notebook.name, "exec"), names)
            value = eval(compile(ast.Expression(last.value), notebook.name, "eval"), names) if last else None
            shown.append((source, value))
    return shown


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs(
    notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = run_cells(notebook)
    results = [value for _, value in shown if hasattr(value, "_repr_html_")]
    assert all("<p>" in one._repr_html_() or "<table" in one._repr_html_() for one in results)
    kinds = {type(one) for one in results}
    assert {potstill.RunResult, potstill.Evaluation, potstill.BenchResult} <= kinds
    assert len(shown) >= 10 and shown[-1][1] and "Did you mean" in capsys.readouterr().out


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_kept_without_outputs(notebook: Path) -> None:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells if "outputs" in cell)
    assert len({cell["id"] for cell in cells}) == len(cells)
