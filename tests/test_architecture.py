"""The floors of docs/architecture.md, held."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "potstill"

# The longest matching prefix decides. A module may import from lower floors, and from its own folder on its floor.
FLOORS = {
    "errors": 0,
    "words": 0,
    "quantities": 0,
    "_version": 0,
    "progress": 0,
    "plain_text": 0,
    "yaml_text": 0,
    "offline": 0,
    "writable": 0,
    "distributed": 0,
    "torch_context": 0,
    "runtime": 0,
    "interruption": 0,
    "data.manifest": 0,
    "data.draws": 0,
    "data.thumbnails": 0,
    "models.card": 0,
    "models.hooks": 0,
    "models.freeze": 0,
    "evaluation": 1,
    "tracking": 1,
    "config": 1,
    "console": 1,
    "display": 2,
    "artifacts": 1,
    "names": 1,
    "own_code": 1,
    "bounded": 1,
    "data.decode": 1,
    "data.workers": 1,
    "data.splits": 1,
    "data.joined": 1,
    "data.squares": 1,
    "models.card_record": 1,
    "models.outputs": 1,
    "compress.formats": 1,
    "losses": 2,
    "output_files": 2,
    "scheduling": 2,
    "data.csv_files": 2,
    "data.augment": 2,
    "data.cache": 2,
    "models.builtin": 2,
    "models.class_map": 2,
    "models.inspect": 2,
    "models": 3,
    "compress.prune": 3,
    "compress.quantize": 3,
    "data.formats": 3,
    "data.known_pixels": 2,
    "data.pixels": 3,
    "data.views": 3,
    "data.augment.probe": 4,
    "data.augment.sheet": 4,
    "data.checks": 4,
    "data.duplicates": 4,
    "data.loader": 4,
    "models.input_facts": 4,
    "teachers": 5,
    "objectives": 6,
    "training": 7,
    "model_files": 8,
    "exporters": 9,
    "stages": 10,
    "report": 9,
    "api": 11,
    "cli": 12,
    "__main__": 13,
}
LIGHT = (
    "errors",
    "words",
    "quantities",
    "progress",
    "plain_text",
    "display",
    "config",
    "artifacts",
    "evaluation",
    "report",
    "cli",
)
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(name: str) -> tuple[str, int]:
    matching = [known for known in FLOORS if name == known or name.startswith(f"{known}.")]
    assert matching, f"{name} has no floor: add it to FLOORS and to docs/architecture.md"
    known = max(matching, key=len)
    return known, FLOORS[known]


def imports(file: Path) -> list[str]:
    """Return the modules of ours that a file imports, lazily or not, but for type checking."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "potstill":
            inner = (node.module or "").removeprefix("potstill").removeprefix(".")
            for alias in node.names:
                deeper = f"{inner}.{alias.name}".lstrip(".")
                path = PACKAGE / Path(*deeper.split("."))
                found.append(deeper if path.with_suffix(".py").is_file() or path.is_dir() else inner)
    return found


@pytest.mark.parametrize("file", [m for m in MODULES if name_of(m)], ids=name_of)
def test_imports_go_down(file: Path) -> None:
    name = name_of(file)
    group, floor = floor_of(name) if not _is_marker(name) else ("", 99)
    for other in imports(file):
        if not other or _is_marker(other):
            continue
        other_group, other_floor = floor_of(other)
        inside = other_group == group
        assert inside or other_floor < floor, f"{name} (floor {floor}) imports {other} (floor {other_floor})"


def test_the_document_tells_the_same_floors() -> None:
    text = (PACKAGE.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    told: dict[str, int] = {}
    for floor, modules in re.findall(r"^\| (\d+) \| (`[^|]+) \|", text, re.M):
        for path in re.findall(r"`([^`]+)`", modules):
            told[path.removesuffix(".py").strip("/").replace("/", ".")] = int(floor)
    assert {name: floor_of(name)[1] for name in told} == told
    assert not [known for known in FLOORS if not any(f"{name}.".startswith(f"{known}.") for name in told)]


def _is_marker(name: str) -> bool:
    """Whether `name` is a folder that only groups modules of several floors."""
    return name in ("data", "compress", "evaluation", "recipes") and not name_has_code(name)


def name_has_code(name: str) -> bool:
    """Whether a package's own file holds more than its docstring."""
    file = PACKAGE / name / "__init__.py"
    return file.is_file() and len(ast.parse(file.read_text(encoding="utf-8")).body) > 1


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_files_stay_small(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400


def test_accelerate_is_imported_in_one_place() -> None:
    users = {name_of(file) for file in MODULES if "accelerate" in _outside(file)}
    assert users == {"training.devices"}


def test_no_imports_go_in_circles() -> None:
    """Module by module, lazy imports included: `graphlib` raises `CycleError` with the circle."""
    known = {name_of(file) for file in MODULES}
    graph = {name_of(file): {other for other in imports(file) if other in known} for file in MODULES}
    graph[""] = set()  # the package's own table of contents loads on first use
    for name, others in graph.items():
        others.discard(name)
    assert len(tuple(TopologicalSorter(graph).static_order())) == len(graph)


FUNCTIONS = [
    (name_of(file), node.name, node.end_lineno - node.lineno + 1)
    for file in MODULES
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    if isinstance(node, ast.FunctionDef) and node.end_lineno is not None
]


def test_functions_stay_small() -> None:
    assert not [function for function in FUNCTIONS if function[2] > 60]
    assert statistics.median(lines for *_, lines in FUNCTIONS) <= 8


def _outside(file: Path) -> set[str]:
    tree = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    nodes = [node for node in tree if isinstance(node, ast.Import | ast.ImportFrom)]
    plain = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {(node.module or "").split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("file", [m for m in MODULES if name_of(m).startswith(LIGHT)], ids=name_of)
def test_light_modules_import_no_torch(file: Path) -> None:
    assert not {"torch", "timm", "onnxruntime"} & _outside(file)


def test_no_pickle_and_no_unsafe_load() -> None:
    for file in MODULES:
        text = file.read_text(encoding="utf-8")
        unsafe = {"pickle.load", "pickle.dump", "torch.save(", "weights_only=False", "allow_pickle=True"}
        if name_of(file) == "models.checkpoints":  # its unpickler knows no class but torch's tensors
            assert text.count("weights_only=False, pickle_module=_pickle_module()") == text.count("weights_only=False")
            unsafe -= {"weights_only=False", "torch.save("}  # the latter in a sentence
        assert not [call for call in unsafe if call in text], file


def test_help_is_instant_and_light() -> None:
    code = (
        "import sys, potstill, potstill.cli; sys.exit(bool({'torch', 'numpy', 'rich', 'pydantic'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
