/** Reads Prometheus' text format, and what follows from two readings of it. */

/** One series with its value. */
export interface Sample {
  name: string;
  labels: Readonly<Record<string, string>>;
  value: number;
}

/** One reading of all series. */
export interface Reading {
  /** Milliseconds since 1970. */
  time: number;
  samples: Sample[];
}

const NAME = /[a-zA-Z_:][a-zA-Z0-9_:]*/y;
const LABEL = /\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(,?)/y;
const VALUE = /\s+(\S+)(?:\s+-?\d+)?\s*$/y;

/** Reads a page of metrics; lines that are none are left out. */
export function parseMetrics(text: string): Sample[] {
  const samples: Sample[] = [];
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const sample = parseLine(line);
    if (sample) samples.push(sample);
  }
  return samples;
}

function parseLine(line: string): Sample | undefined {
  const name = match(NAME, line, 0);
  if (!name) return undefined;
  let at = name[0].length;
  const labels: Record<string, string> = {};
  if (line[at] === "{") {
    at += 1;
    for (let label = match(LABEL, line, at); label; label = match(LABEL, line, at)) {
      const [all, key = "", value = "", comma] = label;
      labels[key] = unescape(value);
      at += all.length;
      if (comma === "") break;
    }
    while (line[at] === " ") at += 1;
    if (line[at] !== "}") return undefined;
    at += 1;
  }
  const value = match(VALUE, line, at);
  return value?.[1] === undefined ? undefined : { name: name[0], labels, value: parseValue(value[1]) };
}

function match(pattern: RegExp, text: string, at: number): RegExpExecArray | null {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

function unescape(text: string): string {
  return text.replace(/\\(.)/g, (_, sign: string) => (sign === "n" ? "\n" : sign));
}

function parseValue(text: string): number {
  switch (text.toLowerCase()) {
    case "+inf":
    case "inf":
      return Infinity;
    case "-inf":
      return -Infinity;
    default:
      return Number(text);
  }
}

/** Which series of a name are meant. */
export type Choice = (labels: Readonly<Record<string, string>>) => boolean;

/** Sum of the chosen series; undefined when there is none. */
export function total(reading: Reading, name: string, chosen: Choice = () => true): number | undefined {
  const values = reading.samples.filter((sample) => sample.name === name && chosen(sample.labels)).map(({ value }) => value);
  return values.length === 0 ? undefined : values.reduce((sum, value) => sum + value, 0);
}

/** By how much each chosen counter grew, by its labels. One that fell was started anew, so all of it is growth. */
function growth(before: Reading, after: Reading, name: string, chosen: Choice): Sample[] {
  const earlier = new Map<string, number>();
  for (const sample of before.samples) if (sample.name === name) earlier.set(key(sample.labels), sample.value);
  return after.samples
    .filter((sample) => sample.name === name && chosen(sample.labels))
    .map((sample) => {
      const was = earlier.get(key(sample.labels)) ?? 0;
      return { ...sample, value: sample.value < was ? sample.value : sample.value - was };
    });
}

function key(labels: Readonly<Record<string, string>>): string {
  return JSON.stringify(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Growth of the chosen counters for each second between two readings. */
export function rate(before: Reading, after: Reading, name: string, chosen: Choice = () => true): number {
  const seconds = (after.time - before.time) / 1000;
  if (seconds <= 0) return 0;
  return growth(before, after, name, chosen).reduce((sum, { value }) => sum + value, 0) / seconds;
}

/**
 * The value that a share `q` of the observations between two readings did not exceed, by a straight line inside its bucket, as Prometheus'
 * `histogram_quantile` has it; undefined when there were none.
 */
export function quantile(q: number, before: Reading, after: Reading, histogram: string, chosen: Choice = () => true): number | undefined {
  const byBound = new Map<number, number>();
  for (const { labels, value } of growth(before, after, `${histogram}_bucket`, chosen)) {
    const bound = parseValue(labels["le"] ?? "");
    byBound.set(bound, (byBound.get(bound) ?? 0) + value);
  }
  const buckets = [...byBound].sort(([a], [b]) => a - b);
  const all = buckets.at(-1)?.[1] ?? 0;
  if (all === 0) return undefined;
  const rank = q * all;
  const index = buckets.findIndex(([, cumulative]) => cumulative >= rank);
  const [bound, cumulative] = buckets[index] ?? [Infinity, all];
  const [lower, below] = index > 0 ? (buckets[index - 1] ?? [0, 0]) : [0, 0];
  if (bound === Infinity) return lower;
  return lower + (bound - lower) * ((rank - below) / (cumulative - below));
}
