// Prints the compressed size of the dashboard, and fails above the limit, because the dashboard is
// part of the program.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const LIMIT = 300_000;
let total = 0;
for (const entry of readdirSync("dist", { recursive: true, withFileTypes: true })) {
  if (entry.isFile()) total += gzipSync(readFileSync(join(entry.parentPath, entry.name))).length;
}
console.log(`dist: ${total} bytes with gzip, limit ${LIMIT}`);
if (total > LIMIT) {
  console.error("dist is too large: remove a dependency, or raise the limit in scripts/size.js");
  process.exit(1);
}
