"""Ask a database of vulnerabilities about every pinned version; never call clean what was not asked.

    .venv-supply-chain/bin/python scripts/audit_dependencies.py

A service counts only if it knows the hole in an old version that certainly has one. Ends with 0 if
every version was looked up and none has a known hole, with 1 if one has, with 3 if NOT RUN. Writes
``tests/faults/results/audit.json``.
"""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "constraints.txt"
RECORD = ROOT / "tests" / "faults" / "results" / "audit.json"
SERVICES = ("pypi", "osv")
CANARY = "jinja2==2.10"
"""CVE-2019-10906, an escape from the sandbox, is mended in 2.10.1."""
NOT_RUN = 3
TIMEOUT_S = 15


def ask(service: str, requirements: Path) -> dict[str, Any] | str:
    """Return pip-audit's report on pinned requirements, or why there is none."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--no-deps"),
            *("--disable-pip", "--vulnerability-service", service, "--timeout", str(TIMEOUT_S)),
            *("--format", "json", "--progress-spinner", "off"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        lines = done.stderr.strip().splitlines()
        return lines[-1].partition(":")[0] if lines else f"pip-audit ended with {done.returncode}"
    return report


def vulnerable(report: Mapping[str, Any]) -> list[str]:
    """Return one line per version with a known hole."""
    return [
        f"{item['name']} {item['version']}: {', '.join(hole['id'] for hole in item['vulns'])}"
        for item in report["dependencies"]
        if item.get("vulns")
    ]


def skipped(report: Mapping[str, Any]) -> list[str]:
    """Return the distributions that the service was not able to look up."""
    return [item["name"] for item in report["dependencies"] if "skip_reason" in item]


def audit(
    requirements: Path, services: Sequence[str] = SERVICES
) -> tuple[int, str, dict[str, Any]]:
    """Return exit status, what to say, and counts for the record."""
    reasons = []
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder, "canary.txt")
        canary.write_text(f"{CANARY}\n", "utf-8")
        for service in services:
            known = ask(service, canary)
            if isinstance(known, str):
                reasons.append(f"{service}: {known}")
            elif not vulnerable(known):
                reasons.append(f"{service}: does not know the hole in {CANARY}")
            else:
                report = ask(service, requirements)
                if not isinstance(report, str):
                    return verdict(service, report)
                reasons.append(f"{service}: {report}")
    return NOT_RUN, "NOT RUN: no service could be asked", {"tried": 0, "notes": "; ".join(reasons)}


def verdict(service: str, report: Mapping[str, Any]) -> tuple[int, str, dict[str, Any]]:
    """Judge a report; a version that was not looked up is never clean."""
    bad, unknown, total = vulnerable(report), skipped(report), len(report["dependencies"])
    counts = {
        "tried": total - len(unknown),
        "vulnerable": len(bad),
        "notes": f"service {service}; not looked up: {', '.join(unknown) or 'none'}",
    }
    if bad:
        return 1, "\n".join(bad), counts
    if unknown or not total:
        return NOT_RUN, f"NOT RUN for {len(unknown)} of {total}: {', '.join(unknown)}", counts
    return 0, f"{total} versions, none with a known hole ({service})", counts


def main() -> None:
    """Audit the pinned versions."""
    begin = time.monotonic()
    status, said, counts = audit(PINS)
    tried, bad = counts["tried"], counts.get("vulnerable", 0)
    record = {
        "subject": "Known vulnerabilities of the pinned versions (pip-audit)",
        "tried": tried,
        "unit": "versions",
        "held": tried - bad,
        "outcomes": {"clean": tried - bad, "vulnerable": bad},
        "command": "make audit",
        "seconds": round(time.monotonic() - begin, 1),
        "machine": {"python": platform.python_version()},
        "notes": f"{datetime.date.today()}: {said.splitlines()[0]}; {counts['notes']}",
    }
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False)
    RECORD.write_text(f"{text}\n", "utf-8")
    print(f"audit: {said}\n{counts['notes']}", file=sys.stderr if status else sys.stdout)
    sys.exit(status)


if __name__ == "__main__":
    main()
