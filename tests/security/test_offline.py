"""`--offline` forbids every download, and says what to do instead."""

from __future__ import annotations

import urllib.request

import pytest
import torch.hub
from typer.testing import CliRunner

from potstill.cli import app
from potstill.data.formats import read_manifest
from potstill.errors import DataError, ModelError
from potstill.models import hub
from potstill.offline import VARIABLE, is_offline


def test_weights_are_not_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_: pytest.fail("a download"))
    before = torch.hub.download_url_to_file

    def get() -> None:
        torch.hub.download_url_to_file("https://download.pytorch.org/models/x.pth", "x.pth")

    with pytest.raises(ModelError, match="--offline forbids to download them from download.pytorch.org"):
        hub.fetched(get, model="x", host=hub.TORCHVISION)
    assert torch.hub.download_url_to_file is before


def test_data_sets_are_not_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    with pytest.raises(DataError, match="which --offline forbids"):
        read_manifest("hf:mnist")


def test_the_flag_stands_before_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    assert not is_offline()
    done = CliRunner().invoke(app, ["--offline", "check", "hf:mnist"])
    assert done.exit_code == 2 and "--offline forbids" in done.output
