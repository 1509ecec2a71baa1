"""The report of a run: one HTML page that opens anywhere, without a network, and says in words what the numbers mean.

In: run folders. Out: `write` puts `report.html` into a folder, `compare` lays several runs side by side; `load`,
`figures` and `remarks` give the same content as Python objects.
"""

from groundup.report.figures import Figures, figures
from groundup.report.page import compare, write
from groundup.report.read import Run, load
from groundup.report.remark import Remark
from groundup.report.remarks import remarks

__all__ = ["Figures", "Remark", "Run", "compare", "figures", "load", "remarks", "write"]
