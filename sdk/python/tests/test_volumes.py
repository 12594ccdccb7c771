"""Mounts and volumes (L1 to L3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import microsandbox as m
from conftest import IMAGE
from microsandbox import Volume
from microsandbox import sync as blocking


def test_l1_bound_directory_is_shared(run: Any, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("host\n")

    async def main() -> None:
        volumes = {"/data": Volume.bind(tmp_path), "/ro": Volume.bind(tmp_path, readonly=True)}
        async with await m.Sandbox.create(
            "py-mounts", image=IMAGE, volumes={**volumes, "/t": Volume.tmpfs(size_mib=8)}
        ) as sb:
            out = await sb.shell("cat /data/f; echo guest > /data/g; touch /ro/h /t/f")
            assert out.stdout_text == "host\n" and "Read-only" in out.stderr_text
        assert (tmp_path / "g").read_text() == "guest\n"

    run(main)


def test_l1_bad_mounts_are_refused(tmp_path: Path) -> None:
    def create(volumes: Any) -> None:
        blocking.Sandbox.create("py-bad-mount", image=IMAGE, volumes=volumes)

    with pytest.raises(m.InvalidConfigError, match=r"cannot mount data: .* relative"):
        create({"data": Volume.bind(tmp_path)})
    with pytest.raises(m.InvalidConfigError, match=r"cannot mount /data: .*nowhere"):
        create({"/data": Volume.bind(tmp_path / "nowhere")})
    with pytest.raises(TypeError, match=r"must be of Volume\.bind"):
        create({"/data": str(tmp_path)})
    with pytest.raises(TypeError, match="readonly must be True or False"):
        Volume.bind(tmp_path, readonly="no")  # type: ignore[arg-type]
    with pytest.raises(m.InvalidArgumentError, match="mode is 'new'"):
        Volume.named("v", mode="new")


def test_l2_volume_is_created_used_listed_and_removed(run: Any) -> None:
    async def main() -> None:
        made = await Volume.create("py-volume", quota_mib=64, labels={"team": "a"})
        assert (made.kind, made.quota_mib, dict(made.labels)) == ("directory", 64, {"team": "a"})
        with pytest.raises(m.VolumeAlreadyExistsError):
            await Volume.create("py-volume")
        sb = await m.Sandbox.create(
            "py-volume-box", image=IMAGE, volumes={"/v": Volume.named("py-volume")}
        )
        await sb.shell("echo kept > /v/f")
        with pytest.raises(m.VolumeInUseError, match="py-volume-box"):
            await Volume.remove("py-volume")
        await sb.kill()
        await m.Sandbox.remove("py-volume-box")
        assert [info.name for info in await Volume.list()] == ["py-volume"]
        assert Path((await Volume.get("py-volume")).path, "f").read_text() == "kept\n"
        await Volume.remove("py-volume")
        with pytest.raises(m.VolumeNotFoundError):
            await Volume.get("py-volume")

    run(main)
