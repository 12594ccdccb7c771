// The package in CommonJS: it compiles, and is the same copy of the code. Run by modules.test.mjs.
import { ExecOptionsBuilder, Sandbox } from "microsandbox";
import microsandbox = require("microsandbox");

export const same = microsandbox.Sandbox === Sandbox && new ExecOptionsBuilder() instanceof microsandbox.ExecOptionsBuilder;
export { Sandbox };
