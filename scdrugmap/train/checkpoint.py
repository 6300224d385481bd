"""The state of an unfinished training, in one file beside the predictor that it will become.

The file is replaced whole or not at all, so a killed training goes on from the last one written.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scdrugmap.errors import DataError, UsageError
from scdrugmap.files import atomic_path, remove
from scdrugmap.run.store import differences
from scdrugmap.train.processes import is_main_process

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".unfinished"
"""What is put after the name of the predictor."""

EVERY_S = 300.0
"""Seconds between two checkpoints, besides those of the evaluations."""


class Checkpoint:
    """Where the state of a training is kept.

    Parameters
    ----------
    path : Path
    resume : bool
        Go on from it, if it is there.
    overwrite : bool
        Begin anew, if it is there.
    every_s : float
        Seconds between two writes that are not forced.

    Raises
    ------
    UsageError
        It is there, and neither `resume` nor `overwrite` is given.
    """

    def __init__(
        self, path: Path, *, resume: bool = False, overwrite: bool = False, every_s: float = EVERY_S
    ) -> None:
        self.path, self.resume, self._every_s = Path(path), resume, every_s
        self.record: dict[str, Any] = {}
        self._written = time.monotonic()
        if self.path.exists() and not resume and not overwrite and is_main_process():
            raise UsageError(
                f"{self.path} is the state of a training that was not finished",
                hint="--resume goes on with it, --overwrite begins anew",
            )

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the tensors and the course that :meth:`keep` was given; None if there are none.

        Raises
        ------
        DataError
            The file is damaged.
        UsageError
            It is of another training; says in what.
        """
        from safetensors import SafetensorError, safe_open

        if not self.resume or not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            record, course = json.loads(metadata["record"]), json.loads(metadata["course"])
        except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as err:
            raise DataError(
                f"{self.path} is damaged: {err}", hint="begin anew with --overwrite"
            ) from err
        wanted = json.loads(json.dumps(self.record))
        found = differences(wanted, record)
        if found:
            name, (stored, given) = next(iter(found.items()))
            raise UsageError(
                f"{self.path} is of another training: {name} was {stored!r} and is {given!r}",
                hint="give the same inputs and options, or begin anew with --overwrite",
            )
        return tensors, course

    def keep(
        self,
        snapshot: Callable[[], tuple[Mapping[str, Tensor], Mapping[str, Any]]],
        *,
        force: bool = False,
    ) -> None:
        """Write the state if it is time to, or `force` is set; only the main process writes.

        Raises
        ------
        ResourceError
            Disk full and the like.
        """
        from safetensors.torch import save_file

        if not is_main_process() or not (
            force or time.monotonic() - self._written >= self._every_s
        ):
            return
        tensors, course = snapshot()
        metadata = {"record": json.dumps(self.record), "course": json.dumps(course)}
        n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        with atomic_path(self.path, n_bytes=n_bytes) as temporary:
            save_file({n: t.contiguous() for n, t in tensors.items()}, temporary, metadata=metadata)
        self._written = time.monotonic()

    def remove(self) -> None:
        """Forget the state: the predictor is written."""
        if is_main_process():
            remove(self.path)
