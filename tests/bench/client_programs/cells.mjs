// What the JavaScript programs of this folder share: see cells.py, which it says the same as.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

export const [URL_, MODEL, EMBEDDER] = process.argv.slice(2);
const only = process.argv.slice(5);
const tried = [];

export const WEATHER = {
  type: "object",
  properties: { city: { type: "string", enum: ["Bonn", "Köln"] } },
  required: ["city"],
  additionalProperties: false,
};

export function cell(feature, run, refused = "") {
  tried.push([feature, run, refused]);
}

export function check(holds, words) {
  if (!holds) throw new Error(`it does not hold that ${words}`);
}

export async function raises(kind, run) {
  try {
    await run();
  } catch (error) {
    if (kind.isInstance ? kind.isInstance(error) : error instanceof kind) return error;
    throw error;
  }
  throw new Error(`no ${kind.name}`);
}

function versionOf(name) {
  const from = createRequire(join(process.cwd(), "program.mjs"));
  let folder = dirname(from.resolve(name));
  for (;;) {
    try {
      const found = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
      if (found.name === name) return found.version;
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
    }
    folder = dirname(folder);
  }
}

export async function tell(...packages) {
  const cells = {};
  for (const [feature, run, refused] of tried) {
    if (only.length && !only.includes(feature)) continue;
    try {
      await run();
      cells[feature] = refused
        ? { state: "fails", why: `${refused} was not refused` }
        : { state: "works", why: "" };
    } catch (error) {
      const status = error.status ?? error.statusCode;
      const words = `${error.name}: ${error.message}`.slice(0, 600);
      const named = refused && status === 400 && words.includes(refused);
      const line = /programs\/\w+\.mjs:(\d+)/.exec(error.stack)?.[1] ?? "";
      cells[feature] = named
        ? { state: "refused", why: refused }
        : { state: "fails", why: `${words} (line ${line})` };
    }
  }
  const versions = Object.fromEntries(packages.map((name) => [name, versionOf(name)]));
  process.stdout.write(JSON.stringify({ versions, cells }) + "\n");
}
