"""Images: import, use, removal, and a registry that never replies."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

import microsandbox as m
from conftest import IMAGE, REPOSITORY, SCALE
from microsandbox import Image, Sandbox, _abi, _errors
from microsandbox import sync as blocking
from test_streaming import descriptors, eventually, threads


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a folder with rootfs.tar and made.tar; empty the store afterwards."""
    folder = tmp_path_factory.mktemp("archives")
    subprocess.run([REPOSITORY / "conformance" / "make-image", IMAGE, folder], check=True)
    yield folder
    blocking.Image.prune(all=True)
    assert blocking.Image.list() == []


@pytest.fixture
def made(archives: Path) -> Iterator[m.ImageInfo]:
    """Import made.tar for one test."""
    yield blocking.Image.import_(archives / "made.tar")
    if any("made:1" in image.names for image in blocking.Image.list()):
        blocking.Image.remove("made:1")


class Silent:
    """A registry that accepts connections and never replies."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.accepted: list[socket.socket] = []
        self.contacted = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()
        self.name = f"localhost:{self._socket.getsockname()[1]}/nothing"

    def _run(self) -> None:
        while True:
            try:
                self.accepted.append(self._socket.accept()[0])
            except OSError:
                return  # the socket was closed
            self.contacted.set()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for one in self.accepted:
            one.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    registry = Silent()
    yield registry
    registry.close()


def test_import_list_and_remove_image(run: Any, archives: Path) -> None:
    async def main() -> None:
        seen: list[m.Progress] = []
        path = archives / "made.tar"
        image = await Image.import_(path, on_progress=seen.append)
        assert image.names == ["made:1"] and image.id.startswith("sha256:")
        assert (image.layers, image.workdir, image.user) == (1, "/work", "app")
        assert (image.entrypoint, image.cmd) == (["echo", "entry"], ["point"])
        assert (image.env["COLOR"], image.env["PATH"]) == ("green", "/usr/bin:/bin")
        assert image.size > 0 and Path(image.rootfs, "bin/busybox").exists()
        assert image.used_by == [] and abs(image.added_at - time.time()) < 300 * SCALE
        assert seen and all(isinstance(update, m.Progress) for update in seen)
        assert image in await Image.list()
        again = await Image.import_(str(path), "other:2")
        assert again.id == image.id and sorted(again.names) == ["made:1", "other:2"]
        await Image.remove("other:2")
        await Image.remove(image.id)
        assert image.id not in [other.id for other in await Image.list()]
        with pytest.raises(m.ImageNotFoundError):
            await Image.remove("made:1")

    run(main)


def test_sandbox_uses_the_defaults_of_its_image(run: Any, made: m.ImageInfo) -> None:
    async def main() -> None:
        options: m.SandboxOptions = {"image": "made:1", "pull_policy": "never"}
        async with await Sandbox.create("py-image", options, env={"SHAPE": "flat"}) as sb:
            output = await sb.shell("echo $COLOR $SHAPE $PWD $(id -un)")
            assert output.stdout_text == "green flat /work app\n"
            info = await sb.info()
            assert (info.image, info.command) == ("made:1", ["echo", "entry", "point"])
            assert [image.used_by for image in await Image.list()] == [["py-image"]]
            with pytest.raises(m.ImageInUseError):
                await Image.remove("made:1")
            await Image.prune(all=True)
            assert [image.names for image in await Image.list()] == [["made:1"]]
        async with await Sandbox.create(
            "py-image", image=made.id[7:19], pull_policy=m.PullPolicy.NEVER, user="root"
        ) as sb:
            assert (await sb.exec("id", ["-un"])).stdout_text == "root\n"
        entrypoints: list[tuple[Any, list[str]]] = [
            ("cat", ["cat"]),
            (["cat", "-n"], ["cat", "-n"]),
            ("", []),
            ([], []),
        ]
        for entrypoint, command in entrypoints:
            async with await Sandbox.create("py-image", options, entrypoint=entrypoint) as sb:
                assert (await sb.info()).command == command

    run(main)


def test_create_from_archive_reports_progress(run: Any, archives: Path) -> None:
    me = threading.get_ident()

    async def main() -> None:
        seen: list[m.Progress] = []

        def callback(update: m.Progress) -> None:
            assert threading.get_ident() == me
            seen.append(update)

        path = archives / "rootfs.tar"
        async with await Sandbox.create("py-archive", image=path, on_progress=callback) as sb:
            assert (await sb.exec("echo", ["here"])).stdout_text == "here\n"
            assert (await sb.info()).command == []
        # A fast import may report only its last step, which is never lost.
        assert (seen[-1].phase, str(seen[-1].phase)) == (m.ImagePhase.STARTING, "starting")
        seen.clear()
        async with await Sandbox.create("py-archive", image=IMAGE, on_progress=callback) as sb:
            assert (await sb.info()).command == []
        assert seen == []
        await Image.prune(all=True)

    run(main)


def test_sync_images(made: m.ImageInfo) -> None:
    seen: list[m.Progress] = []
    with blocking.Sandbox.create(
        "py-sync-image", image="made:1", pull_policy="never", on_progress=seen.append
    ) as sb:
        assert sb.exec("pwd").stdout_text == "/work\n"
        assert [image.used_by for image in blocking.Image.list()] == [["py-sync-image"]]
    assert [update.phase for update in seen][-1:] == ["starting"]
    with pytest.raises(m.ImageNotFoundError):
        blocking.Image.remove("no-such-image")


class CallbackError(m.MicrosandboxError):
    """An exception of the package's own kind, raised by a callback."""


