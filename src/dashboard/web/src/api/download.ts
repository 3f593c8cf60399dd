/** Downloads of checkpoint and version files. */
import type { CheckpointFile } from "../gen/visage/v1/training_pb";

/** A chunk of a file; the first one describes the file. */
interface Chunk {
  file?: CheckpointFile | undefined;
  data: Uint8Array;
}

/** Reads a streamed file, verifies it and saves it; `progress` receives the share received. */
export async function download(chunks: AsyncIterable<Chunk>, name: string, progress: (share: number) => void): Promise<void> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let file: CheckpointFile | undefined;
  let size = 0;
  for await (const chunk of chunks) {
    file ??= chunk.file;
    parts.push(new Uint8Array(chunk.data));
    size += chunk.data.length;
    if (file && file.sizeBytes > 0n) progress(size / Number(file.sizeBytes));
  }
  const blob = new Blob(parts, { type: "application/octet-stream" });
  if (file) await check(blob, file);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  // By then the browser has taken over the data.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Verifies size and SHA-256. Browsers only hash on secure pages (https or localhost). */
async function check(blob: Blob, file: CheckpointFile): Promise<void> {
  if (BigInt(blob.size) !== file.sizeBytes) throw new Error(`${file.name} has ${blob.size} bytes, expected ${file.sizeBytes}; download it again`);
  if (!isSecureContext || file.sha256 === "") return;
  const digest = await crypto.subtle.digest("SHA-256", await blob.arrayBuffer());
  const hex = [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== file.sha256) throw new Error(`${file.name} has the SHA-256 ${hex}, expected ${file.sha256}; download it again`);
}
