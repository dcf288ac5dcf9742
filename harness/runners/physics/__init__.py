"""Physics that any potential must obey, put to the subject on crystals that hypothesis draws.

Public: Allowance, Search, PROCEDURES, run, Found, Scan, scan, elements, declarations; and for
controls Fault, Faulty, Remembering, sized.

A procedure draws crystals and measures by how much the subject breaks one law on each. A law holds
for all crystals, so one on which it is broken beyond what numerics may move refutes it, and
hypothesis then searches for the smallest such crystal. Where there is none, the number drawn says
how often the law may be broken at most. Search and seed decide everything: the same subject gives
the same numbers.

search          hypothesis, driven: crystals drawn, and the smallest that breaks a law
subject         the model, asked for what it offers
laws            what is compared on one crystal: two forms, derivatives, finite outputs
smoothness      the same for what happens as layers of atoms come apart
found           one law put to a subject, and what came of it
declarations    the elements it names, and what it says of itself
faults          the subject with one fault, sized on its own crystals

Free to change: all that is not public here. What changes a number raises `found.VERSION`.
"""

from .declarations import declarations, elements
from .faults import Fault, Faulty, Remembering, sized
from .found import Found, Scan, run, scan
from .laws import PROCEDURES
from .search import Allowance, Search

__all__ = [
    "PROCEDURES",
    "Allowance",
    "Fault",
    "Faulty",
    "Found",
    "Remembering",
    "Scan",
    "Search",
    "declarations",
    "elements",
    "run",
    "scan",
    "sized",
]