def test_callback_exception_cancels_and_leaves_nothing(run: Any, archives: Path) -> None:
    def callback(_: m.Progress) -> None:
        raise CallbackError("enough")

    async def imported() -> None:
        await Image.prune(all=True)  # an image in the store is not imported again, without progress
        with pytest.raises(CallbackError):
            await Image.import_(archives / "made.tar", on_progress=callback)

    async def created() -> None:
        with pytest.raises(CallbackError):
            await Sandbox.create("py-odd", image="made:1", on_progress=callback)
        # Removed by now, unless the cleanup outlasted the call's bounded wait.
        eventually(lambda: "py-odd" not in [info.name for info in blocking.Sandbox.list()])

    async def main() -> None:
        await imported()
        before = descriptors()
        await imported()
        await Image.import_(archives / "made.tar")
        for _ in range(3):
            await created()
        eventually(lambda: descriptors() <= before + 2)
        await Image.prune(all=True)

    run(main)


def test_missing_and_invalid_images_are_errors(run: Any, tmp_path: Path, archives: Path) -> None:
    async def main() -> None:
        with pytest.raises(m.InvalidConfigError, match="platform"):
            await Image.pull("x", platform="vax")
        with pytest.raises(m.ImageInvalidError, match="linux/vax"):
            await Image.import_(archives / "made.tar", "vax:1", platform="linux/vax")
        with pytest.raises(m.ImageInvalidError, match="linux/vax"):
            await Sandbox.create("py-none", image=archives / "made.tar", platform="linux/vax")
        with pytest.raises(m.ImageNotFoundError) as caught:
            await Sandbox.create("py-none", image="no-such-image:9", pull_policy="never")
        assert caught.value.code == "image_not_found" and isinstance(caught.value, LookupError)
        policy: Any = "sometimes"
        with pytest.raises(m.InvalidArgumentError, match="sometimes"):
            await Sandbox.create("py-none", image="x", pull_policy=policy)
        with pytest.raises(m.InvalidConfigError):
            await Image.import_(tmp_path / "nothing.tar")
        (tmp_path / "broken.tar").write_bytes(b"no archive " * 1000)
        with pytest.raises(m.ImageInvalidError):
            await Image.import_(tmp_path / "broken.tar", "broken:1")
        with pytest.raises(m.InvalidConfigError):
            await Image.pull("UPPER case")
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        with pytest.raises(m.RegistryUnreachableError):
            await Image.pull(f"localhost:{port}/x")

        async def coroutine(_: m.Progress) -> None: ...

        callback: Any = coroutine
        with pytest.raises(TypeError):
            await Image.pull("x", on_progress=callback)

    run(main)


def test_cancelled_pull_leaves_nothing(run: Any, silent: Silent) -> None:
    if run.__name__ == "run_trio":
        pytest.skip("cancels with asyncio's API; trio's path is shared with all other calls")

    async def pulled() -> None:
        task = asyncio.ensure_future(Image.pull(silent.name, on_progress=seen.append))
        while not silent.contacted.is_set():
            await asyncio.sleep(0.01)
        silent.contacted.clear()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 30 * SCALE)

    async def main() -> None:
        await pulled()  # allocates what the library keeps
        before = descriptors() - len(silent.accepted), threads()
        for _ in range(5):
            await pulled()
        eventually(lambda: descriptors() - len(silent.accepted) <= before[0])
        eventually(lambda: threads() <= before[1])

    seen: list[m.Progress] = []
    run(main)
    assert {update.phase for update in seen} <= {"resolving"}


def test_cancelled_create_cancels_the_pull(run: Any, silent: Silent) -> None:
    if run.__name__ == "run_trio":
        pytest.skip("cancels with asyncio's API; trio's path is shared with all other calls")

    async def main() -> None:
        task = asyncio.ensure_future(Sandbox.create("py-abandoned", image=silent.name))
        while not silent.contacted.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # Prune waits for in-progress pulls, so a pull that is not cancelled would block it.
        await asyncio.wait_for(Image.prune(), 15 * SCALE)
        with pytest.raises(m.SandboxNotFoundError):
            await Sandbox.get("py-abandoned")

    run(main)


def test_ctrl_c_cancels_a_pull(silent: Silent) -> None:
    def interrupt() -> None:
        silent.contacted.wait()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        blocking.Image.pull(silent.name)


def test_every_image_status_has_an_exception() -> None:
    names = {
        _abi.MSB_E_NO_IMAGE: "image_not_found",
        _abi.MSB_E_IMAGE_DENIED: "image_unauthorized",
        _abi.MSB_E_REGISTRY: "registry_unreachable",
        _abi.MSB_E_BAD_IMAGE: "image_invalid",
        _abi.MSB_E_IMAGE_IN_USE: "image_in_use",
        _abi.MSB_E_IMAGE_FAILED: "image_failed",
        _abi.MSB_E_NO_SPACE: "no_space",
        _abi.MSB_E_NO_COMMAND: "no_command",
    }
    for status, code in names.items():
        error = _errors.error_of(status, "text", 0, _abi.MSB_ORIGIN_HOST)
        assert type(error) is not m.MicrosandboxError and error.code == code
        assert str(pickle.loads(pickle.dumps(error))) == "text"
    full = _errors.error_of(_abi.MSB_E_NO_SPACE, "text", 0, 0)
    assert isinstance(full, OSError) and full.errno == 28
