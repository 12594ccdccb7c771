import * as abi from "./abi";
import type { NativeMount } from "./abi";
import { optional, text, whole } from "./check";
import { InvalidArgumentError } from "./errors";

/** Whether a new sandbox requires a volume, creates it, or creates it if it does not exist. */
export type VolumeMode = "existing" | "create" | "ensure-exists";

const MODES = new Map<VolumeMode, number>([
  ["existing", 0],
  ["create", abi.MSB_MOUNT_CREATE],
  ["ensure-exists", abi.MSB_MOUNT_ENSURE_EXISTS],
]);

/**
 * A mount of a new sandbox, in `Sandbox.builder(name).volume("/data", m => m.bind("./data"))`. Every
 * setter mutates the builder and returns it.
 *
 * What belongs to the caller belongs to root inside, unless {@link MountBuilder.owner} is called.
 * Set-user-ID bits and device files never work in a mount.
 */
export class MountBuilder {
  #kind = 0;
  #flags = 0;
  #mode = 0;
  #source: string | undefined;
  #size = 0;
  #owner: readonly [number, number] | undefined;

  /** @param guest - The absolute path in the sandbox. */
  constructor(private readonly guest: string) {}

  #of(kind: number, source?: string): this {
    this.#kind = kind;
    this.#source = source;
    return this;
  }

  /** Mount a directory or a file of the host. */
  bind(host: string): this {
    return this.#of(abi.MSB_MOUNT_BIND, host);
  }
  /** Mount an existing volume. */
  named(name: string): this {
    return this.namedWith(name);
  }
  /** Mount a volume, which is created if `mode` says so. */
  namedWith(name: string, mode: VolumeMode = "existing"): this {
    const found = MODES.get(mode);
    if (found === undefined) {
      throw new InvalidArgumentError(`unknown mode of a volume ${JSON.stringify(mode)}`);
    }
    this.#mode = found;
    return this.#of(abi.MSB_MOUNT_VOLUME, name);
  }
  /** Mount an empty filesystem in memory; of half of the sandbox's memory unless it has a size. */
  tmpfs(): this {
    return this.#of(abi.MSB_MOUNT_TMPFS);
  }
  /** Mount the filesystem in a file; without one, an empty one of the sandbox's own. */
  disk(host?: string): this {
    return this.#of(abi.MSB_MOUNT_DISK, host);
  }
  /** Set the size of a tmpfs or of a disk of the sandbox's own, in MiB. */
  size(mib: number): this {
    this.#size = whole("the size of a mount (in MiB)", mib, 1, 16 * 1024 * 1024) * 2 ** 20;
    return this;
  }
  /** Make it read-only. */
  readonly(): this {
    this.#flags |= abi.MSB_MOUNT_READONLY;
    return this;
  }
  /** Forbid to run its programs. */
  noexec(): this {
    this.#flags |= abi.MSB_MOUNT_NOEXEC;
    return this;
  }
  /** Ignore set-user-ID bits. Every mount does, so this changes nothing. */
  nosuid(): this {
    return this;
  }
  /** Ignore device files. Every mount does, so this changes nothing. */
  nodev(): this {
    return this;
  }
  /** Give what belongs to the caller to this user and group of the sandbox instead of root. */
  owner(uid: number, gid: number): this {
    const id = (what: string, value: number) => whole(what, value, 0, 2 ** 32 - 2);
    this.#owner = [id("the uid", uid), id("the gid", gid)];
    return this;
  }

  /** @internal */
  build(): NativeMount {
    const [uid, gid] = this.#owner ?? [0, 0];
    return {
      kind: this.#kind,
      flags: this.#flags | this.#mode | (this.#owner ? abi.MSB_MOUNT_OWNER : 0),
      target: text("the path of a mount", this.guest),
      source: optional("the source of a mount", this.#source),
      size: this.#size,
      uid,
      gid,
    };
  }
}

/** Mounts by their absolute paths in the sandbox. */
export type Volumes = Record<string, (mount: MountBuilder) => MountBuilder>;

/** @internal */
export function mountsOf(volumes: Volumes = {}): NativeMount[] {
  return Object.entries(volumes).map(([guest, configure]) => {
    if (typeof configure !== "function") {
      throw new InvalidArgumentError(`the volume at ${guest} is no function of a MountBuilder`);
    }
    const builder = configure(new MountBuilder(guest));
    if (!(builder instanceof MountBuilder)) {
      throw new InvalidArgumentError(`the function of the volume at ${guest} returns no builder`);
    }
    return builder.build();
  });
}
