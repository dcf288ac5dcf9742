"""Compares a session with the numbers on record (`pins`), and fails it where one of them moved.

A plugin of pytest's beside plugin.py, which it leaves alone: it notes at collection what the claims
and their controls are, and at the end, when all records are in, what is not as it was.
"""

from __future__ import annotations

import pytest

from harness.claims import Claim
from harness.report.pins import PINS, all_moved, altered, described
from harness.report.recorder import RECORDER

_MOVED = pytest.StashKey[list[str]]()


@pytest.hookimpl(tryfirst=True)  # before anything is deselected
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    recorder = config.stash.get(RECORDER, None)
    if recorder is None or PINS not in config.stash:
        return
    claims: dict[str, tuple[Claim, str]] = {}
    controls: dict[str, set[tuple[str, str]]] = {}  # claim -> test without parameters, fault
    for item in items:
        if (marker := item.get_closest_marker("claim")) is not None:
            claims[marker.kwargs["id"]] = (Claim(**marker.kwargs), item.path.name)
        elif (marker := item.get_closest_marker("control")) is not None:
            test = item.nodeid.partition("[")[0]
            controls.setdefault(marker.kwargs["of"], set()).add((test, marker.kwargs["fault"]))
    catalogue = [
        described(claim, file, [fault for _, fault in controls.get(claim_id, ())])
        for claim_id, (claim, file) in claims.items()
    ]
    whole = [
        (config.invocation_params.dir / argument).resolve()
        for argument in config.args
        if "::" not in argument
    ]
    recorder.notes["catalogue"] = catalogue
    recorder.notes["moved"] = altered(config.stash[PINS], catalogue, whole)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Before the records are written, which is done last."""
    config = session.config
    recorder = config.stash.get(RECORDER, None)
    if recorder is None or PINS not in config.stash or recorder.is_worker:
        return
    if config.option.collectonly:
        return
    own = {recorder.context.dataset, recorder.context.training_dataset}
    moved = [
        *recorder.notes.get("moved", ()),
        *all_moved(config.stash[PINS], recorder.evidence, own, recorder.context.model),
    ]
    recorder.notes["moved"] = moved
    config.stash[_MOVED] = moved
    if moved and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    moved = config.stash.get(_MOVED, [])
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if not moved or reporter is None:
        return
    n = len(moved)
    words = "number is not the documented one" if n == 1 else "numbers are not as documented"
    reporter.line(f"MOVED: {n} {words}:", red=True, bold=True)
    for line in moved:
        reporter.line(f"  {line}", red=True)
