"""Joins the layers: options in, subjects and data out, one place for both `checks/` and `tests/`.

Yours to change: the options and what the fixtures hand to checks.
Lives elsewhere: claims and reports (harness/report), procedures (harness/runners), data, models.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from harness.claims import Size
from harness.data import DATASETS, auto_choice, cache_dir, load_dataset
from harness.data.reference_files import Geometries, read_reference
from harness.errors import ConfigError, DataAbsent, HarnessError, NotAvailable
from harness.files import check_writable, printable
from harness.models import ASE, CHECKPOINT, DEVICES, MODELS
from harness.models.alignment import References
from harness.models.subjects import Subject, chosen
from harness.report.pins import PINS, load_pins
from harness.report.recorder import RECORDER, Context, start_recording
from harness.report.verdicts import load_documented
from harness.store import MakeProgress, PredictionStore

if TYPE_CHECKING:
    from harness.data.dataset import Dataset, Fold
    from harness.data.peers import PeerPredictions
    from harness.models import Model
    from harness.runners.finetune import FineTuneResult
    from harness.runners.zero_shot import ZeroShotResult
    from harness.scores import Scored

pytest_plugins = ["harness.report.plugin", "harness.report.moved"]

KnownReferences = dict[str, References | NotAvailable]

CHECKS = Path(__file__).resolve().parent / "checks"  # also where a link leads here
DEFAULT_MODEL = "chgnet-0.3.0"
REFERENCE = pytest.StashKey[Geometries]()
SUBJECT = pytest.StashKey[Subject]()
LOADED = pytest.StashKey["Model"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("validation harness")
    group.addoption(
        "--dataset",
        default="auto",
        metavar="NAME|PATH",
        help="auto, embedded, thermochemistry, matbench_mp_e_form, or a file in its layout "
        "(default: %(default)s: the official file where it has been fetched, else the one in "
        "HARNESS_DATA, else embedded)",
    )
    group.addoption(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME",
        help=f"model under test: {', '.join(MODELS)}, weights of yours as {CHECKPOINT}, or any "
        f"ASE calculator as {ASE} (default: %(default)s; docs/models.md)",
    )
    group.addoption(
        "--models",
        type=Path,
        metavar="FILE",
        help="a models file (TOML): short names for --model, with kwargs, card and interpreter "
        "(docs/models.md)",
    )
    group.addoption(
        "--python",
        metavar="PATH",
        help="the interpreter of another environment, which computes an ASE calculator",
    )
    group.addoption(
        "--name",
        metavar="NAME",
        help="what reports, documented verdicts and history call the model (default: its own name)",
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
    sample = config.getoption("--sample")
    try:
        subject = chosen(
            config.getoption("--model"),
            models=config.getoption("--models"),
            python=config.getoption("--python"),
            alias=config.getoption("--name"),
        )
    except ConfigError as error:
        raise pytest.UsageError(printable(f"--model: {error}")) from None
    config.stash[SUBJECT] = subject
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
        device = asked if config.option.collectonly else _device(asked)  # which needs torch
        if not config.option.collectonly and not hasattr(config, "workerinput"):
            check_writable(
                cache_dir(), "predictions and conversions", "Name another in HARNESS_CACHE."
            )
            _named_can_be_loaded(config, device)
        known = (CHECKS / "verdicts.toml", *config.getoption("--documented"))
        documented = load_documented(*known)
        config.stash[PINS] = load_pins(*known)
    except HarnessError as error:
        raise pytest.UsageError(printable(str(error))) from None
    context = Context(
        dataset=dataset,
        dataset_reason=reason,
        model=subject.name,
        device=device,
        size=Size(config.getoption("--size")),
        sample=sample,
        training_dataset=_training_set_of(dataset),
    )
    start_recording(config, context, documented)


def _named_can_be_loaded(config: pytest.Config, device: str) -> None:
    """What the user named is there, or the session ends: not with a few checks that need neither.

    Raises:
        HarnessError: it is not.
    """
    if (subject := config.stash[SUBJECT]).model != DEFAULT_MODEL:
        config.stash[LOADED] = subject.load(device)
    if (dataset := config.getoption("--dataset")) != "auto":
        load_dataset(dataset)


def _training_set_of(dataset: str) -> str:
    """What claims about training are measured on: the set under test, or where that is the small
    set of our own DFT the compounds with experimental enthalpies, which are enough to train on."""
    return "thermochemistry" if dataset == "embedded" else dataset


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A set that comes with the project is measured in every session: once where it is the one
    under test. Bounds of their own are for data sets that there are. What a session mends by itself
    ends no check, where warnings are errors."""
    for item in items:
        mark = item.get_closest_marker("claim")
        if mark:
            item.add_marker(pytest.mark.filterwarnings("default::harness.errors.Remark"))
        if mark and (unknown := set(mark.kwargs.get("bounds_on", ())) - set(DATASETS)):
            raise pytest.UsageError(
                f"{item.nodeid}: bounds_on names {sorted(unknown)}; data sets are "
                f"{', '.join(DATASETS)}"
            )
    if RECORDER not in config.stash:
        return
    under_test = config.stash[RECORDER].context.dataset
    twice = [
        item
        for item in items
        if (mark := item.get_closest_marker("beside")) and mark.args == (under_test,)
    ]
    if twice:
        config.hook.pytest_deselected(items=twice)
        items[:] = [item for item in items if item not in twice]


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
    return _fold(dataset, fold_number)


@pytest.fixture(scope="session")
def training_dataset(dataset: Dataset) -> Dataset:
    """What claims about training are measured on."""
    name = _training_set_of(dataset.name)
    return dataset if name == dataset.name else load_dataset(name)


