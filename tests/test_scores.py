"""Scores on paper, and rows that must add up."""

import numpy as np
import pytest

from harness.errors import DataError
from harness.scores import Scored, mean_mae_minus, same_rows, typical
from harness.statistics import bootstrap, with_variance


def scored(predicted, *, ids=None, reference=None, of=None, model="m", formulas=None, **more):
    n = len(predicted)
    ids = np.array([f"row{i}" for i in range(n)] if ids is None else ids)
    reference = np.arange(n, dtype=float) if reference is None else np.asarray(reference, float)
    return Scored(
        model=model,
        dataset="d",
        ids=ids,
        formulas=ids if formulas is None else np.array(formulas),
        reference_ev_per_atom=reference,
        predicted_ev_per_atom=np.asarray(predicted, float),
        of=n if of is None else of,
        excluded={} if of is None else {"elsewhere": of - n},
        **more,
    )


def test_mae_offset_and_spread_of_a_shifted_scaled_copy():
    reference = np.arange(21.0)
    result = scored(2 * reference + 1, reference=reference)
    assert result.mae().interval.estimate == 11.0
    assert result.mae().quantity == "MAE of e_form"
    assert result.offset().interval.estimate == 11.0
    assert result.offset().quantity == "mean error of e_form"
    assert result.spread().interval.estimate == pytest.approx(2.0)
    assert result.spread().quantity == "std of predicted e_form over std of reference"
    below = scored(-reference - 1, reference=np.zeros(21))
    assert below.mae().interval.estimate == 11.0
    assert below.offset().interval.estimate == -11.0


def test_a_spread_is_that_of_numbers_far_from_zero_too():
    draw = np.random.default_rng(8)
    x, y = draw.normal(size=(2, 30))
    near = scored(y, reference=x).spread().interval
    far = scored(y + 3e7, reference=x - 2e7).spread().interval
    assert near.estimate == pytest.approx(y.std() / x.std())
    assert (far.estimate, far.low, far.high) == pytest.approx(
        (near.estimate, near.low, near.high), rel=1e-6
    )


def test_the_interval_is_over_formulas():
    draw = np.random.default_rng(0)
    errors, formulas = draw.normal(size=40), [f"f{i // 2}" for i in range(40)]
    result = scored(errors, reference=np.zeros(40), formulas=formulas)
    assert result.mae().interval == bootstrap(np.abs(errors), np.array(formulas))
    assert result.mae().interval.n_clusters == 20


def test_a_measurement_says_whose_it_is_and_where_every_row_went():
    plain = scored([0.0, 1.0]).mae()
    assert (plain.subject, plain.model, plain.dataset) == ("", "m", "d")
    told = Scored(
        model="m (self)",
        subject="m",
        dataset="d",
        ids=np.array(["a", "b"]),
        formulas=np.array(["a", "b"]),
        reference_ev_per_atom=np.zeros(2),
        predicted_ev_per_atom=np.zeros(2),
        of=9,
        excluded={"isolated": 3},
        absent={"elsewhere": 4},
        inputs={"file": "1"},
        details={"config": 2},
    )
    for measured in (told.mae(), told.offset(), told.mae_minus(told)):
        assert (measured.subject, measured.model) == ("m", "m (self)")
        assert (measured.scored, measured.of, measured.asked) == (2, 9, 5)
        assert (measured.excluded, measured.absent) == ({"isolated": 3}, {"elsewhere": 4})
        assert measured.inputs == {"file": "1"}
        assert measured.details["config"] == 2


def test_the_paired_difference_counts_only_rows_both_scored():
    mine = scored(
        [1.0, -1.0, 1.0],
        reference=[0, 0, 0],
        ids=["a", "b", "c"],
        model="mine",
        inputs={"mine": "1"},
    )
    other = scored(
        [3.0, -3.0, 9.0],
        reference=[0, 0, 0],
        ids=["b", "c", "z"],
        model="other",
        inputs={"theirs": "2"},
    )
    measured = mine.mae_minus(other)
    assert measured.interval.estimate == -2.0
    assert measured.quantity == "MAE of mine minus MAE of other"
    assert (measured.scored, measured.of) == (2, 3)
    assert measured.excluded == {"not scored by the other model": 1}
    assert measured.details["mae_of"] == {"mine": 1.0, "other": 3.0}
    assert measured.inputs == {"theirs": "2", "mine": "1"}


