import * as abi from "./abi";
import { optional, text, type Text } from "./check";
import { native, type Cell, type NativeImage } from "./native";
import { checkedCallback, reporting, type ProgressOptions } from "./progress";
import { call, job, Waiter, type WaitOptions } from "./wait";

/** Description of an image in the store. */
export interface ImageInfo {
  /** `sha256:` and 64 digits. */
  readonly id: string;
  /** Its names in their shortest form. */
  readonly names: readonly string[];
  /** Its digests in registries. */
  readonly digests: readonly string[];
  /** Processor architecture, such as `"amd64"`. */
  readonly architecture: string;
  /** Number of layers. */
  readonly layers: number;
  /** Size of its files in bytes. */
  readonly size: number;
  /** Size of its layers as downloaded, in bytes. */
  readonly downloadSize: number;
  /** When it was added to the store. */
  readonly addedAt: Date;
  /** Its root filesystem, a directory that must not be modified. */
  readonly rootfs: string;
  /** Its variables, the defaults of its sandboxes. */
  readonly env: Readonly<Record<string, string>>;
  /** Its working directory. */
  readonly workdir: string | null;
  /** Its user; `null` is root. */
  readonly user: string | null;
  /** Its entry point. */
  readonly entrypoint: readonly string[];
  /** Its default command. */
  readonly cmd: readonly string[];
  /** The sandboxes that use it, running or not. */
  readonly usedBy: readonly string[];
}

function imageInfo({ added, env, ...rest }: NativeImage): ImageInfo {
  const pairs = env.map((pair) => {
    const at = pair.indexOf("=");
    return [pair.slice(0, at), pair.slice(at + 1)] as const;
  });
  return { ...rest, addedAt: new Date(added), env: Object.fromEntries(pairs) };
}

/** Awaits a pull or import, and closes its handle, which cancels it if it is still in progress. */
async function finished(cell: Cell, options: ProgressOptions & WaitOptions): Promise<ImageInfo> {
  const waiter = new Waiter(cell);
  const progress = () => native.imageProgress(cell);
  const look = reporting(progress, options.onProgress, () => native.imageWait(cell));
  try {
    return imageInfo(await waiter.until(look, options.signal));
  } finally {
    waiter.close();
  }
}

/**
 * The store of images, which all sandboxes and programs of this user share.
 *
 * A cancelled `pull` or `import` ends at once; what was downloaded is kept for the next pull.
 */
export class Image {
  private constructor() {}

  /**
   * Pull an image such as `"python:3.12"` from its registry, even if it is in the store already;
   * unchanged layers are not downloaded again. `platform` is one such as `"linux/arm64"` or
   * `"linux/arm/v7"`, instead of this host's.
   *
   * @throws {@link ImageNotFoundError}, {@link ImageUnauthorizedError},
   * {@link RegistryUnreachableError}
   */
  static async pull(
    name: string,
    options: { platform?: string | undefined } & ProgressOptions & WaitOptions = {},
  ): Promise<ImageInfo> {
    checkedCallback(options);
    options.signal?.throwIfAborted();
    const platform = optional("the platform", options.platform);
    return finished(call(() => native.imagePull({ name: text("the name", name), platform })), options);
  }

  /**
   * Import an image from an archive of a root filesystem, from the output of `docker save`, or from
   * an OCI image layout; archives may be compressed with gzip or zstd. `name` overrides the names
   * in the archive; `platform` is as for `pull`.
   *
   * @throws {@link InvalidConfigError} when `path` does not exist, {@link ImageInvalidError}
   */
  static async import(
    path: Text,
    options: { name?: string | undefined; platform?: string | undefined } & ProgressOptions &
      WaitOptions = {},
  ): Promise<ImageInfo> {
    checkedCallback(options);
    options.signal?.throwIfAborted();
    const spec = {
      path: text("the path", path),
      name: optional("the name", options.name),
      platform: optional("the platform", options.platform),
    };
    return finished(call(() => native.imageImport(spec)), options);
  }

  /** List all images in the store, newest first. */
  static async list(options: WaitOptions = {}): Promise<ImageInfo[]> {
    return (await job(native.imageList, null, {}, options.signal)).map(imageInfo);
  }

  /**
   * Remove a name of an image, and the image with its last name. Given an id, remove all names.
   * With `force` also those of an image that a sandbox uses; `prune` removes the image once that
   * sandbox is removed.
   *
   * @throws {@link ImageNotFoundError}, {@link ImageInUseError}
   */
  static async remove(name: string, options: { force?: boolean } & WaitOptions = {}): Promise<void> {
    const first = options.force ? abi.MSB_REMOVE_FORCE : 0;
    await job(native.imageRemove, null, { name: text("the name", name), first }, options.signal);
  }

  /**
   * Remove images without a name that no sandbox uses, and leftovers of downloads; with `all` also
   * images with a name. Waits for pulls and imports in progress.
   *
   * @returns Roughly how many bytes were freed.
   */
  static async prune(options: { all?: boolean } & WaitOptions = {}): Promise<number> {
    const first = options.all ? abi.MSB_PRUNE_ALL : 0;
    return job(native.imagePrune, null, { first }, options.signal);
  }
}
