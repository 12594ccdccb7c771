"""Executes the requests of the conformance judge with the package's blocking twin.

Every request is a thread of its own.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import microsandbox as m
import pipe
from microsandbox import sync

sandboxes: dict[int, sync.Sandbox] = {}
handles: dict[int, sync.ExecHandle] = {}
sinks: dict[int, sync.ExecSink] = {}


def in_sandbox(request: pipe.Request, sandbox: sync.Sandbox) -> pipe.Done:
    action = request.action
    if action == "remove":
        sandbox.kill()
        sync.Sandbox.remove(sandbox.name)
        return pipe.OK
    if action == "listed":
        return pipe.state_of(sandbox.sessions(), request.text("session"))
    if action == "reattach":
        handle = sandbox.reattach(request.text("session"), None)
    else:
        kind, program, options = request.command()
        if action == "run":
            return pipe.collected(getattr(sandbox, kind)(program, **options))
        handle = getattr(sandbox, kind + "_stream")(program, **options)
    handles[request.id] = handle
    return ["started", handle.id]


def give_up(request: pipe.Request, handle: sync.ExecHandle) -> pipe.Done:
    ended = False
    for _ in range(request.number("times")):
        with contextlib.suppress(m.WaitTimeoutError):
            result = getattr(handle, request.text("on"))(timeout=0)
            ended = True
            if request.text("on") == "recv":
                request.report(result)
    return ["yes", ended]


def on_exec(request: pipe.Request) -> pipe.Done:
    action, number = request.action, request.number("exec")
    handle = handles[number]
    if action == "recv":
        while not request.report(handle.recv()):
            pass
    elif action == "wait":
        return pipe.exited("exited", handle.wait())
    elif action == "collect":
        return pipe.collected(handle.collect())
    elif action == "give_up":
        return give_up(request, handle)
    elif action == "take_stdin":
        sink = handle.take_stdin()
        if sink is not None:
            sinks[number] = sink
        return ["yes", sink is not None]
    elif action == "write":
        sinks[number].write(request.value("data"))
    elif action == "close_stdin":
        sinks[number].close()
    elif action == "signal":
        handle.signal(request.number("signal"))
    elif action == "kill":
        handle.kill()
    elif action == "resize":
        handle.resize(request.number("rows"), request.number("cols"))
    elif action == "close":
        handle.close()
    elif action == "forget":
        if number in sinks:
            sinks.pop(number).close()
        handles.pop(number).close()
    else:
        raise ValueError(f"no such action: {action}")
    return pipe.OK


def act(request: pipe.Request) -> pipe.Done:
    if request.action == "hello":
        return pipe.HELLO
    if request.action == "create":
        options: Any = request.sandbox()
        sandbox = sync.Sandbox.create(request.text("name"), options)
        sandboxes[request.id] = sandbox
        return pipe.OK
    if "sandbox" in request:
        return in_sandbox(request, sandboxes[request.number("sandbox")])
    return on_exec(request)


def answer(request: pipe.Request) -> None:
    try:
        done = act(request)
    except Exception as error:
        done = pipe.failed(error)
    request.reply(*done)


while (request := pipe.read()) is not None:
    threading.Thread(target=answer, args=(request,), daemon=True).start()
