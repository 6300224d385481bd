"""Several processes on one embedding key and one run folder: a few rounds of `concurrency.py`.

The entry is computed once, all read the same values and nobody half an entry; no two processes are
in the run folder together; when the one that works is killed, the others go on within a second.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("concurrency.py")

ROUNDS = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from concurrency import Crowd

crowd = Crowd(Path(sys.argv[2]), 4)
for number, dies in enumerate(["", "before", "amid", ""]):
    # a loaded machine may not let anybody run for a second: the script measures, this asserts
    assert crowd.round(number, dies).faults(most_delay_s=3.0) == [], (number, dies)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="NOT RUN: needs processes that fork")
def test_a_crowd_computes_once_reads_the_same_and_survives_a_killed_owner(tmp_path: Path) -> None:
    # in a process of its own with one thread: forked ones wait for ever for the threads of others
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-c", ROUNDS, str(SCRIPT.parent), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, **one_thread},
    )
    assert done.returncode == 0, done.stderr
