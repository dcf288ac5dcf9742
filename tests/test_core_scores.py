"""Scores where nothing is left to score."""

import numpy as np

from harness.scores import Scored


def test_rows_that_nobody_scored_leave_none():
    scored = Scored(
        model="m",
        dataset="d",
        ids=np.array(["a", "b"]),
        formulas=np.array(["A", "B"]),
        reference_ev_per_atom=np.zeros(2),
        predicted_ev_per_atom=np.ones(2),
        of=2,
        without_group_ev_per_atom=(np.ones(2), np.zeros(2)),
    )
    none = scored.on(np.array(["c"]))
    assert len(none) == 0
    assert none.excluded == {"not scored by the other model": 2}
    assert [len(e) for e in none.without_group_ev_per_atom] == [0, 0]
