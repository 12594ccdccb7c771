import * as abi from "./abi";
import { optional, text, type Text } from "./check";
import { native, type Cell, type NativeImage } from "./native";
import { checkedCallback, telling, type ProgressOptions } from "./progress";
import { call, job, Waiter, type WaitOptions } from "./wait";

/** What is known about an image in the store. */
export interface ImageInfo {
  /** `sha256:` and 64 digits. */
  readonly id: string;
  /** Its names, as short as they can be written. */
  readonly names: readonly string[];
  /** The digests by which registries know it. */
  readonly digests: readonly string[];
  /** The processor's architecture that it is for, as in `"amd64"`. */
  readonly architecture: string;
  /** How many layers it has. */
  readonly layers: number;
  /** How many bytes its files have. */
  readonly size: number;
  /** How many bytes its layers have as they came. */
  readonly downloadSize: number;
  /** When it came into the store. */
  readonly addedAt: Date;
  /** Its root filesystem, a directory that must not be written. */
  readonly rootfs: string;
  /** Its variables, which sandboxes of it have unless they are given others. */
  readonly env: Readonly<Record<string, string>>;
  /** Its working directory. */
  readonly workdir: string | null;
  /** Its user; `null` is root. */
  readonly user: string | null;
  /** What runs in front of a command of its own. */
  readonly entrypoint: readonly string[];
  /** Its own command. */
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

/** Awaits an image, and closes its handle, which ends what is still being done. */
async function got(cell: Cell, options: ProgressOptions & WaitOptions): Promise<ImageInfo> {
  const waiter = new Waiter(cell);
  const progress = () => native.imageProgress(cell);
  const look = telling(progress, options.onProgress, () => native.imageWait(cell));
  try {
    return imageInfo(await waiter.until(look, options.signal));
  } finally {
    waiter.close();
  }
}

/**
 * The store of images, which all sandboxes and programs of this user share.
 *
 * A `pull` or `import` that is given up ends at once; what was downloaded is kept for the next time.
 */
export class Image {
  private constructor() {}

  /**
   * Get an image from its registry, `"python:3.12"`, also when it is here already; what has not
   * changed is not fetched again.
   *
   * @throws {@link ImageNotFoundError}, {@link ImageUnauthorizedError},
   * {@link RegistryUnreachableError}
   */
  static async pull(name: string, options: ProgressOptions & WaitOptions = {}): Promise<ImageInfo> {
    checkedCallback(options);
    options.signal?.throwIfAborted();
    return got(call(() => native.imagePull({ name: text("the name", name) })), options);
  }

  /**
   * Take an image from an archive of a root filesystem, from what `docker save` writes, or from OCI's
   * layout; archives may be compressed with gzip or zstd. Without a `name` it is called as it says
   * itself, if it does.
   *
   * @throws {@link InvalidConfigError} when there is nothing at `path`, {@link ImageInvalidError}
   */
  static async import(
    path: Text,
    options: { name?: string | undefined } & ProgressOptions & WaitOptions = {},
  ): Promise<ImageInfo> {
    checkedCallback(options);
    options.signal?.throwIfAborted();
    const spec = { path: text("the path", path), name: optional("the name", options.name) };
    return got(call(() => native.imageImport(spec)), options);
  }

  /** All images in the store, the newest first. */
  static async list(options: WaitOptions = {}): Promise<ImageInfo[]> {
    return (await job(native.imageList, null, {}, options.signal)).map(imageInfo);
  }

  /**
   * Take a name from an image, and remove the image with its last name; called by its id it loses all
   * its names. With `force` also one that a sandbox uses, which then goes with that sandbox and the
   * next `prune`.
   *
   * @throws {@link ImageNotFoundError}, {@link ImageInUseError}
   */
  static async remove(name: string, options: { force?: boolean } & WaitOptions = {}): Promise<void> {
    const first = options.force ? abi.MSB_REMOVE_FORCE : 0;
    await job(native.imageRemove, null, { name: text("the name", name), first }, options.signal);
  }

  /**
   * Remove what has no name and no sandbox uses, and what downloads have left; with `all` also what
   * has a name. Waits for images that are being got.
   *
   * @returns About how many bytes are free again.
   */
  static async prune(options: { all?: boolean } & WaitOptions = {}): Promise<number> {
    const first = options.all ? abi.MSB_PRUNE_ALL : 0;
    return job(native.imagePrune, null, { first }, options.signal);
  }
}
