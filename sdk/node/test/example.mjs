// Runs one of the examples and prints its result: example.mjs SANDBOX EXAMPLE
import { Sandbox } from "microsandbox";
import * as examples from "./dist/examples.mjs";

// There is no store of images by name yet: "python" is the root filesystem of the tests.
const { create } = Sandbox;
Sandbox.create = (name, options) =>
  create(name, { ...options, image: options.image === "python" ? process.env.MSB_TEST_ROOTFS : options.image });

const [, , name, example] = process.argv;
const sandbox = name === "" ? undefined : await Sandbox.get(name);
await examples[example](sandbox).then(
  (code) => console.log(`resolved to ${code}`),
  (error) => console.log(`rejected with ${error.name}`),
);
