"""Joins the layers: options in, subjects and data out, one place for both `checks/` and `tests/`.

Yours to change: the options and what the fixtures hand to checks.
Lives elsewhere: claims and reports (harness/report), procedures (harness/runners), data, models.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.data import auto_choice, cache_dir, load_dataset
from harness.data.reference_files import Geometries, read_reference
from harness.errors import ConfigError, HarnessError, NotAvailable
from harness.models import ASE, DEVICES, MODELS, check_name, load_model
from harness.models.alignment import References
from harness.report.recorder import RECORDER, Context, start_recording
from harness.report.verdicts import load_documented
from harness.store import MakeProgress, PredictionStore

if TYPE_CHECKING:
    from harness.data.dataset import Dataset, Fold
    from harness.data.peers import PeerPredictions
    from harness.models import Model
    from harness.runners.zero_shot import ZeroShotResult
    from harness.scores import Scored

pytest_plugins = ["harness.report.plugin"]

CHECKS = Path(__file__).parent / "checks"
DEFAULT_MODEL = "chgnet-0.3.0"
REFERENCE = pytest.StashKey[Geometries]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("validation harness")
    group.addoption(
        "--dataset",
        default="auto",
        metavar="NAME|PATH",
        help="auto, embedded, matbench_mp_e_form, or a file in its layout (default: %(default)s: "
        "the official file where it has been fetched, else the one in HARNESS_DATA, else embedded)",
    )
    group.addoption(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME",
        help=f"model under test: {', '.join(MODELS)}, or any ASE calculator as {ASE} "
        "(default: %(default)s; docs/models.md)",
    )
    group.addoption(
        "--device",
        default="auto",
        choices=DEVICES,
        help="where the model runs (default: %(default)s, a GPU where there is one)",
    )
    group.addoption(
        "--ray",
        metavar="ADDRESS",
        help="compute the model's predictions on the Ray cluster at ADDRESS (`auto`, HOST:PORT, or "
        "`local` to start one here); needs the package ray (default: in this process)",
    )
    group.addoption(
        "--sample",
        type=int,
        metavar="N",
        help="score at most N rows a fold, drawn with a fixed seed (default: all)",
    )
    group.addoption(
        "--reference",
        type=Path,
        metavar="FILE",
        help="relaxed crystals of your own to compare relaxations with: POSCAR, CIF, vasprun.xml "
        "or extended XYZ (default: the project's own DFT only)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Wrong values fail before any work; recording starts if checks will run."""
    name, sample = config.getoption("--model"), config.getoption("--sample")
    try:
        check_name(name)
    except ConfigError as error:
        raise pytest.UsageError(f"--model: {error}") from None
    if sample is not None and sample < 100:
        raise pytest.UsageError(
            f"--sample={sample}: give at least 100 rows, or no interval is narrow"
        )
    if not _runs_checks(config):
        return
    try:
        if (reference := config.getoption("--reference")) is not None:
            config.stash[REFERENCE] = read_reference(reference)
        dataset, reason = auto_choice(config.getoption("--dataset"))
        asked = config.getoption("--device")
        if not config.option.collectonly:
            with suppress(NotAvailable):  # then checks that need the model are `not run`
                check_name(name, resolve=True)
        device = asked if config.option.collectonly else _device(asked)  # which needs torch
        documented = (
            {}
            if sample is not None  # documented verdicts are those of all rows
            else load_documented(CHECKS / "verdicts.toml", model=name, dataset=dataset)
        )
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from None
    context = Context(
        dataset=dataset, dataset_reason=reason, model=name, device=device, sample=sample
    )
    start_recording(config, context, documented)


def _runs_checks(config: pytest.Config) -> bool:
    paths = [(config.invocation_params.dir / arg.split("::")[0]).resolve() for arg in config.args]
    return any(path == CHECKS or CHECKS in path.parents or path in CHECKS.parents for path in paths)


def _device(asked: str) -> str:
    if asked == "cpu":
        return asked
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if asked == "cuda":
        raise ConfigError("--device=cuda, but torch sees no GPU here; use --device=cpu")
    return "cpu"


@pytest.fixture(scope="session")
def dataset(request: pytest.FixtureRequest) -> Dataset:
    """The data set under test, as `--dataset` chose it."""
    return load_dataset(request.config.getoption("--dataset"))


@pytest.fixture(scope="session")
def fold(dataset: Dataset, fold_number: int) -> Fold:
    """One fold of it; a set without that fold is `not run`, not an error."""
    if fold_number >= dataset.n_folds:
        raise NotAvailable(
            f"{dataset.name} has {dataset.n_folds} fold(s); fold {fold_number} needs the official "
            "data: python -m harness fetch matbench_mp_e_form"
        )
    return dataset.fold(fold_number)


@pytest.fixture(scope="session")
def targets(dataset: Dataset) -> Dataset:
    """Every official row of mp_e_form, with or without structures."""
    if dataset.name == "matbench_mp_e_form" and not dataset.is_subset:
        return dataset
    for name in ("targets", "matbench_mp_e_form"):
        with suppress(NotAvailable):
            return load_dataset(name)
    raise NotAvailable(
        "this is about all 132,752 official rows of mp_e_form, which are not at hand. Run: "
        "python -m harness fetch matbench_mp_e_form"
    )


