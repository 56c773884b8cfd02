"""Reports: the results of a stage as one HTML page. Imports no torch."""

from potstill.report.likeness import write_likeness
from potstill.report.stations import write_report

__all__ = ["write_likeness", "write_report"]
