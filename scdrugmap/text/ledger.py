"""What text models cost a run, written down where all of its processes see it."""

from __future__ import annotations

import json
import math
from pathlib import Path

from scdrugmap.errors import ResourceError
from scdrugmap.files import write_json

_SPENT = "spent_usd"
_POLL_S = 0.01


class Ledger:
    """USD that a run has spent; safe to share between threads and processes, and kept after them.

    What a request may cost at most is written down before it is sent, and corrected when it is
    answered. So a process that is killed in between leaves at most too much, never too little: the
    server may have counted what nobody was there to read.

    Parameters
    ----------
    path : Path
        File of the record; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        from filelock import FileLock

        self.path = path
        self._lock = FileLock(path.with_name(f"{path.name}.lock"), poll_interval=_POLL_S)

    @property
    def spent(self) -> float:
        """USD so far, those that are set aside among them.

        Raises
        ------
        ResourceError
            The file is damaged.
        """
        try:
            spent = float(json.loads(self.path.read_text("utf-8"))[_SPENT])
        except FileNotFoundError:
            return 0.0
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise ResourceError(
                f"{self.path} does not say what the run has spent: {err}",
                hint="write the sum into it, or begin the run anew with --overwrite",
            ) from err
        if not math.isfinite(spent):
            raise ResourceError(f"{self.path} says that the run has spent {spent} USD")
        return spent

    def add(self, usd: float, *, most: float | None = None) -> float | None:
        """Add to what was spent.

        Parameters
        ----------
        usd : float
            Negative: less was used than had been set aside.
        most : float, optional
            What the sum must not exceed.

        Returns
        -------
        float or None
            None: it is written down. Else what was spent before, and nothing was added, since the
            sum would exceed `most`.
        """
        with self._lock:
            spent = self.spent
            if most is not None and spent + usd > most:
                return spent
            write_json(self.path, {_SPENT: max(0.0, spent + usd)})
            return None
