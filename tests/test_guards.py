"""What guards a measurement: whose rows, whose predictions and whose references it is of."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from harness.claims import Interval
from harness.errors import DataError
from harness.models.alignment import References
from harness.runners import ensemble
from harness.runners.learning_curve import LearningCurve, LearningCurveResult
from harness.runners.lever import Lever, LeverResult, LeverTest
from harness.runners.zero_shot import ZeroShotResult
from harness.scores import Scored, mean_mae_minus, require_rows, typical

FORMULAS = np.array([f"X{i}" for i in range(11)] + ["X0"])


def scored(shift=0.0, model="m", **changes):
    rng = np.random.default_rng(1)
    reference = rng.normal(size=12)
    given = {
        "model": model,
        "dataset": "d",
        "ids": np.array([f"r{i}" for i in range(12)]),
        "formulas": FORMULAS,
        "reference_ev_per_atom": reference,
        "predicted_ev_per_atom": reference + rng.normal(size=12) + shift,
        "of": 12,
    }
    return Scored(**{**given, **changes})


def over(n, units, method="bootstrap"):
    return Interval(estimate=1.0, low=1.0, high=1.0, n=n, n_clusters=units, method=method)


def test_an_interval_is_over_the_rows_that_were_scored_and_their_formulas():
    require_rows(over(12, 11), FORMULAS, "MAE")
    require_rows(over(12, 12, "exact"), FORMULAS, "MAE")
    for n, units, method in ((24, 22, ""), (12, 12, ""), (11, 11, ""), (12, 11, "exact")):
        with pytest.raises(DataError, match=r"MAE: 12 rows of 1[12] formulas were scored"):
            require_rows(over(n, units, method), FORMULAS, "MAE")


@pytest.mark.parametrize(
    ("module", "measure"),
    [
        ("harness.scores", lambda: scored().mae()),
        ("harness.scores", lambda: scored().offset()),
        ("harness.scores", lambda: scored().spread()),
        ("harness.scores", lambda: scored().mae_minus(scored(0.1))),
        ("harness.runners.ensemble", lambda: ensemble.run([scored(), scored(0.1)]).gain()),
        ("harness.runners.ensemble", lambda: ensemble.run([scored(), scored(0.1)]).distance()),
        ("harness.runners.lever", lambda: levered().effect()),
        (
            "harness.runners.learning_curve",
            lambda: curve().advantage("a", "b", up_to=10),
        ),
    ],
)
def test_rows_resampled_in_place_of_formulas_are_refused(module, measure, monkeypatch):
    assert measure().interval.n_clusters == 11
    import importlib

    honest = importlib.import_module(module).bootstrap

    def by_row(columns, clusters, *rest, **more):
        return honest(columns, np.arange(len(clusters)), *rest, **more)

    monkeypatch.setattr(f"{module}.bootstrap", by_row)
    with pytest.raises(DataError, match="12 rows of 11 formulas were scored"):
        measure()


def levered():
    return LeverResult(
        config=LeverTest(),
        lever=Lever(name="l", change={"x": 1}, probe="p"),
        baseline=(scored(), scored()),
        levered=scored(0.1),
        probe_in_baseline=0,
        probe_in_lever=1,
    )


def curve():
    errors = np.random.default_rng(2).normal(size=(1, 2, 12))
    return LearningCurveResult(
        config=LearningCurve(sizes=(10,), n_draws=2),
        dataset="d",
        ids=scored().ids,
        formulas=FORMULAS,
        errors_ev_per_atom={"a": errors, "b": 2 * errors},
        of=12,
        excluded={},
        absent={},
        inputs={},
        details={},
    )


def test_claims_about_one_subject_carry_one_digest_of_its_predictions():
    one, other = scored(), scored(0.1)
    digests = {
        m.details["predictions_sha256"]
        for m in (one.mae(), one.offset(), one.spread(), one.mae_minus(other))
    }
    assert digests == {one.predictions_sha256}
    assert other.predictions_sha256 not in digests
    few = other.on(other.ids[:11])
    assert one.mae_minus(few).details["predictions_sha256"] == one.predictions_sha256
    renamed = replace(one, ids=np.array([f"s{i}" for i in range(12)]))
    assert renamed.predictions_sha256 != one.predictions_sha256
    assert one.with_errors_shifted(1e-9).predictions_sha256 != one.predictions_sha256


def test_a_mean_carries_the_digest_of_what_is_called_the_mean():
    members = [scored(), scored(0.1)]
    made = ensemble.run(members)
    assert made.gain().details["predictions_sha256"] == made.mean.predictions_sha256
    assert made.mean.predictions_sha256 not in {m.predictions_sha256 for m in members}
    measured = mean_mae_minus(members, scored(0.3), model="mean")
    expected = typical(members, model="mean").predictions_sha256
    assert measured.details["predictions_sha256"] == expected


def test_references_answer_to_the_alignment_that_asks_for_them():
    rows = np.arange(12)
    compositions = np.zeros((12, 118))
    compositions[:, 10] = 1.0
    references = References(name="refit", energies_ev_per_atom=np.zeros(118))
    dataset = SimpleNamespace(
        name="d",
        ids=scored().ids,
        compositions=compositions,
        target_ev_per_atom=scored().reference_ev_per_atom,
        reduced_formulas=lambda: FORMULAS,
        inputs={},
    )
    from harness.models.protocol import Identity, Prediction

    result = ZeroShotResult(
        config=None,
        fold=SimpleNamespace(dataset=dataset, splits=(None,), test_rows=rows, n_claimed=12),
        identity=Identity(name="m", weights_sha256="a"),
        rows=rows,
        total=Prediction(energy=scored().predicted_ev_per_atom),
        references={"refit": (references,), "self": (references,)},
        owner=np.zeros(12, dtype=np.int64),
        details={},
        unavailable={},
    )
    found = result.scored("refit")
    assert found.details["alignment"] == "refit"
    (digest,) = found.details["references_sha256"]
    other = replace(references, energies_ev_per_atom=np.full(118, 1e-9))
    moved = replace(result, references={"refit": (other,)}).scored("refit")
    assert moved.details["references_sha256"] != [digest]
    assert result.scored("none").details["alignment"] == "none"
    with pytest.raises(DataError, match=r"the references of 'self' are called \['refit'\]"):
        result.scored("self")
