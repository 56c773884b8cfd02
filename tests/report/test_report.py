"""The report says what the run's files say, whole in one file, whatever the run holds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from potstill.errors import RunError
from potstill.report import write_report
from potstill.report.first import verdict
from tests.report import example

pytestmark = pytest.mark.slow

FILES = {"student.onnx", "student_int8.onnx", "summary.json", "suspicious-labels.csv"}
KINDS = ("mistakes", "disagreed", "soft", "suspicious", "samples")
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Text, tags and attributes of a page; fails on tags that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        assert not self.open, f"not closed: {self.open}"
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def sections(self) -> list[str]:
        return [attributes["id"] or "" for tag, attributes in self.tags if tag == "section"]

    def count(self, tag: str) -> int:
        return sum(one == tag for one, _ in self.tags)


def report(folder: Path) -> tuple[Page, str]:
    html = write_report(folder).read_text(encoding="utf-8")
    return Page(html), html


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Page, str, dict]:
    folder = tmp_path_factory.mktemp("run")
    summary = example.write_run(folder)
    page, html = report(folder)
    assert (folder / "report.html").read_text(encoding="utf-8") == html
    return page, html, summary


def test_the_page_is_whole_in_itself(whole):
    page, html, _ = whole
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed")
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            target = attributes.get(name) or "#"
            inside = target.startswith(("data:image/png;base64,", "#")) or (tag == "a" and target in FILES)
            assert inside, (tag, name, target[:80])
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    assert "@import" not in html and "<?xml" not in html and "<!DOCTYPE svg" not in html


def test_references_inside_the_page_have_a_target_each_and_one_only(whole):
    _, html, _ = whole
    identities = re.findall(r'\sid="([^"]+)"', html)
    for target in set(re.findall(r'(?:href="#|url\(#)([^")]+)', html)):
        assert identities.count(target) == 1, target


def test_the_first_screen_is_of_the_shipped_file(whole):
    page, html, summary = whole
    ship, screen = summary["ship"], html.split("<main")[0].replace("\N{NO-BREAK SPACE}", " ")
    accuracy, gap = f"{ship['accuracy']:.1f} %", f"{-ship['reference']['difference']:.1f} points below the teacher"
    assert f"<h1>Ship student.onnx: {accuracy} in 81 kB</h1>" in screen and "Target met" in screen
    assert accuracy in screen and f"{gap} (95 % interval" in screen and "Guessing gives 10.0 %" in screen
    assert "seed 1" in screen and "the best of 3 seeds" in screen and "0.014 ms" in screen
    assert screen.index("Target met") < screen.index("Distillation helped")  # the teacher's help comes last
    verdict, mean = summary["verdict"], summary["models"]["student"]["accuracy"]
    assert verdict["result"] == "BEATS" and verdict["sentence"] in page.text
    assert f"Distillation helped: accuracy gained {verdict['difference']:.1f} points" in page.text
    assert f"Means over 3 seeds: student {mean:.1f} %" in screen


@pytest.mark.parametrize(("changes", "headline"), [
    (
        {"better_than_guessing": False, "accuracy": 50.0},
        "Not measurably better than guessing among 10 classes: student.onnx has 50.0 %",
    ),
    ({"dominated_by": "original.onnx"}, "Do not ship student.onnx: original.onnx is smaller and faster"),
    ({"target": {"met": False, "missed": ["81 kB instead of 50 kB"]}}, "Target not met: student.onnx has 81 kB"),
])  # fmt: skip
def test_what_is_wrong_is_the_headline(whole, changes, headline):
    summary = {**whole[2], "ship": {**whole[2]["ship"], **changes}}
    title, tone, _ = verdict(summary)
    assert title.replace("\N{NO-BREAK SPACE}", " ").startswith(headline) and tone == "bad"


def test_the_table_holds_every_figure(whole):
    page, html, summary = whole
    for role, model in summary["models"].items():
        row = html.split(f'<tr class="{role}">')[1].split("</tr>")[0].replace("\N{NO-BREAK SPACE}", " ")
        seeds = model.get("test_accuracy", [model["accuracy"]])
        assert f"{sum(seeds) / len(seeds):.1f} %" in row
        assert len(seeds) == 1 or ", ".join(f"{one:.1f}" for one in seeds) in row
        assert f"{model['parameters']:,}" in row and f"{model['latency_ms']:.2g} ms" in row
    for words in ("5.7 MB", "81 kB", "25 kB", "70x smaller", "227x smaller"):
        assert words in page.text
    assert "98.1 to 99.7 over 540 images" in page.text  # Wilson, 536 of 540


def test_every_term_of_the_loss_is_a_chart(whole):
    page, _, _ = whole
    charts = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg"]
    assert len(charts) == 2 + 2 + 5 + 5  # front, confidence, and curves with the learning rate
    for what in ("Validation accuracy in percent", "Training cross_entropy", "Training kd", "Training loss"):
        assert sum(one.startswith(what) for one in charts) == 2, what
    curve = next(one for one in charts if one.startswith("Validation accuracy in percent"))
    assert "Teacher ends at" in curve and "Control ends at" in curve and "Student ends at" in curve
    assert "Control" not in next(one for one in charts if one.startswith("Training kd"))


def test_every_section_says_its_files_words(whole):
    page, _, summary = whole
    wanted = "effect models front gains notes recall confusion mistakes confidence soft curves comparisons files steps"
    assert page.sections() == [*wanted.split(), "data", "measured", "recipe"]
    told = [*summary["notes"], *(s["title"] for s in summary["stages"]), *(s["text"] for s in summary["stages"])]
    told += [summary["command"], "temperature: 4.0", "7.6 × 10⁻⁶", "99.30 %", "1,131 images: 100 labelled"]
    told += ["TIES", "every label", summary["comparisons"][0]["text"], "Example CPU @ 2.6 GHz", "torch 2.15.0"]
    told += ["21 November 2026, 13:00 UTC", "evaluated once"]
    for words in told:
        assert words in page.text, words
    assert page.count("img") > 20


def test_the_same_run_gives_the_same_page(whole, tmp_path):
    example.write_run(tmp_path)
    once, again = (re.sub(r"/\S*/(run\d|test_the_same\w*)", "FOLDER", one) for one in (whole[1], report(tmp_path)[1]))
    assert once == again


@pytest.mark.parametrize(("student", "result", "says"), [
    (86.0, "LOSES", ["Distillation reduced accuracy", "Do not ship the student: without the teacher it is"]),
    (90.9, "TIES", ["no significant difference from the control", "The student is about as accurate without"]),
])  # fmt: skip
def test_a_teacher_that_did_not_help_is_told_plainly(student, result, says, tmp_path):
    summary = example.write_run(tmp_path, control=91, student=student, images=4000, unlabelled=0)
    assert summary["verdict"]["result"] == result
    page, _ = report(tmp_path)
    for words in [*says, "Add unlabelled images", "Try a lower temperature than 4"]:
        assert words in page.text, words


def test_one_seed_is_told_as_what_it_is(tmp_path):
    example.write_run(tmp_path, seeds=1)
    page, _ = report(tmp_path)
    assert "One seed is not enough to tell whether distillation helped" in page.text
    assert "Train 3 seeds (this run had 1)" in page.text
    assert "Distillation did not help" not in page.text and "BEATS" not in page.text
    assert "The difference is significant" not in page.text
    assert "thin lines the individual seeds" not in page.text
    assert "over 3 seeds" not in page.text and "over 540 images" in page.text


def test_two_hundred_classes_are_cut_to_those_that_matter(tmp_path):
    names = tuple(f"species number {n}" for n in range(200))
    example.write_run(tmp_path, classes=names)
    page, html = report(tmp_path)
    cards = html.split('<div class="card">')[1:]
    assert len(cards) == 6
    for card in cards:
        rows = card.split("</table>")[0].split('<th scope="row"')[1:]
        assert 5 <= len(rows) <= 8
        assert card.count('class="true"') == 1 and re.search(r"19\d others", rows[-1])
    assert "200 classes" in page.text and 'class="matrix"' not in html


def test_a_bare_run_has_a_bare_report(tmp_path):
    summary = example.summary(control=82, student=90, seeds=3, images=540, classes=example.DIGITS, unlabelled=0)
    for key in ("verdict", "export", "stages", "notes"):
        del summary[key]
    summary["models"] = {"student": {"name": "builtin:mlp", "accuracy": 90.0, "test_accuracy": [90.0]}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    page, _ = report(tmp_path)
    assert page.sections() == ["models", "data", "measured", "recipe"]
    assert page.count("svg") == 0 and "90.0 %" in page.text


def test_names_cannot_break_the_page(tmp_path):
    mean = ("<script>alert(1)</script>", '"><b>', "a & b", *"3456789")
    summary = example.write_run(tmp_path, classes=mean)
    summary["notes"] = ["</section><i>"]
    summary["models"]["student"]["name"] = "<u>"
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    page, html = report(tmp_path)
    assert "<script>alert" not in html and "<u>" not in html and "</section><i>" not in html
    assert mean[0] in page.text


def test_training_that_went_wrong_is_still_drawn(tmp_path):
    example.write_run(tmp_path)
    file = tmp_path / "distill/seed-1/metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows[5:]:
        row["train"]["loss"] = float("nan")
        del row["validation"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page, _ = report(tmp_path)
    assert page.count("svg") == 14


def test_a_folder_without_a_summary_is_refused_in_words(tmp_path):
    with pytest.raises(RunError, match="holds no summary.json") as found:
        write_report(tmp_path)
    assert str(tmp_path) in str(found.value) and not list(tmp_path.iterdir())


def test_reports_import_no_torch():
    code = "import sys, potstill.report; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_the_schema_in_the_documentation_knows_every_key(tmp_path):
    text = (Path(__file__).parents[2] / "docs/summary.md").read_text(encoding="utf-8")
    summary = example.write_run(tmp_path)
    keys = {*summary, *summary["machine"], *summary["data"], *summary["data"]["splits"], *summary["data"]["image"]}
    keys |= {*summary["verdict"], *summary["export"]["student"], *summary["stages"][0], *summary["comparisons"][0]}
    keys |= {key for model in summary["models"].values() for key in model} | {*summary["models"]}
    row = json.loads((tmp_path / "teacher/metrics.jsonl").read_text().splitlines()[0])
    told = json.loads((tmp_path / "examples.json").read_text())
    keys |= {*row, *told, *(key for kind in KINDS for one in told[kind] for key in one)}
    keys |= {*summary["ship"], *summary["ship"]["target"], *summary["ship"]["reference"], *summary["label_errors"]}
    keys |= {*summary["insight"], *summary["insight"]["thresholds"], *summary["insight"]["recall"][0]}
    documented = {part for name in re.findall(r"`([\w.]+)`", text) for part in name.split(".")}
    assert keys - documented == set()
