"""What this machine cannot run is left out aloud: the closing lines name it."""

from __future__ import annotations

from typing import NoReturn

import pytest

LEFT_OUT: list[str] = []


def not_run(what: str, why: str) -> NoReturn:
    """Leave a test out, and have the closing lines say so."""
    LEFT_OUT.append(f"NOT RUN: {what}: {why}")
    pytest.skip(LEFT_OUT[-1])
