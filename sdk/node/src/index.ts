/**
 * Run commands in isolated sandboxes.
 *
 * @packageDocumentation
 */
import { driverInfo, type DriverInfo } from "./info";
import { native } from "./native";
import { job, type WaitOptions } from "./wait";

export { SandboxBuilder, type CreateOptions, type PullPolicy, type SandboxOptions } from "./create";
export * from "./errors";
export type { ExecEvent } from "./events";
export { ExecControl, ExecHandle, type ReattachFrom } from "./handle";
export { Image, type ImageInfo } from "./image";
export type {
  DriverInfo,
  EndReason,
  Isolation,
  SandboxInfo,
  SandboxStatus,
  SessionInfo,
} from "./info";
export { LogReader, type LogRecord, type LogsOptions } from "./logs";
export {
  AttachOptionsBuilder,
  ExecOptionsBuilder,
  Stdin,
  type Rlimit,
  type RlimitResource,
  type StdinMode,
} from "./options";
export { ExecOutput, type ExitStatus, type ResourceUsage } from "./output";
export type { ImagePhase, Progress, ProgressOptions } from "./progress";
export { Sandbox } from "./sandbox";
export { ExecSink } from "./sink";
export type { ExecPipes, ExecWebPipes } from "./streams";
export type { WaitOptions } from "./wait";

/** Version of the library underneath. */
export const version: string = native.version;

/** Which drivers can be used on this host, in the order in which they are chosen. Tries each. */
export async function doctor(options: WaitOptions = {}): Promise<DriverInfo[]> {
  return (await job(native.doctor, null, {}, options.signal)).map(driverInfo);
}