def test_rows_left_out_twice_are_counted_together():
    one = scored(np.zeros(4), ids=list("abcd"))
    fewer = one.on(np.array(list("abc"))).on(np.array(list("cax")))
    assert fewer.ids.tolist() == ["c", "a"]
    assert fewer.excluded == {"not scored by the other model": 2}
    assert one.on(one.ids).excluded == {}


def test_the_order_of_rows_does_not_matter_to_a_paired_difference():
    mine = scored([1.0, 2.0, 4.0], reference=[0, 1, 2], ids=["a", "b", "c"])
    other = scored([3.0, 1.0, 0.0], reference=[2, 0, 1], ids=["c", "a", "b"])
    assert mine.mae_minus(other).interval.estimate == pytest.approx((1 + 1 + 2 - 1 - 1 - 1) / 3)


def test_models_scored_against_different_targets_are_not_compared():
    with pytest.raises(DataError, match="m and m were scored against different references on d"):
        scored([0, 0], reference=[0, 0]).mae_minus(scored([0, 0], reference=[0, 1]))


# --- what is refused


def test_a_prediction_that_is_not_finite_cannot_be_scored():
    with pytest.raises(DataError, match="m: 1 predictions are not finite, first row1; count"):
        scored([0.0, np.nan])
    with pytest.raises(DataError, match="2 predictions are not finite, first row0"):
        scored([0.0, 0.0], without_group_ev_per_atom=(np.zeros(2), np.full(2, np.inf)))


@pytest.mark.parametrize(
    ("ids", "first"), [("aa", "a"), ("abcb", "b"), ("abba", "b")], ids=["two", "later", "inner"]
)
def test_a_row_that_comes_twice_is_refused_by_name(ids, first):
    with pytest.raises(DataError, match=f"m: row {first} comes twice; a row counts once"):
        scored(np.zeros(len(ids)), ids=list(ids))


@pytest.mark.parametrize(("of", "excluded", "absent"), [(5, 1, 1), (3, 1, 1), (4, 2, 1), (4, 1, 0)])
def test_rows_that_do_not_add_up_are_refused(of, excluded, absent):
    given = {
        "model": "m",
        "dataset": "d",
        "ids": np.array(["a", "b"]),
        "formulas": np.array(["a", "b"]),
        "reference_ev_per_atom": np.zeros(2),
        "predicted_ev_per_atom": np.zeros(2),
    }
    assert Scored(**given, of=4, excluded={"x": 1}, absent={"y": 1}).of == 4
    counts = {"excluded": {"x": excluded}, "absent": {"y": absent}}
    says = rf"m: 2 scored \+ .*'x': {excluded}.* \+ .*'y': {absent}.* not {of}; say of every row"
    with pytest.raises(DataError, match=says):
        Scored(**given, of=of, **counts)


def test_columns_of_different_lengths_are_refused():
    honest = scored([0.0, 1.0])
    for name in ("ids", "formulas", "reference_ev_per_atom", "predicted_ev_per_atom"):
        columns = {
            "ids": np.array(["a", "b"]),
            "formulas": np.array(["a", "b"]),
            "reference_ev_per_atom": np.zeros(2),
            "predicted_ev_per_atom": np.zeros(2),
        }
        columns[name] = columns[name][:1]
        with pytest.raises(DataError, match=r"m: columns of different lengths \[1, 2\]"):
            Scored(model="m", dataset="d", of=2, **columns)
    with pytest.raises(DataError, match=r"columns of different lengths \[2, 3\]"):
        scored([0.0, 1.0], without_group_ev_per_atom=(np.zeros(2), np.zeros(3)))
    assert len(honest) == 2


# --- planted faults


def test_a_planted_fault_leaves_the_original_alone():
    honest = scored([0.0, 1.0], without_group_ev_per_atom=(np.zeros(2), np.ones(2)))

    def spoil(energies):
        energies += 5
        return energies

    faulty = honest.with_predictions(spoil, model="faulty")
    assert faulty.model == "faulty"
    assert faulty.mae().interval.estimate == 5.0
    assert honest.mae().interval.estimate == 0.0
    np.testing.assert_array_equal(faulty.without_group_ev_per_atom, [[5, 5], [6, 6]])
    np.testing.assert_array_equal(honest.without_group_ev_per_atom, [[0, 0], [1, 1]])


