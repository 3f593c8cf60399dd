/** Files of checkpoints and versions, as the browser's own downloads. */
import type { CheckpointFile } from "../gen/visage/v1/training_pb";

/** A part of a file; the first one tells about the whole. */
interface Chunk {
  file?: CheckpointFile | undefined;
  data: Uint8Array;
}

/** Reads a streamed file, checks it and offers it under a name; `tell` gets the share that is there. */
export async function download(chunks: AsyncIterable<Chunk>, name: string, tell: (share: number) => void): Promise<void> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let file: CheckpointFile | undefined;
  let size = 0;
  for await (const chunk of chunks) {
    file ??= chunk.file;
    parts.push(new Uint8Array(chunk.data));
    size += chunk.data.length;
    if (file && file.sizeBytes > 0n) tell(size / Number(file.sizeBytes));
  }
  const blob = new Blob(parts, { type: "application/octet-stream" });
  if (file) await check(blob, file);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  // The download has its own hold on the data by then.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Compares what came with what was announced. Browsers hash only on pages that they trust (https or this machine). */
async function check(blob: Blob, file: CheckpointFile): Promise<void> {
  if (BigInt(blob.size) !== file.sizeBytes) throw new Error(`${file.name} came with ${blob.size} bytes instead of ${file.sizeBytes}; download it again`);
  if (!isSecureContext || file.sha256 === "") return;
  const digest = await crypto.subtle.digest("SHA-256", await blob.arrayBuffer());
  const hex = [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== file.sha256) throw new Error(`${file.name} came with the SHA-256 ${hex} instead of ${file.sha256}; download it again`);
}
