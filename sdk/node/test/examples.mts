// The examples of the documentation, unchanged. examples.test.mjs runs each.
import { Sandbox } from "microsandbox";

// The page of the SDK: a typical flow.
export async function typicalFlow() {
  const sandbox = await Sandbox.create("api", { image: "python" });

  // 1. one-shot
  const out = await sandbox.exec("python3", ["-c", "print(1 + 1)"]);
  console.log(out.stdout()); // "2\n"

  // 2. stream
  const handle = await sandbox.execStream("tail", ["-f", "/var/log/app.log"]);
  for await (const event of handle) {
    if (event.kind === "stdout") process.stdout.write(event.data);
    if (event.kind === "exited") break;
  }

  await sandbox.stop();
}

export async function exec(sandbox: Sandbox) {
  const result = await sandbox.exec("python3", ["-c", "print(1 + 1)"]);
  console.log(result.stdout()); // "2\n"
  console.log(result.code);     // 0
}

export async function execWith(sandbox: Sandbox) {
  const out = await sandbox.execWith("python3", (e) =>
    e.args(["script.py"])
      .cwd("/app")
      .env("PYTHONPATH", "/app/lib")
      .timeout(30_000),
  );
  return out;
}

export async function shell(sandbox: Sandbox) {
  const out = await sandbox.shell("ls -la /app && echo done");
  console.log(out.stdout());
}

export async function attachShell(sandbox: Sandbox) {
  const code = await sandbox.attachShell();
  return code;
}

export async function execStream(sandbox: Sandbox) {
  const handle = await sandbox.execStream("tail", ["-f", "/var/log/app.log"]);
  for await (const event of handle) {
    if (event.kind === "stdout") process.stdout.write(event.data);
    if (event.kind === "exited") break;
  }
}

export async function execStreamWith(sandbox: Sandbox) {
  const handle = await sandbox.execStreamWith("python3", (e) =>
    e.args(["-u", "worker.py"]).env("LEVEL", "debug").stdinPipe(),
  );
  const stdin = await handle.takeStdin();
  await stdin?.write("task-1\n");
  return handle;
}

export async function shellStream(sandbox: Sandbox) {
  const handle = await sandbox.shellStream("for i in 1 2 3; do echo $i; sleep 1; done");
  for await (const event of handle) {
    if (event.kind === "stdout") process.stdout.write(event.data);
  }
}

export async function attach(sandbox: Sandbox) {
  const code = await sandbox.attach("python3");
  return code;
}

export async function attachWith(sandbox: Sandbox) {
  const code = await sandbox.attachWith("bash", (a) =>
    a.cwd("/app")
      .env("EDITOR", "vim")
      .detachKeys("ctrl-]"),
  );
  return code;
}

// The guide to commands.
export async function guideExec(sb: Sandbox) {
  const output = await sb.exec("python", ["-c", "print('hello')"]);
  console.log(output.stdout()); // "hello\n"
  console.log(output.success);  // true
  console.log(output.code);     // 0
}

export async function guideOptions(sb: Sandbox) {
  const output = await sb.execWith("python", (e) =>
      e.args(["compute.py"])
          .cwd("/app")
          .env("PYTHONPATH", "/app/lib")
          .timeout(30_000)
          .rlimit("nofile", 1024),
  );
  return output;
}

export async function guideShell(sb: Sandbox) {
  const output = await sb.shell("ls -la /app && echo done")
  return output;
}

export async function guideStream(sb: Sandbox) {
  const handle = await sb.execStream("tail", ["-f", "/var/log/app.log"]);

  for await (const event of handle) {
      switch (event.kind) {
          case "stdout": process.stdout.write(event.data); break;
          case "stderr": process.stderr.write(event.data); break;
          case "exited": console.log(`Exited: ${event.code}`); break;
      }
  }
}

export async function guideAttach(sb: Sandbox) {
  // Attach to the default shell
  const exitCode = await sb.attachShell();

  // Attach to a specific command with custom detach keys
  await sb.attachWith("bash", (a) =>
      a.env("DEBUG", "1").cwd("/app").detachKeys("ctrl-q"),
  );
  return exitCode;
}

export async function guideStdin(sb: Sandbox) {
  const handle = await sb.execStreamWith("python", (e) => e.stdinPipe().tty(true));
  const stdin = await handle.takeStdin();
  await stdin!.write("print('hello')\n");
  await stdin!.write("exit()\n");
  await stdin!.close();
  await handle.wait();
}

export async function guideId(sb: Sandbox) {
  const handle = await sb.execStream("python", ["server.py"])
  const sessionId = handle.id
  return { handle, sessionId };
}
