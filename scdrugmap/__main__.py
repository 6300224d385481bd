"""``python -m scdrugmap``."""

from __future__ import annotations

from scdrugmap.cli import main

main()
