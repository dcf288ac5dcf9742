"""`python -m harness`: what is done outside a session.

fetch     download data from its publisher, with progress, resume and sha256
doctor    what is installed, which device, which data, what `pytest checks/` would run
report    make evidence.json, junit.xml and report.html of what a session told its journal, also
          of one that was killed
verify    see whether a report tells the truth; exit 1 if a number or a word of it was changed
verdicts  compare a folder's verdicts with the documented ones; exit 1 on any difference
          (--write FILE makes a file of documented verdicts from what the folder has)
calibrate measure on a session's own units how often each of its intervals covers
history   verdicts and numbers of past sessions
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.errors import HarnessError
from harness.files import printable

VERDICTS = Path("checks") / "verdicts.toml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors of ours end as one line on stderr and exit status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m harness",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    fetch = commands.add_parser("fetch", help="download data from its publisher")
    fetch.add_argument("name", help="matbench_mp_e_form or mp-elemental-references")
    commands.add_parser("doctor", help="what is installed and present")
    report = commands.add_parser("report", help="make the reports of a session again")
    report.add_argument("folder", type=Path, nargs="?", default=Path("reports/latest"))
    verify = commands.add_parser("verify", help="whether a report tells the truth")
    verify.add_argument("folder", type=Path, nargs="?", default=Path("reports/latest"))
    verify.add_argument(
        "--checks",
        type=Path,
        metavar="DIR",
        help="claims and bounds in the code (default: checks/, where it is at hand)",
    )
    verify.add_argument(
        "--rerun",
        action="store_true",
        help="also run the session's command again, on what is stored, and compare every number",
    )
    verify.add_argument(
        "--recompute",
        type=int,
        default=0,
        metavar="N",
        help="also compute N of the stored predictions again with the model",
    )
    verdicts = commands.add_parser("verdicts", help="compare with the documented verdicts")
    verdicts.add_argument("folder", type=Path, nargs="?", default=Path("reports/latest"))
    verdicts.add_argument(
        "--documented", type=Path, action="append", metavar="FILE", help=f"default: {VERDICTS}"
    )
    verdicts.add_argument("--write", type=Path, metavar="FILE", help="instead of comparing")
    verdicts.add_argument(
        "--pin",
        type=Path,
        metavar="FILE",
        help="instead of comparing, put this session's numbers beside FILE, a file of verdicts",
    )
    calibrate = commands.add_parser("calibrate", help="measure how often intervals cover")
    calibrate.add_argument("folder", type=Path, nargs="?", default=Path("reports/latest"))
    calibrate.add_argument("--trials", type=int, default=2000)
    history = commands.add_parser("history", help="past sessions")
    history.add_argument("folder", type=Path, nargs="?", default=Path("reports"))
    options = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that lacks a character shows its code
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return {
            "fetch": _fetch,
            "doctor": _doctor,
            "report": _report,
            "verify": _verify,
            "verdicts": _verdicts,
            "calibrate": _calibrate,
            "history": _history,
        }[options.command](options)
    except HarnessError as error:
        print(printable(f"{type(error).__name__}: {error}"), file=sys.stderr)
        return 2
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the exit flushes again
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on from here", file=sys.stderr)
        return 130


def _fetch(options: argparse.Namespace) -> int:
    from harness.data.download import fetch

    print(fetch(options.name))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from harness.data import auto_choice, available
    from harness.models import weights
    from harness.report.environment import machine, versions

    for title, lines in (
        ("machine", {**machine(), "device": _device()}),
        ("packages", versions()),
        ("data", available()),
        ("models", weights()),
    ):
        print(title)
        width = max(map(len, lines))
        for name, value in lines.items():
            print(f"  {name.ljust(width)}  {value}")
    dataset, reason = auto_choice("auto")
    print(f"`pytest checks/ -m fold0` would use {dataset}: {reason}")
    return 0


def _device() -> str:
    try:
        import torch
    except ImportError as error:
        return f"torch cannot be imported: {error}"
    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name()})"
    return f"cpu ({torch.get_num_threads()} threads)"


def _report(options: argparse.Namespace) -> int:
    from harness.report import products

    for line in products.make_again(options.folder.resolve()):
        print(line)
    return 0


def _verify(options: argparse.Namespace) -> int:
    from harness.report.verify import verify

    found = verify(
        options.folder.resolve(),
        checks=options.checks,
        rerun=options.rerun,
        recompute=options.recompute,
    )
    for line in found.lines():
        print(line)
    return 0 if found.true else 1


def _verdicts(options: argparse.Namespace) -> int:
    from harness.evidence import Session
    from harness.report.pins import beside, load_pins, pinned, unlike
    from harness.report.verdicts import differences, load_documented, written

    session = Session.load(options.folder)
    if options.write is not None:
        options.write.write_text(written([session]), encoding="utf-8")
        print(f"{options.write}: what {options.folder} found; give it as --documented")
    if (pin := options.write or options.pin) is not None:
        text = pinned(load_pins(pin), [session], pin.name)
        beside(pin).write_text(text, encoding="utf-8")
        print(f"{beside(pin)}: its numbers, rows, bounds and controls")
        return 0
    paths = options.documented or [VERDICTS]
    for found in session.claims:
        if not found.control:
            print(found)
    changed = list(differences(session, load_documented(*paths)))
    for line in changed:
        print(f"DIFFERS {line}")
    moved = list(unlike(load_pins(*paths), session))
    for line in moved:
        print(f"MOVED {line}")
    info = session.session
    print(
        f"{info['model']} on {info['dataset']}, {info['size']}: {len(changed)} differences from "
        f"{', '.join(map(str, paths))}, {len(moved)} from the numbers beside"
    )
    return 1 if changed or moved else 0


def _calibrate(options: argparse.Namespace) -> int:
    from harness.report.calibrate import calibrate, render

    for line in render(calibrate(options.folder, trials=options.trials)):
        print(line)
    return 0


def _history(options: argparse.Namespace) -> int:
    from harness.report.history import history, render

    for line in render(history(options.folder)):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
