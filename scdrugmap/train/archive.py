"""Small zip files that are the same for the same content, and that may come from strangers."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Collection, Mapping

from scdrugmap.errors import DataError

_EARLIEST = (1980, 1, 1, 0, 0, 0)
_MOST_MEMBERS = 64


def write_archive(files: Mapping[str, bytes]) -> bytes:
    """Return a zip file: members sorted, no times, so that equal content gives equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(files):
            member = zipfile.ZipInfo(name, _EARLIEST)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            member.create_system = 3
            archive.writestr(member, files[name], compresslevel=6)
    return buffer.getvalue()


class Archive:
    """A zip file in memory, checked before anything is unpacked.

    Parameters
    ----------
    data : bytes
    where : str
        Its name, for messages.
    most_bytes : int
        Most bytes of all members together, as they declare them; none is read further.
    allowed : collection of str, optional
        The only names a member may have; None: any plain file name.

    Raises
    ------
    DataError
        It is no zip file, or a member is not allowed.
    """

    def __init__(
        self, data: bytes, where: str, *, most_bytes: int, allowed: Collection[str] | None = None
    ) -> None:
        self.where = where
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as err:
            raise self._damaged(err) from err
        members = self._zip.infolist()
        names = [member.filename for member in members]
        for name in names:
            if (name not in allowed) if allowed is not None else not _is_plain(name):
                raise DataError(
                    f"{where} holds a file {name[:80]!r} that does not belong there",
                    hint="do not use a file from a source you do not trust",
                )
        if len(set(names)) < len(names) or len(names) > _MOST_MEMBERS:
            raise DataError(f"{where} holds {len(names)} files, some twice or far too many")
        if any(member.flag_bits & 1 for member in members):
            raise DataError(f"{where} is encrypted")
        total = sum(member.file_size for member in members)
        if total > most_bytes:
            raise DataError(f"{where} unpacks to {total:,} bytes; at most {most_bytes:,} are read")
        self.names = frozenset(names)

    def read(self, name: str, *, most_bytes: int | None = None) -> bytes:
        """Return a member's content.

        Raises
        ------
        DataError
            It is missing, damaged, or declares more than `most_bytes`.
        """
        if name not in self.names:
            raise DataError(f"{self.where} is damaged: {name} is missing")
        size = self._zip.getinfo(name).file_size
        if most_bytes is not None and size > most_bytes:
            raise DataError(f"{self.where}: {name} has {size:,} bytes, more than {most_bytes:,}")
        try:
            return self._zip.read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as err:
            raise self._damaged(err) from err

    def _damaged(self, err: Exception) -> DataError:
        return DataError(
            f"{self.where} is damaged or no zip file: {' '.join(str(err).split())[:200]}",
            hint="copy it again; was the transfer complete?",
        )


def _is_plain(name: str) -> bool:
    return bool(name) and not set(name) & set("/\\:\0") and name not in (".", "..")
