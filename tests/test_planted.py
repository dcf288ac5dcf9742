"""A dozen defects that real projects make, planted one at a time: each turns something red by name.

All of them: make planted (docs/planted.md).
"""

import os
import re
import subprocess
import sys

from tests.planted.__main__ import FAST, ROOT
from tests.planted.defects import DEFECTS


def test_what_is_planted_is_caught_and_what_is_not_is_green(tmp_path):
    cache = {"HARNESS_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.planted", "--fast"],
        cwd=ROOT,
        env={**os.environ, **cache},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    caught = set(re.findall(r"^ok  (\S+)", done.stdout, re.MULTILINE))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert caught == {"nothing-0", *FAST}


def test_a_defect_says_what_is_wrong_and_what_finds_it():
    assert len(DEFECTS) >= 40
    for defect in DEFECTS.values():
        assert re.compile(defect.caught_by)
        assert len(defect.what) > 10
        assert defect.run[0].split("::")[0].startswith(("checks/", "tests/"))
        assert (ROOT / defect.run[0]).is_file()
    assert set(FAST) <= set(DEFECTS)
    assert len({defect.what for defect in DEFECTS.values()}) == len(DEFECTS)
