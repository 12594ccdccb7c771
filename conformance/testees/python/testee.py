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
    action = request.action
    if action == "remove":
        await sandbox.kill()
        await m.Sandbox.remove(sandbox.name)
        return pipe.OK
    if action == "listed":
        return pipe.state_of(await sandbox.sessions(), request.text("session"))
    if action == "reattach":
        handle = await sandbox.reattach(request.text("session"), None)
    else:
        kind, program, options = request.command()
        if action == "run":
            return pipe.collected(await getattr(sandbox, kind)(program, **options))
        handle = await getattr(sandbox, kind + "_stream")(program, **options)
    handles[request.id] = handle
    return ["started", handle.id]


async def give_up(request: pipe.Request, handle: m.ExecHandle) -> pipe.Done:
    ended = False
    for _ in range(request.number("times")):
        task: Any = asyncio.ensure_future(getattr(handle, request.text("on"))())
        await asyncio.sleep(0)
        task.cancel()
        try:
            result = await task
        except asyncio.CancelledError:
            continue
        ended = True
        if request.text("on") == "recv":
            request.report(result)
    return ["yes", ended]


async def on_exec(request: pipe.Request) -> pipe.Done:
    action, number = request.action, request.number("exec")
    handle = handles[number]
    if action == "recv":
        while not request.report(await handle.recv()):
            pass
    elif action == "wait":
        return pipe.exited("exited", await handle.wait())
    elif action == "collect":
        return pipe.collected(await handle.collect())
    elif action == "give_up":
        return await give_up(request, handle)
    elif action == "take_stdin":
        sink = handle.take_stdin()
        if sink is not None:
            sinks[number] = sink
        return ["yes", sink is not None]
    elif action == "write":
        await sinks[number].write(request.value("data"))
    elif action == "close_stdin":
        await sinks[number].close()
    elif action == "signal":
        await handle.signal(request.number("signal"))
    elif action == "kill":
        await handle.kill()
    elif action == "resize":
        await handle.resize(request.number("rows"), request.number("cols"))
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
    if request.action == "hello":
        return pipe.HELLO
    if request.action == "create":
        options: Any = request.sandbox()
        sandbox = await m.Sandbox.create(request.text("name"), options)
        sandboxes[request.id] = sandbox
        return pipe.OK
    if "sandbox" in request:
        return await in_sandbox(request, sandboxes[request.number("sandbox")])
    return await on_exec(request)


async def answer(request: pipe.Request) -> None:
    try:
        done = await act(request)
    except Exception as error:
        done = pipe.failed(error)
    request.reply(*done)


async def main() -> None:
    tasks = set()
    while (request := await asyncio.to_thread(pipe.read)) is not None:
        task = asyncio.ensure_future(answer(request))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


asyncio.run(main())
