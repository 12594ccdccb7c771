"""The conformance cases, asynchronous and synchronous."""

from __future__ import annotations

import asyncio

import pytest

import conformance
from conftest import IMAGE


@pytest.mark.parametrize("is_sync", [False, True], ids=["async", "sync"])
def test_all_cases_hold(is_sync: bool) -> None:
    async def main() -> list[str]:
        chosen, skipped = conformance.choose()
        results = await conformance.Suite(IMAGE, is_sync).run(chosen)
        failed = [f"{case['name']}: {'; '.join(why)}" for case, why in results if why]
        print(f"{len(results) - len(failed)} of {len(results) + sum(skipped.values())} cases")
        print(dict(skipped))
        return failed

    assert asyncio.run(main()) == []


def test_the_runner_notices_what_is_wrong() -> None:
    async def main() -> list[str]:
        wrong = conformance.load_wrong(conformance.REPOSITORY / "conformance" / "wrong-cases.json")
        results = await conformance.Suite(IMAGE, is_sync=False).run(wrong)
        return [case["name"] for case, problems in results if not problems]

    assert asyncio.run(main()) == []