def test_errors_are_scaled_about_the_references_and_shifted():
    honest = scored(
        [1.5, 1.0],
        reference=[1.0, 2.0],
        subject="s",
        without_group_ev_per_atom=(np.array([1.0, 3.0]), np.array([2.0, 2.0])),
    )
    tripled = honest.with_errors_scaled(3)
    np.testing.assert_allclose(tripled.predicted_ev_per_atom, [2.5, -1.0])
    np.testing.assert_allclose(tripled.without_group_ev_per_atom, [[1, 5], [4, 2]])
    assert (tripled.model, tripled.subject) == ("m, errors times 3", "s")
    shifted = honest.with_errors_shifted(-0.25)
    np.testing.assert_allclose(shifted.predicted_ev_per_atom, [1.25, 0.75])
    np.testing.assert_allclose(shifted.without_group_ev_per_atom, [[0.75, 2.75], [1.75, 1.75]])
    assert shifted.model == "m, -0.25 eV/atom"
    assert honest.with_errors_shifted(0.5).model == "m, +0.5 eV/atom"


# --- what the fit of an alignment adds


ERRORS = np.random.default_rng(1).normal(size=30)
GROUPS = (0.1, -0.2, 0.4)  # eV/atom by which the predictions move where a group is left out


REFERENCE = np.linspace(1, 2, 30)  # eV/atom


def refitted(**more):
    columns = tuple(REFERENCE + ERRORS + moved for moved in GROUPS)
    return scored(
        REFERENCE + ERRORS, reference=REFERENCE, without_group_ev_per_atom=columns, **more
    )


def jackknife(values):
    """(G - 1)/G times the sum of squared deviations, written out."""
    middle = sum(values) / len(values)
    return (len(values) - 1) / len(values) * sum((value - middle) ** 2 for value in values)


def widened(columns, values, *statistic):
    clusters = np.array([f"row{i}" for i in range(30)])
    return with_variance(
        bootstrap(columns, clusters, *statistic),
        jackknife(values),
        2,
        source="the refit's own error, 3 groups",
    )


def same(found, expected):
    assert found.method == expected.method
    numbers = [(i.estimate, i.low, i.high, i.resolution) for i in (found, expected)]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-12)


def test_a_refits_own_error_widens_every_measurement():
    result = refitted()
    maes = [np.abs(ERRORS + moved).mean() for moved in GROUPS]
    same(result.mae().interval, widened(np.abs(ERRORS), maes))
    same(result.offset().interval, widened(ERRORS, GROUPS))
    plain = scored(REFERENCE + ERRORS, reference=REFERENCE)
    assert result.offset().interval.high > plain.offset().interval.high
    assert result.offset().interval.low < plain.offset().interval.low
    assert "refit" not in plain.offset().interval.method


def test_a_refits_own_error_widens_a_spread_only_where_it_moves_it():
    draw = np.random.default_rng(2)
    reference = draw.normal(size=30)
    predicted = reference + 0.1 * draw.normal(size=30)
    moved = scored(
        predicted,
        reference=reference,
        without_group_ev_per_atom=(predicted + 1, predicted - 2, predicted + 5),
    )
    plain = scored(predicted, reference=reference).spread().interval
    assert moved.spread().interval.high == pytest.approx(plain.high, rel=1e-9)
    factors = (0.9, 1.1, 1.3)
    scaled = scored(
        predicted,
        reference=reference,
        without_group_ev_per_atom=tuple(predicted * factor for factor in factors),
    )
    ratio = predicted.std() / reference.std()
    variance = jackknife([ratio * factor for factor in factors])
    expected = with_variance(plain, variance, 2, source="the refit's own error, 3 groups")
    same(scaled.spread().interval, expected)


def test_a_paired_difference_counts_the_refits_of_both():
    other = scored(REFERENCE + 2 * ERRORS, reference=REFERENCE)
    mine = refitted()
    gap = np.abs(ERRORS) - np.abs(2 * ERRORS)
    values = [(np.abs(ERRORS + moved) - np.abs(2 * ERRORS)).mean() for moved in GROUPS]
    same(mine.mae_minus(other).interval, widened(gap, values))
    turned = other.mae_minus(mine).interval
    same(turned, widened(-gap, [-value for value in values]))
    both = mine.mae_minus(refitted(model="again")).interval
    assert both.method.count("the refit's own error, 3 groups") == 2