@pytest.fixture(scope="session")
def training_fold(training_dataset: Dataset, fold_number: int) -> Fold:
    """One fold of it."""
    return _fold(training_dataset, fold_number)


def _fold(dataset: Dataset, number: int) -> Fold:
    """A set without that fold is `not run`, not an error."""
    if number >= dataset.n_folds:
        raise DataAbsent(
            f"{dataset.name} has {dataset.n_folds} fold(s); fold {number} needs the official "
            "data: python -m harness fetch matbench_mp_e_form"
        )
    return dataset.fold(number)


@pytest.fixture(scope="session")
def targets(dataset: Dataset) -> Dataset:
    """Every official row of mp_e_form, with or without structures."""
    if dataset.name == "matbench_mp_e_form" and not dataset.is_subset:
        return dataset
    for name in ("targets", "matbench_mp_e_form"):
        with suppress(NotAvailable):
            return load_dataset(name)
    raise DataAbsent(
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

        config = request.config
        device, subject = config.stash[RECORDER].context.device, config.stash[SUBJECT]
        kept = PredictionStore(kept.root, executor(address, device=device, subject=subject))
    yield kept
    request.config.stash[RECORDER].notes["store"] = asdict(kept.traffic)


@pytest.fixture(scope="session")
def model(request: pytest.FixtureRequest) -> Model:
    """The subject, as `--model` (with `--models`, `--python`, `--name`) and `--device` chose it."""
    stash = request.config.stash
    if LOADED in stash:  # to see whether it can be
        return stash[LOADED]
    return stash[SUBJECT].load(stash[RECORDER].context.device)


@pytest.fixture(scope="session")
def training_references(
    model: Model, store: PredictionStore, training_dataset: Dataset
) -> KnownReferences:
    """Fixed elemental references by alignment for claims about training, or why there are none."""
    return _references(model, store, training_dataset)


def _references(model: Model, store: PredictionStore, dataset: Dataset) -> KnownReferences:
    """MP2020's table, and the subject's own energies of elements: those of our own DFT beside
    compounds of our own DFT."""
    from harness.data import embedded, thermochemistry
    from harness.data.references import FILE_NAME as MP2020_FILE
    from harness.data.references import load_mp2020_references
    from harness.runners.zero_shot import own_references

    if dataset.name == embedded.NAME:
        elements, inputs = embedded.load_elements()
    else:
        elements = thermochemistry.load_elements()[1]
        inputs = {thermochemistry.ELEMENTS_FILE: thermochemistry.ELEMENTS_SHA256}
    found: KnownReferences = {"self": own_references(model, elements, store, inputs)}
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


class ZeroShotOn(Protocol):
    """The subject's energies of a fold, ready to be aligned."""

    def __call__(self, fold: Fold) -> ZeroShotResult: ...


@pytest.fixture(scope="session")
def zero_shot_on(
    request: pytest.FixtureRequest, model: Model, store: PredictionStore, progress: MakeProgress
) -> ZeroShotOn:
    """Measures zero-shot energies of a fold of any data set."""
    from harness.runners import zero_shot

    config = zero_shot.ZeroShot(sample=request.config.getoption("--sample"))

    def on(fold: Fold) -> ZeroShotResult:
        known = _references(model, store, fold.dataset)
        return zero_shot.run(model, fold, store, known, config, progress)

    return on


@pytest.fixture(scope="session")
def zero_shot(zero_shot_on: ZeroShotOn, fold: Fold) -> ZeroShotResult:
    """On the fold under test."""
    return zero_shot_on(fold)


@pytest.fixture(scope="session")
def training_zero_shot(zero_shot_on: ZeroShotOn, training_fold: Fold) -> ZeroShotResult:
    """On the fold that claims about training are measured on."""
    return zero_shot_on(training_fold)


@pytest.fixture(scope="session")
def baseline(
    request: pytest.FixtureRequest, fold: Fold, store: PredictionStore, progress: MakeProgress
) -> Scored:
    """The composition baseline on the fold under test."""
    return _baseline(request, fold, store, progress)


@pytest.fixture(scope="session")
def train_baseline(
    request: pytest.FixtureRequest,
    training_fold: Fold,
    store: PredictionStore,
    progress: MakeProgress,
) -> Callable[[int], Scored]:
    """The composition baseline of a seed, on the fold that claims about training are about."""
    return lambda seed: _baseline(request, training_fold, store, progress, seed)


def _baseline(
    request: pytest.FixtureRequest,
    fold: Fold,
    store: PredictionStore,
    progress: MakeProgress,
    seed: int = 0,
) -> Scored:
    """Trained on every official training row where the targets are at hand, else on the training
    rows of the data set itself."""
    from harness.models.composition import FEW_ROWS, CompositionMLP
    from harness.runners import baseline

    if fold.dataset.index is not None:
        with suppress(NotAvailable):
            fold = request.getfixturevalue("targets").fold(fold.number)
    config = FEW_ROWS if fold.trains_on_few else CompositionMLP()
    return baseline.run(fold, store, replace(config, seed=seed), progress=progress)


@pytest.fixture(scope="session")
def train(
    model: Model,
    training_fold: Fold,
    store: PredictionStore,
    training_zero_shot: ZeroShotResult,
    progress: MakeProgress,
) -> Callable[..., FineTuneResult]:
    """A fine-tuning with given settings, scored on the rows that zero-shot is scored on."""
    from harness.runners import finetune

    return partial(
        finetune.run,
        model,
        training_fold,
        store,
        test_rows=training_zero_shot.rows,
        progress=progress,
    )


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
