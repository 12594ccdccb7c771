"""Values of files: attributes and entries of directories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from . import _abi
from ._values import StringEnum


class FsEntryKind(StringEnum):
    """The type of a file. Each member equals its string."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


KINDS = {
    _abi.MSB_FS_KIND_FILE: FsEntryKind.FILE,
    _abi.MSB_FS_KIND_DIRECTORY: FsEntryKind.DIRECTORY,
    _abi.MSB_FS_KIND_SYMLINK: FsEntryKind.SYMLINK,
}


@dataclass(frozen=True)
class FsMetadata:
    """The attributes of a file."""

    kind: FsEntryKind
    """Its type."""
    size: int
    """Its length in bytes; of a link, of its target."""
    mode: int
    """Its permissions with set-user-id, set-group-id and sticky bit."""
    uid: int
    """Its owner."""
    gid: int
    """Its group."""
    accessed_ns: int
    """Time of the last access, in nanoseconds since 1970."""
    modified_ns: int
    """Time of the last change of the content, likewise."""
    changed_ns: int
    """Time of the last change of the attributes, likewise."""
    created_ns: Optional[int]
    """Time of creation, likewise; None where the file system does not record it."""
    links: int
    """Number of hard links."""
    inode: int
    """Number of the file in its file system."""
    device: int
    """Number of the file system."""
    allocated: int
    """Bytes on the disk."""

    @property
    def readonly(self) -> bool:
        """Whether nobody may write to it."""
        return self.mode & 0o222 == 0

    @property
    def accessed(self) -> float:
        """Time of the last access, in seconds since 1970."""
        return self.accessed_ns / 1e9

    @property
    def modified(self) -> float:
        """Time of the last change of the content, in seconds since 1970."""
        return self.modified_ns / 1e9

    @property
    def created(self) -> Optional[float]:
        """Time of creation, in seconds since 1970, if it is recorded."""
        return None if self.created_ns is None else self.created_ns / 1e9


@dataclass(frozen=True)
class FsEntry:
    """An entry of a directory. A link is not followed."""

    path: str
    """Its path; bytes that are not UTF-8 are surrogates, as in `os.listdir`."""
    name: str
    """Its name in the directory."""
    metadata: FsMetadata
    """Its attributes."""

    @property
    def kind(self) -> FsEntryKind:
        """Its type."""
        return self.metadata.kind

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return self.metadata.size

    @property
    def mode(self) -> int:
        """Its permissions."""
        return self.metadata.mode

    @property
    def uid(self) -> int:
        """Its owner."""
        return self.metadata.uid

    @property
    def gid(self) -> int:
        """Its group."""
        return self.metadata.gid

    @property
    def accessed(self) -> float:
        """Time of the last access, in seconds since 1970."""
        return self.metadata.accessed

    @property
    def modified(self) -> float:
        """Time of the last change of the content, in seconds since 1970."""
        return self.metadata.modified