def test_rows_taken_keep_their_refits():
    some = refitted().on(np.array(["row7", "row2"]))
    for moved, column in zip(GROUPS, some.without_group_ev_per_atom, strict=True):
        np.testing.assert_array_equal(column, (REFERENCE + ERRORS + moved)[[7, 2]])


def test_one_group_left_out_is_refused():
    with pytest.raises(DataError, match="m: one group left out tells no variance; give two"):
        scored([0.0, 1.0], without_group_ev_per_atom=(np.zeros(2),))


# --- several trainings


def test_a_typical_training_errs_as_all_do_on_average():
    one, other = scored([0.5, 1.0, 2.0]), scored([-0.5, 1.5, 1.0])
    both = typical([one, other], model="both")
    np.testing.assert_allclose(both.error_ev_per_atom, [0.5, 0.25, 0.5])
    assert both.model == "both"
    for apart in (
        scored([0.0, 1.0, 2.0], ids=["row0", "row1", "x"]),
        scored([0.0, 1.0, 2.0], reference=[0.0, 1.0, 3.0]),
    ):
        with pytest.raises(DataError, match="m and m were not scored on the same rows"):
            typical([one, apart], model="both")


def test_the_mean_of_seeds_against_another_counts_rows_and_seeds():
    draw = np.random.default_rng(3)
    zero = np.zeros(50)
    seeds = [scored(factor * draw.normal(size=50), reference=zero) for factor in (1, 1.2, 1.5)]
    other = scored(2 * draw.normal(size=50), reference=zero, model="other")
    found = mean_mae_minus(seeds, other, model="mean of 3 seeds")
    maes = [float(np.abs(seed.error_ev_per_atom).mean()) for seed in seeds]
    assert found.details["mae_of_seeds_ev_per_atom"] == maes
    assert found.details["mae_of"]["mean of 3 seeds"] == pytest.approx(np.mean(maes))
    assert found.quantity == "MAE of mean of 3 seeds minus MAE of other"
    rows = typical(seeds, model="mean").mae_minus(other).interval
    expected = with_variance(
        rows, float(np.var(maes, ddof=1)) / 3, 2, source="the spread over 3 seeds"
    )
    assert found.interval == expected
    assert found.interval.high > rows.high
    assert "the spread over 3 seeds" in found.interval.method


def test_the_mean_of_seeds_is_on_the_rows_the_other_scored():
    zero, ids = np.zeros(21), [f"row{i}" for i in range(20)]
    seeds = [scored([*np.linspace(0, value, 20), 99], reference=zero) for value in (2.0, 6.0)]
    other = scored(np.linspace(0, 3, 20), reference=zero[:20], ids=ids, model="other")
    found = mean_mae_minus(seeds, other, model="both")
    assert found.details["mae_of_seeds_ev_per_atom"] == pytest.approx([1.0, 3.0])
    assert found.interval.estimate == pytest.approx(0.5)
    assert found.excluded == {"not scored by the other model": 1}
    with pytest.raises(DataError, match=r"1 seed\(s\): their spread takes two at least"):
        mean_mae_minus(seeds[:1], other, model="one")


def test_the_table_of_models_is_on_the_subjects_rows_and_sorted():
    subject = scored([0.5, 1.5, 2.5], model="subject")
    better = scored([0.1, 1.1, 2.1, 99.0], model="the better")
    worse = scored([0.9, 1.9], model="a worse")
    table = same_rows(subject, [worse, better])
    assert [(row.name, row.n, row.is_subject) for row in table] == [
        ("the better", 3, False),
        ("subject", 3, True),
        ("a worse", 2, False),
    ]
    assert table[0].mae_ev_per_atom == pytest.approx(0.1)
    assert (table[1].ci_low, table[1].ci_high) == (0.5, 0.5)
    varied = scored(np.arange(30) ** 1.1, model="varied")
    (row,) = same_rows(varied, [])
    interval = varied.mae().interval
    assert (row.ci_low, row.ci_high) == (interval.low, interval.high)
    assert row.ci_low < row.mae_ev_per_atom < row.ci_high
