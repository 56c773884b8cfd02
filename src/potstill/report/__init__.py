"""Reports: the results of a run folder as one HTML page. Imports no torch."""

from potstill.report.comparison import write_comparison
from potstill.report.likeness import write_likeness
from potstill.report.page import write_report
from potstill.report.transfer import write_transfer

__all__ = ["write_comparison", "write_likeness", "write_report", "write_transfer"]
