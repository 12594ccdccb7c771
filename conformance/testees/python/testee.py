"""Executes the requests of the conformance judge with the package, in asyncio.

Every request is a task of its own.
"""

from __future__ import annotations

import asyncio
from typing import Any

import microsandbox as m
import pipe

sandboxes: dict[int, m.Sandbox] = {}
handles: dict[int, m.ExecHandle] = {}
sinks: dict[int, m.ExecSink] = {}


async def in_sandbox(request: pipe.Request, sandbox: m.Sandbox) -> pipe.Done:
    action = request["do"]
    if action == "remove":
        await sandbox.kill()
        await m.Sandbox.remove(sandbox.name)
        return pipe.OK
    if action == "listed":
        return pipe.state_of(await sandbox.sessions(), request["session"])
    if action == "reattach":
        handle = await sandbox.reattach(request["session"], None)
    else:
        kind, program, options = request.command()
        if action == "run":
            return pipe.collected(await getattr(sandbox, kind)(program, **options))
        handle = await getattr(sandbox, kind + "_stream")(program, **options)
    handles[request["id"]] = handle
    return {"started": {"session": handle.id}}, []


async def give_up(request: pipe.Request, handle: m.ExecHandle) -> pipe.Done:
    ended = False
    for _ in range(request["times"]):
        task: Any = asyncio.ensure_future(getattr(handle, request["on"])())
        await asyncio.sleep(0)
        task.cancel()
        try:
            result = await task
        except asyncio.CancelledError:
            continue
        ended = True
        if request["on"] == "recv":
            request.report(result)
    return {"ended": ended}, []


async def on_exec(request: pipe.Request) -> pipe.Done:
    action, number = request["do"], request["exec"]
    handle = handles[number]
    if action == "recv":
        while not request.report(await handle.recv()):
            pass
    elif action == "wait":
        return {"exited": pipe.exited(await handle.wait())}, []
    elif action == "collect":
        return pipe.collected(await handle.collect())
    elif action == "give_up":
        return await give_up(request, handle)
    elif action == "take_stdin":
        sink = handle.take_stdin()
        if sink is not None:
            sinks[number] = sink
        return {"sink": sink is not None}, []
    elif action == "write":
        await sinks[number].write(request.part("data") or b"")
    elif action == "close_stdin":
        await sinks[number].close()
    elif action == "signal":
        await handle.signal(request["signal"])
    elif action == "kill":
        await handle.kill()
    elif action == "resize":
        await handle.resize(request["rows"], request["cols"])
    elif action == "close":
        await handle.close()
    elif action == "forget":
        if number in sinks:
            await sinks.pop(number).close()
        await handles.pop(number).close()
    else:
        raise ValueError(f"no such action: {action}")
    return pipe.OK


async def act(request: pipe.Request) -> pipe.Done:
    if request["do"] == "hello":
        return pipe.HELLO
    if request["do"] == "create":
        options: Any = request.sandbox()
        sandbox = await m.Sandbox.create(request.text("name") or "", options)
        sandboxes[request["id"]] = sandbox
        return pipe.OK
    if request["sandbox"]:
        return await in_sandbox(request, sandboxes[request["sandbox"]])
    return await on_exec(request)


async def answer(request: pipe.Request) -> None:
    try:
        done = await act(request)
    except Exception as error:
        done = pipe.failed(error)
    request.done(done)


async def main() -> None:
    tasks = set()
    while (request := await asyncio.to_thread(pipe.read)) is not None:
        task = asyncio.ensure_future(answer(request))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


asyncio.run(main())
