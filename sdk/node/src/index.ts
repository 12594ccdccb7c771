/**
 * Run commands in isolated sandboxes.
 *
 * @packageDocumentation
 */
import { hostInfo, type HostInfo } from "./info";
import { native } from "./native";
import { job, type WaitOptions } from "./wait";

export type { CreateOptions, PullPolicy, SandboxOptions, Security } from "./create";
export * from "./errors";
export type { ExecEvent } from "./events";
export {
  FsReadStream,
  FsWriteSink,
  SandboxFsOps,
  type FsEntry,
  type FsEntryKind,
  type FsMetadata,
  type FsSetAttrs,
  type FsWriteOptions,
} from "./fs";
export { ExecControl, ExecHandle, type ReattachFrom } from "./handle";
export { Image, type ImageInfo } from "./image";
export type {
  Bounds,
  DriverInfo,
  EndReason,
  HostInfo,
  Isolation,
  SandboxInfo,
  SandboxStatus,
  SessionInfo,
  WallInfo,
} from "./info";
export { LogReader, type LogRecord, type LogsOptions } from "./logs";
export { MountBuilder, type VolumeMode, type Volumes } from "./mounts";
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
export { Sandbox, SandboxBuilder } from "./sandbox";
export { ExecSink } from "./sink";
export type { ExecPipes, ExecWebPipes } from "./streams";
export type { WaitOptions } from "./wait";

/** Version of the underlying library. */
export const version: string = native.version;

/** Probes which drivers and which walls of the jail this host supports. */
export async function doctor(options: WaitOptions = {}): Promise<HostInfo> {
  return hostInfo(await job(native.doctor, null, {}, options.signal));
}
