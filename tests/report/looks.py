"""What every page keeps to in a real browser: nothing requested, no error, nothing cut off, accessible, printable."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.browser import Browser, Page

AXE = """axe.run(document, {resultTypes: ["violations", "incomplete"]}).then(found => {
    const told = (kind, one, node) => `${kind} ${one.id}: ${node.html.slice(0, 200)}: ${node.failureSummary}`;
    const measured = node => node.any.some(
        ({data}) => data && data.contrastRatio > 0 && data.contrastRatio < parseFloat(data.expectedContrastRatio));
    const doubtful = found.incomplete.filter(one => one.id === "color-contrast");
    return [
        ...found.violations.flatMap(one => one.nodes.map(node => told(one.impact, one, node))),
        ...doubtful.flatMap(one => one.nodes.filter(measured).map(node => told("doubtful", one, node))),
    ];
})"""
A4 = 718  # CSS pixels between margins of 1 cm


@functools.cache
def axe() -> str:
    """Return the script of axe-core; skips the test where the package that carries it is absent."""
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or not found.submodule_search_locations:
        pytest.skip("axe-core is not installed (make test installs it)")
    return (Path(found.submodule_search_locations[0]) / "axe.min.js").read_text(encoding="utf-8")


def check(chromium: Browser, file: Path, *, dark: bool = False) -> Page:
    """Open a page wide and light, narrow and dark, and as it prints; return the first.

    dark: whether axe-core looks at the dark colours too, which all pages share.
    """
    assert file.is_file(), "Chromium would show a page of its own"
    wide = chromium.page(file, width=1400)
    narrow = chromium.page(file, width=390, dark=True)
    for page in (wide, narrow) if dark else (wide,):
        page.run(axe() + ";0")
        assert page.run(AXE) == []
    _whole(wide)
    _whole(narrow)
    printed = chromium.page(file, width=A4, dark=True)
    printed.send("Emulation.setEmulatedMedia", media="print", features=[])
    printed.run("dispatchEvent(new Event('beforeprint'))")
    _whole(printed)
    white = "getComputedStyle(document.body).backgroundColor"
    assert printed.run(white) == "rgb(255, 255, 255)" and not printed.run(
        "!!document.querySelector('details:not([open])')"
    )
    narrow.close()
    printed.close()
    return wide


def _whole(page: Page) -> None:
    assert page.errors == [] and page.requests == []
    cut: Any = page.run("document.documentElement.scrollWidth - innerWidth")
    assert cut <= 0, f"the page is {cut} pixels wider than the window"
