"""Train the composition baseline on a fold's training rows and score its test rows.

Public: run. Trained once for its settings, rows and seed; the store remembers the predictions, and
a training that was killed goes on from its last checkpoint.
"""

from __future__ import annotations

import numpy as np

from harness.data.dataset import Fold, Split
from harness.errors import DataError
from harness.models.composition import CompositionMLP
from harness.models.protocol import Identity
from harness.models.training.checkpoints import Checkpoints
from harness.scores import Scored
from harness.store import MakeProgress, PredictionStore


def run(
    fold: Fold,
    store: PredictionStore,
    config: CompositionMLP = CompositionMLP(),  # noqa: B008 (frozen)
    *,
    device: str = "cpu",
    progress: MakeProgress | None = None,
) -> Scored:
    """Predictions of every test row, by a network trained on the training rows of its split.

    Raises:
        DataError: a split has no training rows.
    """
    dataset = fold.dataset
    identities: list[Identity] = []
    predicted = []
    for split in fold.splits:
        if len(split.train) == 0:
            raise DataError(
                f"fold {fold.number} of {dataset.name} has no training rows; the composition "
                "baseline has nothing to learn from. Use a data set with training rows."
            )
        identity, energies = _of_split(fold, split, store, config, device, progress)
        identities.append(identity)
        predicted.append(energies)
    rows = fold.test_rows
    absent = fold.n_claimed - len(rows)
    return Scored(
        model=identities[0].name,
        subject=identities[0].name,
        dataset=dataset.name,
        ids=dataset.ids[rows],
        formulas=dataset.reduced_formulas()[rows],
        reference_ev_per_atom=dataset.target_ev_per_atom[rows],
        predicted_ev_per_atom=np.concatenate(predicted),
        of=fold.n_claimed,
        absent={"not in the data set at hand": absent} if absent else {},
        inputs=dict(dataset.inputs),
        details={
            "settings": identities[0].settings,
            "training_rows": [len(split.train) for split in fold.splits],
            "trained_on": [identity.weights_sha256 for identity in identities],
        },
    )


def _of_split(
    fold: Fold,
    split: Split,
    store: PredictionStore,
    config: CompositionMLP,
    device: str,
    progress: MakeProgress | None,
) -> tuple[Identity, np.ndarray]:
    dataset = fold.dataset
    identity = config.identity(dataset.composition_sha256(split.train, with_target=True))
    if device != "cpu":  # other kernels, other roundings, another trained network
        identity = Identity(
            name=identity.name,
            weights_sha256=identity.weights_sha256,
            settings={**identity.settings, "device": device},
        )

    def train(checkpoints: Checkpoints) -> dict[str, np.ndarray]:
        what = f"{identity.name}, seed {config.seed}, epochs"
        tick = progress(what, config.epochs) if progress else None
        done = 0

        def on_epoch(epoch: int, _: float) -> None:
            nonlocal done
            if tick is not None:
                tick(epoch - done)  # more than one where it goes on from a checkpoint
            done = epoch

        energies = config.fit_predict(
            dataset.compositions[split.train],
            dataset.target_ev_per_atom[split.train],
            dataset.compositions[split.test],
            device=device,
            on_epoch=on_epoch,
            checkpoints=checkpoints,
        )
        on_epoch(config.epochs, 0.0)  # also where its last epoch was done before
        return {"e_form_ev_per_atom": energies}

    test_sha256 = dataset.composition_sha256(split.test, with_target=False)
    stored = store.trained(identity, {"test compositions": test_sha256}, train)
    return identity, stored["e_form_ev_per_atom"]
