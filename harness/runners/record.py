"""Record predictions in matbench's own format, read them back, and see whether they are the same.

Public: complete, write, read_back. A record says of each fold which subject predicted it; reading
back compares label and values with what really ran, so a label of a model that did not is found.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from harness.claims import Interval, Measurement
from harness.data.dataset import Dataset
from harness.data.folds import matbench_hint
from harness.errors import DataError, NotAvailable
from harness.scores import Scored

TASK = "matbench_mp_e_form"
TOLERANCE_EV_PER_ATOM = 1e-9  # JSON keeps doubles to the last bit; the scores are sums of them


def mean_of_training_targets(targets: Dataset, fold_number: int) -> Scored:
    """The dummy model: one number for every row. It fills folds that no subject predicted."""
    fold = targets.fold(fold_number)
    rows, train = fold.test_rows, fold.train.target_ev_per_atom
    return Scored(
        model="mean of the training targets",
        dataset=targets.name,
        ids=targets.ids[rows],
        formulas=targets.reduced_formulas()[rows],
        reference_ev_per_atom=targets.target_ev_per_atom[rows],
        predicted_ev_per_atom=np.full(len(rows), train.mean()),
        of=fold.n_claimed,
        inputs=targets.inputs,
    )


def complete(targets: Dataset, folds: Mapping[int, Scored]) -> dict[int, Scored]:
    """All five folds; those nobody predicted hold the dummy model, under its own name."""
    return {
        number: folds[number] if number in folds else mean_of_training_targets(targets, number)
        for number in range(targets.n_folds)
    }


def write(targets: Dataset, folds: Mapping[int, Scored], path: Path) -> Path:
    """Write a matbench record of five folds, each labelled with the subject that predicted it.

    Raises:
        NotAvailable: matbench is not installed; the message names the one command.
        DataError: a fold's predictions do not cover exactly the official test rows.
    """
    with _matbench() as task_class:
        import pandas as pd

        task = task_class(TASK, autoload=False)
        task.df = pd.DataFrame(
            {"structure": None, "e_form": targets.target_ev_per_atom}, index=targets.ids
        )
        for number in task.folds:
            scored = folds[number]
            by_id = dict(zip(scored.ids.tolist(), scored.predicted_ev_per_atom, strict=True))
            official = task.validation[task.folds_map[number]].test
            if by_id.keys() != set(official):
                raise DataError(
                    f"fold {number} of {TASK} has {len(official)} test rows and {scored.model} "
                    f"predicted {len(by_id)}: matbench records whole folds only. Predict every "
                    "row, or leave the fold out."
                )
            predicted = np.array([by_id[i] for i in official])
            task.record(number, predicted, params={"model": scored.model})
        path.parent.mkdir(parents=True, exist_ok=True)
        task.to_file(str(path))
    return path


def read_back(path: Path, ran: Mapping[int, Scored]) -> Measurement:
    """How many recorded values are not what the labelled subject predicted.

    Counts rows whose recorded prediction differs from that of the subject the label names (all of
    them if that subject did not run), and scores that differ from ours by more than 1e-9.

    Args:
        path: a matbench record.
        ran: fold -> the subject that really ran there, and what it predicted.
    """
    wrong_rows = wrong_scores = n = 0
    compared: list[dict[str, object]] = []
    labels = {}
    with _matbench() as task_class:
        task = task_class.from_file(str(path))
    for number, scored in ran.items():
        results = task.results[task.folds_map[number]]
        label = results.parameters["model"]
        labels[f"fold {number}"] = label
        n += len(results.data)
        if label != scored.model:
            wrong_rows += len(results.data)
            continue
        for row_id, predicted in zip(
            scored.ids.tolist(), scored.predicted_ev_per_atom, strict=True
        ):
            # .get with nan: a row that was never recorded differs from anything
            difference = abs(results.data.get(row_id, np.nan) - predicted)
            wrong_rows += not difference <= TOLERANCE_EV_PER_ATOM
        error = scored.error_ev_per_atom
        ours = {
            "mae": float(np.abs(error).mean()),
            "rmse": float(np.sqrt((error**2).mean())),
            "max_error": float(np.abs(error).max()),
        }
        for name, value in ours.items():
            wrong_scores += not abs(results.scores[name] - value) <= TOLERANCE_EV_PER_ATOM
            compared.append(
                {
                    "fold": str(number),
                    "score": name,
                    "ours_ev_per_atom": value,
                    "matbench_ev_per_atom": results.scores[name],
                }
            )
    some = ran[min(ran)]
    return Measurement(
        quantity="recorded values that are not the labelled subject's",
        interval=Interval.exact(float(wrong_rows + wrong_scores), n=n),
        scored=n,
        of=n,
        dataset=some.dataset,
        model=some.model,
        inputs=some.inputs,
        details={"labels": labels, "scores": compared, "wrong_rows": wrong_rows},
    )


@contextmanager
def _matbench() -> Iterator[Any]:
    """matbench's task class, with its log lines and its dependencies' warnings kept quiet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of matminer and monty at import; not ours to mend
        try:
            from matbench.task import MatbenchTask
        except ImportError as error:
            raise NotAvailable(
                f"matbench cannot be imported ({error}). {matbench_hint()}"
            ) from None
        logger = logging.getLogger("matbench.task")
        level = logger.level
        logger.setLevel(logging.WARNING)
        try:
            yield MatbenchTask
        except json.JSONDecodeError as error:
            raise DataError(f"the record is not JSON: {error}. Record it again.") from None
        finally:
            logger.setLevel(level)
