/** Parser of Prometheus' text format, and rates and quantiles from two scrapes. */

export interface Sample {
  name: string;
  labels: Readonly<Record<string, string>>;
  value: number;
}

/** One scrape. */
export interface Reading {
  /** Milliseconds since 1970. */
  time: number;
  samples: Sample[];
}

const NAME = /[a-zA-Z_:][a-zA-Z0-9_:]*/y;
const LABEL = /\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(,?)/y;
const VALUE = /\s+(\S+)(?:\s+-?\d+)?\s*$/y;

/** Parses a page of metrics; malformed lines are skipped. */
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

/** Filter of the series of a name. */
export type Choice = (labels: Readonly<Record<string, string>>) => boolean;

/** Sum of the selected series; undefined without one. */
export function total(reading: Reading, name: string, chosen: Choice = () => true): number | undefined {
  const values = reading.samples.filter((sample) => sample.name === name && chosen(sample.labels)).map(({ value }) => value);
  return values.length === 0 ? undefined : values.reduce((sum, value) => sum + value, 0);
}

/**
 * Increase of each selected counter. A counter that decreased was reset, so its whole value counts.
 */
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

/** Increase per second of the selected counters between two scrapes. */
export function rate(before: Reading, after: Reading, name: string, chosen: Choice = () => true): number {
  const seconds = (after.time - before.time) / 1000;
  if (seconds <= 0) return 0;
  return growth(before, after, name, chosen).reduce((sum, { value }) => sum + value, 0) / seconds;
}

/**
 * Quantile `q` of the observations between two scrapes, linearly interpolated within its bucket like Prometheus' `histogram_quantile`; undefined
 * without observations.
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
