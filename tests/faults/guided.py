"""Fuzz our readers under guidance of their branches (atheris): nothing undeclared may come out.

    python tests/faults/guided.py TARGET... --seconds 150     # all targets without a name

Writes ``tests/faults/results/guided-TARGET.json``. An input that a reader does not survive is kept
beside the record as ``guided-TARGET.crash``, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
MOST_BYTES = 16_384  # of an input: larger ones only repeat
MOST_SECONDS_PER_INPUT = 10
MOST_MEGABYTES = 2_048

sys.path.insert(0, str(HERE))
from guided_targets import TARGETS, Target, shared_memory  # noqa: E402


def fuzz(name: str, seconds: int) -> int:
    """Fuzz one target in a process of its own, write its record, return the exit status."""
    from scdrugmap.files import write_json

    target = TARGETS[name]
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(dir=shared_memory()) as folder:
        corpus, words = Path(folder, "corpus"), Path(folder, "words")
        corpus.mkdir()
        counter, last = Path(folder, "taken"), Path(folder, "last")
        counter.write_bytes(bytes(8))
        seeds = target.seeds()
        for number, seed in enumerate(seeds):
            (corpus / f"seed{number}").write_bytes(seed)
        words.write_text("".join(f'"{_spelled(word)}"\n' for word in target.words))
        crash = RESULTS / f"guided-{name}.crash"
        crash.unlink(missing_ok=True)
        done = subprocess.run(
            [
                sys.executable,
                __file__,
                name,
                "--child",
                str(counter),
                f"-max_total_time={seconds}",
                f"-max_len={MOST_BYTES}",
                f"-timeout={MOST_SECONDS_PER_INPUT}",
                f"-report_slow_units={MOST_SECONDS_PER_INPUT}",
                f"-rss_limit_mb={MOST_MEGABYTES}",
                f"-dict={words}",
                f"-exact_artifact_path={crash}",
                "-print_final_stats=1",
                "-verbosity=1",
                str(corpus),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "TMPDIR": folder},
            check=False,
        )
        kept = len(list(corpus.iterdir())) - len(seeds)
        n_taken = int.from_bytes(counter.read_bytes(), "little")
        failed = done.returncode != 0
        if failed and not crash.exists() and last.exists():
            shutil.copyfile(last, crash)  # killed before libFuzzer was able to write it
    found = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    if failed or found is None:
        sys.stderr.write(f"{done.stderr[-6_000:]}\n{name}: exit status {done.returncode}\n")
    tried = int(found[1]) if found else n_taken + failed
    outcomes = {"taken": n_taken, "refused": tried - n_taken - failed, "undeclared": int(failed)}
    record = {
        "subject": f"Guided fuzz: {target.title}",
        "tried": tried,
        "unit": "inputs",
        "held": tried - failed,
        "outcomes": outcomes,
        "command": f"python tests/faults/guided.py {name} --seconds {seconds}",
        "seconds": round(time.monotonic() - begin, 1),
        "machine": {"cpu": _cpu(), "python": platform.python_version()},
        "notes": f"{kept:,} inputs opened new branches; only "
        f"{' and '.join(kind.__name__ for kind in target.declared)} may come out",
    }
    write_json(RESULTS / f"guided-{name}.json", record)
    print(f"{name}: {tried:,} inputs, {outcomes}, {record['seconds']} s")
    return int(failed or tried == 0)


def _spelled(word: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word.encode())


def _cpu() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "")


def run_child(target: Target, counter: Path, arguments: list[str]) -> None:
    """Hand this process over to libFuzzer, which ends it without any clean-up."""
    import atheris

    for name in list(sys.modules):
        if any(name == module or name.startswith(f"{module}.") for module in target.modules):
            del sys.modules[name]
    with atheris.instrument_imports(include=list(target.modules)):
        for module in target.modules:
            importlib.import_module(module)
    folder = tempfile.mkdtemp()
    reader = target.open(Path(folder))
    for seed in target.seeds():
        reader(seed)  # what is imported late is not held against the first input
    n_taken = np.memmap(counter, np.int64, "r+")
    last = counter.with_name("last")

    def one_input(data: bytes) -> None:
        last.write_bytes(data)
        n_taken[0] += target.read(reader, data)

    atheris.Setup([sys.argv[0], *arguments], one_input)
    atheris.Fuzz()


def main() -> None:
    """Fuzz what is named."""
    if "--child" in sys.argv:
        run_child(TARGETS[sys.argv[1]], Path(sys.argv[3]), sys.argv[4:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], default=[])
    parser.add_argument("--seconds", type=int, default=150, help="for each target")
    given = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    sys.exit(max(fuzz(name, given.seconds) for name in given.targets or TARGETS))


if __name__ == "__main__":
    main()
