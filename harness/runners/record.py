"""Record predictions in matbench's own format, read them back, and see whether they are the same.

Public: complete, write, read, Record. A record says of each fold which subject predicted it;
comparing what is read back with what really ran finds a label of a model that did not.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.claims import Interval, Measurement
from harness.data.dataset import Dataset
from harness.data.folds import matbench_hint
from harness.errors import DataError, NotAvailable
from harness.scores import Scored

TASK = "matbench_mp_e_form"
SUBJECT = "matbench record"  # what claims about a record are about, whoever predicted
FILLER = "mean of the training targets"
TOLERANCE_EV_PER_ATOM = 1e-9  # JSON keeps doubles to the last bit; the scores are sums of them


def mean_of_training_targets(targets: Dataset, fold_number: int) -> Scored:
    """The dummy model: one number for every row. It fills folds that no subject predicted."""
    fold = targets.fold(fold_number)
    rows, train = fold.test_rows, fold.train.target_ev_per_atom
    return Scored(
        model=FILLER,
        dataset=targets.name,
        ids=targets.ids[rows],
        formulas=targets.reduced_formulas()[rows],
        reference_ev_per_atom=targets.target_ev_per_atom[rows],
        predicted_ev_per_atom=np.full(len(rows), train.mean()),
        of=len(rows),
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
        # The bytes of task.to_file, which streams them through json's slow encoder.
        path.write_text(json.dumps(task.as_dict()), encoding="utf-8")
    return path


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordedFold:
    """What a record says of one fold."""

    label: str  # the subject it names
    predicted_ev_per_atom: Mapping[str, float]  # row -> prediction
    scores_ev_per_atom: Mapping[str, float]  # mae, rmse, max_error, as matbench computed them


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """A matbench record, read back from its file."""

    folds: Mapping[int, RecordedFold]

    def with_fold(
        self, number: int, *, label: str | None = None, predicted: Scored | None = None
    ) -> Record:
        """Another label or other predictions in one fold: how controls plant a fault."""
        fold = self.folds[number]
        if label is not None:
            fold = replace(fold, label=label)
        if predicted is not None:
            values = predicted.predicted_ev_per_atom.tolist()
            by_id = dict(zip(predicted.ids.tolist(), values, strict=True))
            fold = replace(fold, predicted_ev_per_atom=by_id)
        return replace(self, folds={**self.folds, number: fold})

    def column(self, number: int, like: Scored) -> Scored:
        """What it holds for one fold, on the rows and beside the references of ``like``.

        Raises:
            DataError: the record lacks the fold or one of the rows.
        """
        fold = self.folds.get(number)
        values = fold.predicted_ev_per_atom if fold else {}
        absent = [row for row in like.ids.tolist() if row not in values]
        if fold is None or absent:
            raise DataError(
                f"the record has {len(values)} rows of fold {number}, and {len(absent)} of the "
                f"{len(like)} asked for are not among them. Record it again."
            )
        predicted = np.array([values[row] for row in like.ids.tolist()], dtype=np.float64)
        return replace(like, model=fold.label, predicted_ev_per_atom=predicted)

    def compare(self, ran: Mapping[int, Scored]) -> Measurement:
        """How many recorded values are not what the labelled subject predicted.

        Counts rows whose recorded prediction differs from that of the subject the label names (all
        of them if that subject did not run), and scores that differ from ours by more than 1e-9.

        Args:
            ran: fold -> the subject that really ran there, and what it predicted.
        """
        wrong_rows = wrong_scores = n = 0
        compared: list[dict[str, object]] = []
        for number, scored in ran.items():
            fold = self.folds[number]
            n += len(fold.predicted_ev_per_atom)
            if fold.label != scored.model:
                wrong_rows += len(fold.predicted_ev_per_atom)
                continue
            # nan: a row that was never recorded differs from anything
            recorded = np.array(
                [fold.predicted_ev_per_atom.get(row, np.nan) for row in scored.ids.tolist()]
            )
            same = np.abs(recorded - scored.predicted_ev_per_atom) <= TOLERANCE_EV_PER_ATOM
            wrong_rows += int((~same).sum())
            error = scored.error_ev_per_atom
            ours = {
                "mae": float(np.abs(error).mean()),
                "rmse": float(np.sqrt((error**2).mean())),
                "max_error": float(np.abs(error).max()),
            }
            for name, value in ours.items():
                matbench = fold.scores_ev_per_atom[name]
                wrong_scores += not abs(matbench - value) <= TOLERANCE_EV_PER_ATOM
                compared.append(
                    {
                        "fold": str(number),
                        "score": name,
                        "ours_ev_per_atom": value,
                        "matbench_ev_per_atom": matbench,
                    }
                )
        subjects = [scored for scored in ran.values() if scored.model != FILLER]
        some, *others = subjects or ran.values()
        return Measurement(
            quantity="recorded values that are not the labelled subject's",
            interval=Interval.exact(float(wrong_rows + wrong_scores), n=n),
            scored=n,
            of=n,
            dataset=some.dataset,
            model=" and ".join(dict.fromkeys(s.model for s in (some, *others))),
            subject=SUBJECT,
            inputs=some.inputs,
            details={
                "labels": {f"fold {number}": self.folds[number].label for number in ran},
                "scores": compared,
                "wrong_rows": wrong_rows,
            },
        )


def read(path: Path) -> Record:
    """A record as matbench itself reads it.

    Raises:
        NotAvailable: matbench is not installed; the message names the one command.
        DataError: the file is no record of this task.
    """
    with _matbench() as task_class:
        try:
            task = task_class.from_file(str(path))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} is not a matbench record ({type(error).__name__}: {error}). Record it "
                "again."
            ) from None
        return Record(
            folds={
                number: RecordedFold(
                    label=str(results.parameters["model"]),
                    predicted_ev_per_atom=dict(results.data),
                    scores_ev_per_atom=dict(results.scores),
                )
                for number in task.folds
                for results in [task.results[task.folds_map[number]]]
            }
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
        finally:
            logger.setLevel(level)
