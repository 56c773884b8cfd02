"""What a user types: names, a function in a file, and the mistakes that can be made. docs/losses.md is run."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path

import pytest
import torch

from potstill import own_code
from potstill.errors import ConfigError
from potstill.losses import LEARNED, LOSSES, SPECS, resolve

PAGE = (Path(__file__).parents[2] / "docs" / "losses.md").read_text(encoding="utf-8")
STUDENT, TEACHER = torch.randn(4, 3), torch.randn(4, 3)


@pytest.fixture(autouse=True)
def allowed(tmp_path: Path):
    """The tests name these files themselves."""
    with own_code.allowing(tmp_path / "my_loss.py", tmp_path / "nowhere.py"):
        yield


def write(folder: Path, text: str) -> Path:
    path = folder / "my_loss.py"
    path.write_text(text, encoding="utf-8")
    return path


def problem(name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(name)
    return str(caught.value)


# --- built in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_parameters_are_the_wiring_and_options_have_defaults(name: str):
    parameters = inspect.signature(resolve(name)).parameters.values()
    wired = [p.name for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD]
    options = [p for p in parameters if p.kind == p.KEYWORD_ONLY]
    assert wired[0] == "student" and set(wired[1:]) <= {"teacher", "label", "index"} and len(wired) > 1
    assert len(wired) + len(options) == len(parameters)
    assert all(p.default is not p.empty for p in options)


@pytest.mark.parametrize("name", [*LOSSES, *LEARNED])
def test_every_loss_is_in_the_documentation_with_its_default(name: str):
    row = next((line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")), "")
    assert row, f"docs/losses.md has no row for {name}"
    for option in inspect.signature((LOSSES | LEARNED)[name]).parameters.values():
        if option.kind == option.KEYWORD_ONLY and option.name != "eps":
            assert option.name in row


@pytest.mark.parametrize("name", SPECS)
def test_a_declaration_is_consistent(name: str):
    spec = SPECS[name]
    on_logits = spec.on == "logits"
    assert on_logits or not spec.two_classes
    assert not on_logits or not (spec.projects or spec.same_size or spec.before_relu or spec.shares_head)
    assert spec.least_places == 1 or spec.on == "layers"
    assert not spec.learned or spec.shares_head or hasattr(spec.function, "at")


def test_an_unknown_name_is_answered_with_the_nearest_and_the_list():
    said = problem("dkdd")
    assert "There is no loss dkdd. Did you mean 'dkd'?" in said
    assert "ls_kd" in said and "FILE.py:FUNCTION" in said


# --- a loss of one's own ----------------------------------------------------------------------------------------


def test_the_example_of_the_documentation_runs(tmp_path: Path):
    example = re.search(r"```python\n(# my_loss\.py\n.*?)```", PAGE, re.DOTALL).group(1)
    assert len(example.strip().splitlines()) <= 12
    path = write(tmp_path, example)
    function = resolve(f"{path}:my_function")
    student = STUDENT.clone().requires_grad_()
    value = function(student, TEACHER)
    assert value.shape == (4,)
    value.mean().backward()
    assert student.grad.abs().sum() > 0
    assert function(TEACHER, TEACHER).abs().max() < 1e-6
    assert "temperature" in inspect.signature(function).parameters
    assert f"{path.name}:my_function" in PAGE


def test_it_receives_float32_whatever_the_precision(tmp_path: Path):
    path = write(tmp_path, "def mine(student, label):\n    return student[:, 0]\n")
    assert resolve(f"{path}:mine")(STUDENT.half(), torch.zeros(4, dtype=torch.long)).dtype == torch.float32


def test_a_relative_path_starts_at_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, "def mine(student, teacher):\n    return (student - teacher).abs().mean(1)\n")
    monkeypatch.chdir(tmp_path)
    assert resolve("my_loss.py:mine")(STUDENT, STUDENT).sum() == 0


def test_a_missing_file_is_named(tmp_path: Path):
    assert f"There is no file {tmp_path / 'nowhere.py'}" in problem(f"{tmp_path / 'nowhere.py'}:mine")


def test_a_missing_function_is_answered_with_those_there_are(tmp_path: Path):
    path = write(tmp_path, "def mine(student, teacher):\n    return student\n")
    said = problem(f"{path}:mime")
    assert "no function mime. Did you mean 'mine'? It has: mine." in said


def test_a_file_without_a_function_is_answered_with_what_to_type(tmp_path: Path):
    path = write(tmp_path, "def mine(student, teacher):\n    return student\n")
    assert f"Write {path}:mine." in problem(str(path))


def test_a_file_is_run_once_until_it_changes(tmp_path: Path):
    text = "import os\nos.environ['RUNS'] = os.environ.get('RUNS', '') + 'x'\ndef mine(student, teacher): ...\n"
    path = write(tmp_path, text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNS", "")
        for _ in range(3):
            resolve(f"{path}:mine")
        assert os.environ["RUNS"] == "x"
        write(tmp_path, text + "def second(student, teacher): ...\n")
        os.utime(path, ns=(0, 0))
        resolve(f"{path}:second")
        assert os.environ["RUNS"] == "xx"


def test_a_file_that_does_not_import_says_why(tmp_path: Path):
    path = write(tmp_path, "import nothing_of_this_name\n")
    assert "ModuleNotFoundError: No module named 'nothing_of_this_name'" in problem(f"{path}:mine")


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ("pred, teacher", "has the parameters (pred, teacher), but a loss must have `student`"),
        ("student", "at least one of `teacher` and `label`"),
        ("student, teacher, epoch", "needs epoch, which potstill does not pass"),
    ],
)
def test_wrong_parameters_are_explained_with_an_example(tmp_path: Path, parameters: str, complaint: str):
    path = write(tmp_path, f"def mine({parameters}):\n    return student\n")
    said = problem(f"{path}:mine")
    assert complaint in said and "def my_loss(student, teacher" in said
