"""How often intervals cover: what is counted, what is drawn from, and the coverage itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.claims import Interval
from harness.errors import DataError
from harness.report import calibrate as module
from harness.report.calibrate import Row, calibrate, render
from harness.statistics import (
    Units,
    bootstrap,
    interval_of,
    mean,
    median,
    ratio_of_sums,
    share,
    student_t,
)


def units(values: Any, statistic: str = "mean") -> Units:
    values = np.asarray(values, dtype=np.float64)
    sums = np.stack([np.ones(len(values)), values])
    return Units(statistic=statistic, sums=sums, what="crystals")


def kept(
    folder: Path, found: Units, key: str = "a.b[x]", bound: Any = (np.nan, 1.0), name: str = "a"
) -> Path:
    """A folder as a session leaves it."""
    (folder / "units").mkdir(exist_ok=True)
    np.savez_compressed(
        folder / "units" / f"{name}.npz",
        sums=found.sums,
        statistic=np.array(found.statistic),
        what=np.array(found.what),
        key=np.array(key),
        bound=np.array(bound, dtype=np.float64),
    )
    return folder


# --- the same code as for a claim

X = np.random.default_rng(1).gamma(2, size=40)


@pytest.mark.parametrize(
    "made",
    [
        bootstrap(X, np.arange(40), mean, unit="crystals"),
        bootstrap(X, np.arange(40) // 2, mean, unit="pairs"),
        bootstrap(np.stack([X, X**2]), np.arange(40), ratio_of_sums, unit="crystals"),
        median(X, unit="crystals"),
        share(3, 40, unit="crystals"),
        student_t(X[:5], unit="seeds"),
    ],
)
def test_units_give_the_interval_they_were_taken_from(made):
    assert made.units is not None
    assert interval_of(made.units) == made


def test_level_resamples_and_seed_are_taken():
    found = units(X)
    usual = interval_of(found)
    assert interval_of(found, n_resamples=400).method.endswith("400 resamples")
    assert interval_of(found, seed=1).low != usual.low
    for statistic in ("mean", "median", "student_t"):
        narrow = interval_of(units(X, statistic), level=0.5)
        wide = interval_of(units(X, statistic))
        assert narrow.level == 0.5
        assert narrow.high - narrow.low < wide.high - wide.low
    assert interval_of(share(3, 40, unit="x").units, level=0.5).high < 0.15


def test_an_unknown_statistic_is_named():
    known = "mean, geometric_mean, .*, median, share, student_t"
    with pytest.raises(DataError, match=f"no statistic 'mode'; known: {known}"):
        interval_of(units(X, "mode"))


# --- what is counted


def test_a_row_says_what_was_measured_and_what_was_drawn(tmp_path):
    found = Units(statistic="mean", sums=np.stack([np.full(40, 3.0), X]), what="crystals")
    (row,) = calibrate(kept(tmp_path, found), trials=50)
    assert row.key == "a.b[x]"
    assert row.method == "studentised bootstrap"
    assert (row.n, row.n_units, row.effective) == (120, 40, pytest.approx(40))
    assert row.settled
    assert row.population == "the units"
    assert row.trials == 50
    assert row.unsettled == pytest.approx(0.18)  # nine of the fifty drew one crystal too often
    assert row.inside + row.below + row.above == pytest.approx(1)
    assert row.inside > 0.85


def counted(monkeypatch, intervals: list[Interval | None], bound: Any) -> Row:
    """The row of units of which samples have these intervals; the truth is 0.5."""
    first = Interval(estimate=0.5, low=0.4, high=0.6, n=40, n_clusters=40, method="m over 40 x")
    queue = [first, first, *intervals]
    monkeypatch.setattr(module, "_interval", lambda _: queue.pop(0))
    generator = np.random.default_rng(0)
    return module._row("k", units(X), np.array(bound), len(intervals), generator)


def between(low: float, high: float, unsettled: str = "") -> Interval:
    middle = (low + high) / 2
    return Interval(estimate=middle, low=low, high=high, n=1, n_clusters=1, unsettled=unsettled)


DRAWN = [
    between(0.1, 0.4999),  # the truth is above
    between(0.1, 0.4999),
    between(0.5001, 0.9),  # and below
    between(0.1, 0.5),  # ends count as inside
    between(0.5, 0.9),
    between(0.4, 0.6),
    between(0.4, 0.6),
    between(0.1, 0.2, unsettled="one decides"),
    None,
    None,
]


@pytest.mark.parametrize(
    ("bound", "wrong"),
    [
        ((np.nan, 1.0), 0.2),  # `< bound` is held by intervals that lie too low
        ((0.0, np.nan), 0.1),
        ((0.0, 1.0), 0.2),
        ((np.nan, np.nan), None),
    ],
)
def test_the_truth_is_inside_below_or_above(monkeypatch, bound, wrong):
    row = counted(monkeypatch, DRAWN, bound)
    assert row.trials == 10
    assert row.unsettled == pytest.approx(0.3)
    assert (row.inside, row.below, row.above) == pytest.approx((4 / 7, 1 / 7, 2 / 7))
    assert row.wrongly_held == (wrong if wrong is None else pytest.approx(wrong))


def test_where_nothing_settles_there_is_no_coverage(monkeypatch):
    row = counted(monkeypatch, [None, between(0, 1, unsettled="x")], (np.nan, 1.0))
    assert (row.inside, row.below, row.above) == (None, None, None)
    assert (row.unsettled, row.wrongly_held) == (1.0, 0.0)


def test_of_very_many_units_fewer_samples_are_drawn(monkeypatch):
    monkeypatch.setattr(module, "_MOST_DRAWN", 400)
    monkeypatch.setattr(module, "FEWEST_TRIALS", 3)
    row = counted(monkeypatch, DRAWN, (np.nan, 1.0))  # 400 / 40 units
    assert row.trials == 10
    monkeypatch.setattr(module, "_MOST_DRAWN", 399)
    assert counted(monkeypatch, [*DRAWN, *DRAWN], (np.nan, 1.0)).trials == 9
    monkeypatch.setattr(module, "_MOST_DRAWN", 1)
    assert counted(monkeypatch, DRAWN, (np.nan, 1.0)).trials == 3


def test_the_same_seed_gives_the_same_rows_and_another_others(tmp_path):
    for name in "ab":
        kept(tmp_path, units(X), name=name)
    first = calibrate(tmp_path, trials=60)
    assert calibrate(tmp_path, trials=60) == first
    assert calibrate(tmp_path, trials=60, seed=1) != first
    assert first[0] != first[1]  # each file has draws of its own


def test_files_are_read_in_order_of_their_names_and_progress_is_told(tmp_path):
    for key, name in (("second", "b"), ("first", "a")):
        kept(tmp_path, units(X[:12]), key=key, name=name)
    told: list[Any] = []

    def progress(what: str, total: int) -> Any:
        told.append((what, total))
        return told.append

    rows = calibrate(tmp_path, trials=5, progress=progress)
    assert [row.key for row in rows] == ["first", "second"]
    assert told == [("calibrate", 2), 1, 1]


# --- what is drawn from


def test_few_hits_have_the_claims_bound_for_a_truth(tmp_path):
    (row,) = calibrate(kept(tmp_path, units(np.ones(47), "share"), bound=(0.9, np.nan)), 400)
    assert row.population == "a share of 0.9"
    assert row.method == "Clopper-Pearson"
    assert row.inside >= 0.94
    assert 0 < row.above < 0.04
    assert 0 <= row.wrongly_held == row.below < 0.03


@pytest.mark.parametrize(
    ("values", "bound", "population"),
    [
        (np.zeros(47), (np.nan, 0.1), "a share of 0.1"),
        (np.zeros(47), (0.3, 0.1), "a share of 0.1"),  # the nearer end
        (np.ones(47), (0.3, 0.1), "a share of 0.3"),
        (np.zeros(47), (0.0, 1.0), "nothing: no share lies at the bound"),
        (np.arange(47) < 9, (np.nan, 0.1), "the units"),
        (np.arange(10) < 3, (np.nan, 0.1), "the units"),
        (np.arange(9) < 3, (np.nan, 0.1), "a share of 0.1"),
    ],
)
def test_what_a_share_is_drawn_from(tmp_path, values, bound, population):
    (row,) = calibrate(kept(tmp_path, units(values, "share"), bound=bound), trials=20)
    assert row.population == population
    nothing = population.startswith("nothing")
    assert row.trials == (0 if nothing else 20)
    assert (row.unsettled is None) == (row.inside is None) == (row.wrongly_held is None) == nothing


@pytest.mark.parametrize(
    ("statistic", "m", "population"),
    [
        ("student_t", 5, "a normal population"),
        ("student_t", 9, "a normal population"),
        ("student_t", 10, "the units"),
        ("median", 9, "a normal population"),
        ("median", 10, "the units"),
        ("mean", 9, "nothing: too few units"),
        ("mean", 10, "the units"),
        ("mean", 1, "nothing: too few units"),
        ("student_t", 1, "a normal population"),
    ],
)
def test_what_numbers_are_drawn_from(tmp_path, statistic, m, population):
    (row,) = calibrate(kept(tmp_path, units(np.arange(m), statistic)), trials=20)
    assert row.population == population
    assert row.settled == (m >= (6 if statistic == "median" else 2 if "t" in statistic else 10))


def test_a_normal_population_has_the_units_mean_and_variance():
    draw = np.random.default_rng(3)
    found = units([1.0, 2.0, 6.0], "student_t")
    _, truth, sample = module._population(found, np.array([np.nan, 1.0]), draw)
    assert truth == 3.0
    drawn = np.concatenate([sample().sums[1] for _ in range(4000)])
    assert drawn.mean() == pytest.approx(3.0, abs=0.1)
    assert drawn.var() == pytest.approx(7.0, rel=0.05)
    assert (sample().sums[0] == 1).all()
    assert (sample().statistic, sample().what) == ("student_t", "crystals")


def test_a_sample_is_of_whole_units_with_replacement():
    sums = np.array([[1.0, 2.0, 3.0] * 4, [10.0, 20.0, 30.0] * 4])
    found = Units(statistic="mean", sums=sums, what="formulas")
    _, truth, sample = module._population(found, np.array([np.nan, 1.0]), np.random.default_rng(0))
    assert truth == pytest.approx(10.0)
    drawn = sample()
    assert drawn.sums.shape == (2, 12)
    assert (drawn.sums[1] == 10 * drawn.sums[0]).all()
    assert (drawn.statistic, drawn.what) == ("mean", "formulas")
    assert len({tuple(sample().sums[0]) for _ in range(5)}) == 5


def test_what_allows_no_interval_is_none():
    # the spread of copies of one unit is none, and the ratio of two such no number
    nothing = Units(statistic="std_ratio", sums=np.ones((5, 12)), what="x")
    assert module._interval(nothing) is None
    assert module._interval(units([1.0])) is None


# --- files


def test_a_folder_without_units_says_what_to_run(tmp_path):
    with pytest.raises(DataError, match=r"units holds no units.*Run `pytest checks/ -m fold0`"):
        calibrate(tmp_path)


@pytest.mark.parametrize("broken", ["text", "no key", "pickled", "flat", "empty", "bound"])
def test_a_damaged_file_is_named(tmp_path, broken):
    folder = kept(tmp_path, units(X))
    path = folder / "units" / "a.npz"
    fields = dict(np.load(path))
    if broken == "text":
        path.write_text("no zip")
    elif broken == "no key":
        del fields["key"]
    elif broken == "pickled":
        fields["sums"] = np.array([{"a": 1}], dtype=object)
    elif broken == "flat":
        fields["sums"] = X
    elif broken == "empty":
        fields["sums"] = np.ones((2, 0))
    else:
        fields["bound"] = np.array(1.0)
    if broken != "text":
        np.savez(path, **fields)
    with pytest.raises(DataError, match=r"a\.npz.*Run the session again"):
        calibrate(folder)


def test_the_table():
    row = Row(
        key="a.b[x] fold0",
        method="studentised bootstrap",
        n=12345,
        n_units=1234,
        effective=56.7,
        settled=True,
        population="the units",
        trials=2000,
        unsettled=0.0125,
        inside=0.9512,
        below=0.02,
        above=0.0288,
        wrongly_held=0.0284,
    )
    bare = Row(
        key="c",
        method="",
        n=1,
        n_units=1,
        effective=None,
        settled=False,
        population="nothing: too few units",
        trials=0,
        unsettled=None,
        inside=None,
        below=None,
        above=None,
        wrongly_held=None,
    )
    assert list(render([row, bare])) == [
        "| claim | interval | rows | units | effective | settled | inside | truth below | truth "
        "above | wrong `held` | unsettled | drawn from |",
        "|---|---|--:|--:|--:|---|--:|--:|--:|--:|--:|---|",
        "| `a.b[x] fold0` | studentised bootstrap | 12,345 | 1,234 | 57 | yes | 95.1 % | 2.0 % | "
        "2.9 % | 2.8 % | 1.2 % | the units |",
        "| `c` |  | 1 | 1 |  | no | – | – | – | – | – | nothing: too few units |",
    ]


# --- coverage itself, on a population that is known: Gamma(2), which is skewed as errors are

TRIALS = 400


def inside(made: Any, m: int, truth: float, seed: int) -> float:
    """How often the truth is inside, of samples whose interval settles."""
    draw = np.random.default_rng(seed)
    found = [made(draw.gamma(2, size=m)) for _ in range(TRIALS)]
    ends = np.array([(i.low, i.high) for i in found if not i.unsettled])
    assert len(ends) > TRIALS / 2
    return float(((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean())


@pytest.mark.parametrize("m", [17, 47, 63])
def test_the_studentised_interval_of_a_skewed_mean_covers(m):
    # of very many draws 94.1, 94.3 and 94.7 %; of 400 within 1.2 of that
    covered = inside(lambda x: interval_of(units(x), n_resamples=999), m, 2.0, seed=2)
    assert 0.93 <= covered <= 0.98


@pytest.mark.parametrize(("m", "least", "most"), [(17, 0.90, 0.92), (47, 0.915, 0.935)])
def test_percentiles_of_so_few_do_not_which_is_why(m, least, most):
    draw = np.random.default_rng(2)
    samples = draw.gamma(2, size=(4000, m))
    counts = draw.multinomial(m, np.full(m, 1 / m), size=999)
    low, high = np.percentile(samples @ counts.T / m, [2.5, 97.5], axis=1)
    assert least < np.mean((low <= 2.0) & (high >= 2.0)) < most


@pytest.mark.parametrize("m", [6, 17, 47])
def test_order_statistics_cover_a_median(m):
    assert inside(lambda x: interval_of(units(x, "median")), m, 1.67835, seed=2) >= 0.94


@pytest.mark.parametrize(("n", "rate"), [(8, 0.05), (47, 0.95), (47, 0.5)])
def test_clopper_and_pearsons_interval_covers_at_least_as_often_as_it_says(n, rate):
    # exactly, by summing over all outcomes: no draws are needed
    from scipy.stats import binom

    found = [interval_of(units(np.arange(n) < k, "share")) for k in range(n + 1)]
    covers = [i.low <= rate <= i.high for i in found]
    assert float(binom.pmf(np.arange(n + 1), n, rate) @ covers) >= 0.95


def test_students_t_covers_a_mean_of_five_trainings():
    draw = np.random.default_rng(3)
    found = [interval_of(units(draw.normal(size=5), "student_t")) for _ in range(TRIALS)]
    assert 0.93 <= np.mean([i.low <= 0 <= i.high for i in found]) <= 0.97