@pytest.fixture(scope="session")
def peers() -> PeerPredictions:
    """Published per-structure predictions of leaderboard models."""
    from harness.data import load_peer_predictions

    return load_peer_predictions()


@pytest.fixture(scope="session")
def own_reference(request: pytest.FixtureRequest) -> Geometries:
    """The relaxed crystals of `--reference`."""
    if REFERENCE not in request.config.stash:
        raise NotAvailable("no crystals of your own were given: name their file with --reference")
    return request.config.stash[REFERENCE]


@pytest.fixture(scope="session")
def field(request: pytest.FixtureRequest, fold: Fold) -> list[Scored]:
    """Leaderboard models on the same fold, to be shown beside the subject; empty where absent."""
    from harness.runners import leaderboard

    if fold.dataset.index is None:
        return []
    try:
        targets, peers = (request.getfixturevalue(name) for name in ("targets", "peers"))
    except NotAvailable:
        return []
    return list(leaderboard.run(targets, peers, fold.number).values())


@pytest.fixture(scope="session")
def store(request: pytest.FixtureRequest) -> Iterator[PredictionStore]:
    """Predictions of earlier sessions, in the cache folder; the report says what was computed."""
    kept = PredictionStore(cache_dir() / "predictions")
    if (address := request.config.getoption("--ray")) is not None:
        from harness.execute.ray import executor

        device = request.config.stash[RECORDER].context.device
        kept = PredictionStore(kept.root, executor(address, device=device))
    yield kept
    request.config.stash[RECORDER].notes["store"] = asdict(kept.traffic)


@pytest.fixture(scope="session")
def model(request: pytest.FixtureRequest) -> Model:
    """The subject, as `--model` and `--device` chose it."""
    return load_model(
        request.config.getoption("--model"), request.config.stash[RECORDER].context.device
    )


@pytest.fixture(scope="session")
def references(model: Model, store: PredictionStore) -> dict[str, References | NotAvailable]:
    """Fixed elemental references by alignment, or why there are none."""
    from harness.data.embedded import ELEMENTS_FILE, ELEMENTS_SHA256, load_elements
    from harness.data.references import FILE_NAME as MP2020_FILE
    from harness.data.references import load_mp2020_references
    from harness.runners.zero_shot import own_references

    found: dict[str, References | NotAvailable] = {
        "self": own_references(model, load_elements()[1], store, {ELEMENTS_FILE: ELEMENTS_SHA256})
    }
    try:
        table = load_mp2020_references()
        found["mp2020"] = References(
            name="mp2020",
            energies_ev_per_atom=table.energies_ev_per_atom,
            inputs={MP2020_FILE: table.sha256},
        )
    except NotAvailable as error:
        found["mp2020"] = error
    return found


@pytest.fixture(scope="session")
def zero_shot(
    request: pytest.FixtureRequest,
    model: Model,
    fold: Fold,
    store: PredictionStore,
    references: dict[str, References | NotAvailable],
    progress: MakeProgress,
) -> ZeroShotResult:
    """The subject's energies of the fold, ready to be aligned."""
    from harness.runners import zero_shot

    config = zero_shot.ZeroShot(sample=request.config.getoption("--sample"))
    return zero_shot.run(model, fold, store, references, config, progress)


@pytest.fixture(scope="session")
def baseline(
    request: pytest.FixtureRequest,
    fold: Fold,
    store: PredictionStore,
    progress: MakeProgress,
) -> Scored:
    """The composition baseline on the fold: trained on every official training row where the
    targets are at hand, else on the training rows of the data set itself."""
    from harness.models.composition import FEW_ROWS, CompositionMLP
    from harness.runners import baseline

    if fold.dataset.index is None:
        return baseline.run(fold, store, FEW_ROWS, progress=progress)
    try:
        whole = request.getfixturevalue("targets").fold(fold.number)
    except NotAvailable:
        whole = fold
    return baseline.run(whole, store, CompositionMLP(), progress=progress)


@pytest.fixture(scope="session")
def progress(request: pytest.FixtureRequest) -> MakeProgress:
    """Bars on the terminal for work of more than a moment, past pytest's capture."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def make(what: str, total: int) -> Callable[[int], None]:
        from tqdm import tqdm

        with _uncaptured(capture):
            # Into a file (CI) a line now and then; on a terminal a live bar.
            live = sys.stderr.isatty()
            bar = tqdm(
                total=total,
                desc=what,
                leave=False,
                delay=1.0,
                mininterval=0.2 if live else 20.0,
                file=sys.stderr,
            )

        def tick(done: int) -> None:
            with _uncaptured(capture):
                bar.update(done)
                if bar.n >= total:
                    bar.close()

        return tick

    return make


@contextmanager
def _uncaptured(capture: Any) -> Iterator[None]:
    with capture.global_and_fixture_disabled():
        yield
