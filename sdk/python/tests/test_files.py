"""Files in a sandbox: operations, errors, and streams."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

import microsandbox as m
from microsandbox import FsEntryKind, Sandbox
from microsandbox import sync as blocking


def test_k1_files_are_written_read_listed_and_removed(run: Any, sandbox: Sandbox) -> None:
    names = ["a", "line\nbreak", "ü", os.fsdecode(b"\xff\xfe")]

    async def main() -> None:
        fs = sandbox.fs
        await fs.mkdir("/tmp/py-k1/deep")
        for name in names:
            await fs.write(f"/tmp/py-k1/deep/{name}", name.encode("utf-8", "surrogateescape"))
        entries = await fs.list("/tmp/py-k1/deep")
        assert [entry.name for entry in entries] == sorted(names, key=os.fsencode)
        for entry in entries:
            assert entry.kind == "file"
            assert entry.path == f"/tmp/py-k1/deep/{entry.name}"
            assert os.fsdecode(await fs.read(entry.path)) == entry.name
        assert await fs.read_text(b"/tmp/py-k1/deep/\xc3\xbc") == "ü"
        with pytest.raises(m.FilesystemError) as error:
            await fs.remove_dir("/tmp/py-k1", recursive=False)
        assert error.value.errno == errno.ENOTEMPTY
        await fs.remove_dir("/tmp/py-k1")
        assert not await fs.exists("/tmp/py-k1")

    run(main)


def test_k1_attributes_links_copies_and_renames(run: Any, sandbox: Sandbox) -> None:
    async def main() -> None:
        fs = sandbox.fs
        await fs.write("/tmp/py-a", "text", mode=0o640)
        await fs.set_stat("/tmp/py-a", uid=5, gid=6, modified=-1.5, accessed=2)
        await fs.symlink("py-a", "/tmp/py-link")
        stat = await fs.stat("/tmp/py-link")
        assert (stat.kind, stat.size, stat.mode) == (FsEntryKind.FILE, 4, 0o640)
        assert (stat.uid, stat.gid, stat.modified, stat.accessed) == (5, 6, -1.5, 2.0)
        assert (await fs.stat("/tmp/py-link", follow_symlink=False)).kind == "symlink"
        assert await fs.read_link("/tmp/py-link") == "py-a"
        assert await fs.real_path("/tmp/./py-link") == "/tmp/py-a"
        await fs.copy("/tmp/py-a", "/tmp/py-b")
        with pytest.raises(m.FilesystemError) as error:
            await fs.rename("/tmp/py-b", "/tmp/py-a", replace=False)
        assert error.value.errno == errno.EEXIST
        await fs.rename("/tmp/py-b", "/tmp/py-c")
        await fs.set_stat("/tmp/py-c", size=2)
        await fs.write("/tmp/py-c", "!", append=True)
        assert await fs.read("/tmp/py-c") == b"te!"
        with pytest.raises(m.FilesystemError):
            await fs.write("/tmp/py-c", "new", create_new=True)
        for name in ("a", "c", "link"):
            await fs.remove(f"/tmp/py-{name}")

    run(main)


def test_k1_errors_are_those_of_python(run: Any, sandbox: Sandbox) -> None:
    async def main() -> None:
        fs = sandbox.fs
        for work in (fs.read, fs.read_stream, fs.stat, fs.list, fs.remove, fs.read_link):
            with pytest.raises(FileNotFoundError) as missing:
                await work("/tmp/py-none")
            error = missing.value
            assert isinstance(error, m.PathNotFoundError)
            assert (error.errno, error.filename, error.path) == (2, "/tmp/py-none", "/tmp/py-none")
            assert (error.code, error.origin) == ("path_not_found", "agent")
        await fs.write("/tmp/py-secret/file", "", parents=True)
        await fs.set_stat("/tmp/py-secret", mode=0o700)
        with pytest.raises(PermissionError) as denied:
            await fs.as_user("1000").read("/tmp/py-secret/file")
        assert isinstance(denied.value, m.PermissionDeniedError)
        await fs.remove_dir("/tmp/py-secret")
        for path in ("relative", "", "/a\0b"):
            with pytest.raises(m.InvalidArgumentError):
                await fs.read(path)
        with pytest.raises(m.InvalidArgumentError):
            await fs.write("/tmp/py-mode", "", mode=0o10000)
        with pytest.raises(TypeError):
            await fs.write("/tmp/py-type", 5)  # type: ignore[arg-type]

    run(main)


def test_k4_files_are_copied_between_host_and_sandbox(
    run: Any, sandbox: Sandbox, tmp_path: Path
) -> None:
    async def main() -> None:
        fs = sandbox.fs
        (tmp_path / "from").write_text("text")
        await fs.copy_from_host(tmp_path / "from", "/tmp/py-copied")
        await fs.copy_to_host("/tmp/py-copied", tmp_path / "to")
        assert (tmp_path / "to").read_text() == "text"
        await fs.remove("/tmp/py-copied")
        with pytest.raises(FileNotFoundError):
            await fs.copy_from_host(tmp_path / "none", "/tmp/none")

    run(main)


def test_k3_streams_carry_large_files(run: Any, sandbox: Sandbox) -> None:
    content = os.urandom(1 << 20) * 3

    async def main() -> None:
        fs = sandbox.fs
        async with await fs.write_stream("/tmp/py-large") as sink:
            for at in range(0, len(content), 100_000):
                await sink.write(content[at : at + 100_000])
        async with await fs.read_stream("/tmp/py-large") as stream:
            first = await stream.recv()
            assert first
            rest = b"".join([piece async for piece in stream])
            assert first + rest == content
            assert await stream.recv() is None
        part = await fs.read_stream("/tmp/py-large", offset=10, length=20)
        assert await part.collect() == content[10:30]
        await fs.remove("/tmp/py-large")

    run(main)


def test_k2_cancelled_write_leaves_the_old_content(run: Any, sandbox: Sandbox) -> None:
    async def main() -> None:
        fs = sandbox.fs
        await fs.write("/tmp/py-old", "old")
        with pytest.raises(KeyError):
            async with await fs.write_stream("/tmp/py-old") as sink:
                await sink.write("new")
                raise KeyError
        assert await fs.read("/tmp/py-old") == b"old"
        sink = await fs.write_stream("/tmp/py-old")
        await sink.write("new")
        await sink.abort()
        with pytest.raises(m.ClosedError):
            await sink.write("more")
        assert await fs.read("/tmp/py-old") == b"old"
        await fs.remove("/tmp/py-old")

    run(main)


def test_k3_cancelled_call_leaves_the_old_content(sandbox: Sandbox) -> None:
    async def main() -> None:
        fs = sandbox.fs
        await fs.write("/tmp/py-cancelled", "old")
        # More than fits on the way, so it waits when it is cancelled.
        task = asyncio.create_task(fs.write("/tmp/py-cancelled", bytes(64 << 20)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await fs.read("/tmp/py-cancelled") == b"old"
        await fs.remove("/tmp/py-cancelled")

    asyncio.run(main())


def test_k1_synchronous_twin_has_the_same_operations(box: blocking.Sandbox) -> None:
    fs = box.fs
    fs.write("/tmp/twin", "text")
    assert fs.read("/tmp/twin", timeout=60) == b"text"
    assert fs.read_text("/tmp/twin") == "text"
    assert fs.stat("/tmp/twin").size == 4
    with fs.write_stream("/tmp/twin") as sink:
        sink.write("more ")
        sink.write(b"text")
    assert b"".join(fs.read_stream("/tmp/twin")) == b"more text"
    fs.remove("/tmp/twin")
    with pytest.raises(FileNotFoundError):
        fs.read("/tmp/twin")
