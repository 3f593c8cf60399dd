// Prints how large the dashboard is as browsers get it, and fails above the limit: it is part of the server's program.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const LIMIT = 300_000;
let total = 0;
for (const entry of readdirSync("dist", { recursive: true, withFileTypes: true })) {
  if (entry.isFile()) total += gzipSync(readFileSync(join(entry.parentPath, entry.name))).length;
}
console.log(`dist: ${total} bytes with gzip, of at most ${LIMIT}`);
if (total > LIMIT) {
  console.error("dist is too large: leave a dependency out, or say in scripts/size.js why it must be larger");
  process.exit(1);
}
