/** Formatting of numbers, times and names. */
import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";

/** Placeholder for a missing value. */
export const NOTHING = "–";

/**
 * A number with about four significant digits, and a fixed number of decimals per magnitude, so
 * that columns stay aligned.
 */
export function figure(value: number | undefined): string {
  if (value === undefined || Number.isNaN(value)) return NOTHING;
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 0.001 || size >= 1e7) return value.toExponential(2).replace("e-", "e−").replace("e+", "e");
  const decimals = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 1 ? 2 : 4;
  return grouped(value.toFixed(decimals));
}

/** An integer with thousands separators. */
export function count(value: number | bigint): string {
  return grouped(value.toString());
}

function grouped(digits: string): string {
  const [whole = "", fraction] = digits.split(".");
  const text = whole.replace("-", "−").replace(/\B(?=(\d{3})+(?!\d))/g, ",");
  return fraction === undefined ? text : `${text}.${fraction}`;
}

/** Share from 0 to 1 as a percentage. */
export function percent(share: number, decimals = 0): string {
  return `${(share * 100).toFixed(decimals)} %`;
}

/** An error in years or squared years, with two decimals as on the command line. */
export function error(value: number | undefined): string {
  if (value === undefined || Number.isNaN(value)) return NOTHING;
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const digits = value.toFixed(2);
  return grouped(digits === "-0.00" ? "0.00" : digits);
}

/** A signed error, such as a bias, with two decimals. */
export function signed(value: number): string {
  const text = error(value);
  return value > 0 && text !== "0.00" ? `+${text}` : text;
}

/** A predicted age or a bound of its interval, with one decimal as on the command line. */
export function age(value: number): string {
  return value.toFixed(1);
}

/** Age of a person in years, such as `1 year` and `34 years`. */
export function yearsOld(value: number): string {
  return plural(value, "year");
}

/** A count with its noun, such as `1 image` and `2 images`. */
export function plural(value: number | bigint, noun: string): string {
  return `${count(value)} ${noun}${Number(value) === 1 ? "" : "s"}`;
}

/** Size in bytes, in the binary units of the command line: `512 B`, `1.5 KiB`, `44.7 MiB`. */
export function bytes(value: number | bigint): string {
  let size = Number(value);
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (size >= 1024 && unit + 1 < units.length) {
    size /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? size : size.toFixed(1)} ${units[unit]}`;
}

/** Seconds of a protobuf duration. */
export function seconds(duration: Duration): number {
  return Number(duration.seconds) + duration.nanos / 1e9;
}

/** Duration in its two largest units, such as `2 h 5 min`. */
export function span(total: number): string {
  if (!Number.isFinite(total) || total < 0) return NOTHING;
  if (total < 1) return `${Math.round(total * 1000)} ms`;
  if (total < 10) return `${total.toFixed(1)} s`;
  const whole = Math.round(total);
  const parts: [number, string][] = [
    [Math.floor(whole / 86_400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ];
  const first = parts.findIndex(([value]) => value > 0);
  return parts
    .slice(first, first + 2)
    .filter(([value]) => value > 0)
    .map(([value, unit]) => `${value} ${unit}`)
    .join(" ");
}

/** Duration in the input format: `1h30m`, `5m`, `1.5s`. */
export function typedDuration(duration: Duration): string {
  const nanos = duration.nanos === 0 ? "" : `.${duration.nanos.toString().padStart(9, "0").replace(/0+$/, "")}`;
  const whole = duration.seconds;
  if (nanos !== "" || whole % 60n !== 0n || whole === 0n) {
    const minutes = whole / 60n;
    const rest = `${whole % 60n}${nanos}s`;
    return minutes === 0n ? rest : `${hours(minutes)}${rest}`;
  }
  return hours(whole / 60n);
}

function hours(minutes: bigint): string {
  const [whole, rest] = [minutes / 60n, minutes % 60n];
  return `${whole === 0n ? "" : `${whole}h`}${rest === 0n ? "" : `${rest}m`}`;
}

/** Parses the format of `typedDuration`, and also plain seconds and days; undefined if invalid. */
export function parseDuration(text: string): { seconds: bigint; nanos: number } | undefined {
  const match = /^(?:(\d+)d)?\s*(?:(\d+)h)?\s*(?:(\d+)m(?:in)?)?\s*(?:(\d+)(?:\.(\d{1,9}))?s?)?$/.exec(text.trim());
  if (!match || match[0] === "") return undefined;
  const [, days = "0", h = "0", m = "0", s = "0", fraction = ""] = match;
  const total = ((BigInt(days) * 24n + BigInt(h)) * 60n + BigInt(m)) * 60n + BigInt(s);
  return { seconds: total, nanos: Number(fraction.padEnd(9, "0")) };
}

/** Milliseconds since 1970 of a protobuf timestamp. */
export function millis(time: Timestamp): number {
  return Number(time.seconds) * 1000 + Math.floor(time.nanos / 1e6);
}

const clock = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const exact = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/** Short date and time. */
export function moment(time: Timestamp | undefined): string {
  return time ? clock.format(millis(time)) : NOTHING;
}

/** Date and time to the second. */
export function exactMoment(time: Timestamp | undefined): string {
  return time ? exact.format(millis(time)) : NOTHING;
}

/** Last part of a resource name: `a` for `trainings/a`. */
export function shortName(name: string): string {
  return name.slice(name.lastIndexOf("/") + 1);
}

/** Words of a path, field name or method name, each with its trailing separator. */
export function pieces(name: string): string[] {
  return name.split(/(?<=[./_-])|(?<=[a-z0-9])(?=[A-Z])/);
}

/** `EARLY_STOPPED` as `early stopped`. */
export function words(constant: string): string {
  return constant.toLowerCase().replaceAll("_", " ");
}

/** Text with its first letter in upper case. */
export function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
