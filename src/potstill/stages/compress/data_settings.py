"""The images of a compression: those of the run that the model is from, unless others are given, whole or in part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from potstill.config import build
from potstill.errors import DataError, missing
from potstill.stages.recipe import DataConfig
from potstill.stages.run_folder import recorded_data


def completed(settings: Any) -> Any:
    """Return settings in which `data` has a path where it was given in part, such as its limit: that of the run.

    Raises `ValueError`, for pydantic, where no record tells which data the model was trained on.
    """
    data = settings.get("data") if isinstance(settings, dict) else None
    if not isinstance(data, dict) or "path" in data or not isinstance(model := settings.get("model"), str):
        return settings
    recorded = recorded_data(Path(model))
    if recorded is None:
        raise ValueError(_no_record(model))
    return {**settings, "data": {**data, "path": recorded.get("path")}}


def settings_of(model: str, data: DataConfig | None) -> DataConfig:
    """Return the settings of the data: what was given, and the rest from the run of the model.

    Raises `DataError` where nothing was given and no record tells which data the model was trained on.
    """
    recorded = recorded_data(Path(model))
    if data is not None:
        return build(DataConfig, (recorded or {}) | data.model_dump(mode="json", exclude_unset=True))
    if recorded is None:
        raise DataError(_no_record(model))
    return build(DataConfig, recorded)


def _no_record(model: str) -> str:
    if not Path(model).exists():
        return f"{missing(Path(model))} Give the folder of a finished run or of a model."
    return f"No record tells which data {model} was trained on. Give them with --data."
