/**
 * A form for any message, generated from its descriptor, so that new fields appear automatically.
 * Its values are the entered texts, by path.
 */
import { type DescField, type DescMessage, type Message, ScalarType, create } from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import { DurationSchema } from "@bufbuild/protobuf/wkt";
import type { Violation } from "../api/errors";
import { parseDuration } from "../format";
import { commentOf, fieldName, flatten } from "./describe";

/**
 * Entered texts by path, such as `optimizer.learning_rate` or `optimizer.groups[0].prefix`; missing
 * and empty ones are unset.
 */
export type Values = Readonly<Record<string, string>>;

/** An option of a choice. */
export interface Option {
  value: string;
  help: string;
  /** Name for people; default: that in the texts, or else the value. */
  label?: string;
}

/** An input field. */
export interface FieldNode {
  kind: "field";
  path: string;
  /** Name without the path, such as `learning_rate`. */
  name: string;
  help: string;
  control: "integer" | "number" | "text" | "list" | "duration" | "choice" | "toggle";
  options: Option[];
}

/** A group of fields. */
export interface GroupNode {
  kind: "group";
  path: string;
  name: string;
  help: string;
  children: Node[];
}

/** A repeated group. */
export interface RowsNode {
  kind: "rows";
  path: string;
  name: string;
  help: string;
  /** Group of one row; its path ends with the index of the row. */
  row: (index: number) => GroupNode;
}

export type Node = FieldNode | GroupNode | RowsNode;

export function formOf(desc: DescMessage, prefix = ""): Node[] {
  return desc.fields.flatMap((field) => nodeOf(field, prefix + field.name));
}

function nodeOf(field: DescField, path: string): Node[] {
  const common = { path, name: field.name, help: commentOf(fieldName(field)) };
  const one = (control: FieldNode["control"], options: Option[] = []): Node[] => [{ kind: "field", ...common, control, options }];
  switch (field.fieldKind) {
    case "scalar":
      return one(controlOf(field.scalar));
    case "enum":
      return one("choice", optionsOf(field));
    case "message":
      if (field.message.typeName === DurationSchema.typeName) return one("duration");
      return [{ kind: "group", ...common, children: formOf(field.message, `${path}.`) }];
    case "list": {
      if (field.listKind !== "message") return one("list");
      const { message } = field;
      const row = (index: number): GroupNode => ({
        kind: "group",
        path: `${path}[${index}]`,
        name: `${field.name} ${index + 1}`,
        help: commentOf(message.typeName),
        children: formOf(message, `${path}[${index}].`),
      });
      return [{ kind: "rows", ...common, row }];
    }
    case "map":
      // Specs contain no maps.
      return [];
  }
}

function controlOf(scalar: ScalarType): FieldNode["control"] {
  switch (scalar) {
    case ScalarType.BOOL:
      return "toggle";
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return "number";
    case ScalarType.STRING:
    case ScalarType.BYTES:
      return "text";
    default:
      return "integer";
  }
}

function optionsOf(field: DescField & { fieldKind: "enum" }): Option[] {
  // Unspecified is the empty option.
  return field.enum.values
    .filter(({ number }) => number !== 0)
    .map((value) => ({ value: value.localName, help: commentOf(`${field.enum.typeName}.${value.name}`) }));
}

/** Number of rows of a repeated group. */
export function rowCount(values: Values, path: string): number {
  let rows = 0;
  for (const key of Object.keys(values)) {
    const index = key.startsWith(`${path}[`) ? parseInt(key.slice(path.length + 1), 10) : -1;
    rows = Math.max(rows, index + 1);
  }
  return rows;
}

/** Values without one row; later rows move up. */
export function withoutRow(values: Values, path: string, removed: number): Values {
  const kept: Record<string, string> = {};
  for (const [key, value] of Object.entries(values)) {
    const match = key.startsWith(`${path}[`) ? /^(\d+)\](.*)$/.exec(key.slice(path.length + 1)) : null;
    const index = match ? Number(match[1]) : -1;
    if (index === removed) continue;
    kept[index > removed && match ? `${path}[${index - 1}]${match[2] ?? ""}` : key] = value;
  }
  return kept;
}

/** True if a path or anything below it has a value. */
export function hasValues(values: Values, path: string): boolean {
  return Object.entries(values).some(([key, value]) => value !== "" && (key === path || key.startsWith(`${path}.`) || key.startsWith(`${path}[`)));
}

/** Parses values into a message, and lists unparsable ones. The server validates the rest. */
export function toMessage<Desc extends DescMessage>(desc: Desc, values: Values): { message: ReturnType<typeof create<Desc>>; problems: Violation[] } {
  const problems: Violation[] = [];
  return { message: fill(desc, values, "", problems) as ReturnType<typeof create<Desc>>, problems };
}

function fill(desc: DescMessage, values: Values, prefix: string, problems: Violation[]): Message {
  const message = create(desc);
  const reflected = reflect(desc, message);
  for (const field of desc.fields) {
    const path = prefix + field.name;
    const text = values[path]?.trim() ?? "";
    const read = (value: unknown, expected: string): void => {
      if (value === undefined) problems.push({ field: path, description: `“${text}” is not ${expected}` });
      else reflected.set(field, value as never);
    };
    switch (field.fieldKind) {
      case "scalar":
        if (text !== "") read(scalarOf(field.scalar, text), EXPECTED[controlOf(field.scalar)]);
        break;
      case "enum":
        if (text !== "") read(field.enum.values.find(({ localName }) => localName === text)?.number, "one of the choices");
        break;
      case "message":
        if (field.message.typeName === DurationSchema.typeName) {
          const duration = text === "" ? undefined : parseDuration(text);
          if (text !== "") read(duration && reflect(DurationSchema, create(DurationSchema, duration)), EXPECTED.duration);
        } else if (hasValues(values, path)) {
          reflected.set(field, reflect(field.message, fill(field.message, values, `${path}.`, problems)));
        }
        break;
      case "list":
        if (field.listKind === "message") {
          const rows = rowCount(values, path);
          for (let index = 0; index < rows; index += 1) {
            reflected.get(field).add(reflect(field.message, fill(field.message, values, `${path}[${index}].`, problems)) as never);
          }
        } else {
          for (const item of text.split(",").map((part) => part.trim()).filter((part) => part !== "")) {
            const value = field.listKind === "enum" ? field.enum.values.find(({ localName }) => localName === item)?.number : scalarOf(field.scalar, item);
            if (value === undefined) problems.push({ field: path, description: `“${item}” is not a valid value` });
            else reflected.get(field).add(value as never);
          }
        }
        break;
      case "map":
        break;
    }
  }
  return message;
}

const EXPECTED: Readonly<Record<FieldNode["control"], string>> = {
  integer: "a whole number",
  number: "a number",
  text: "a text",
  list: "a list with commas",
  duration: "a duration such as 90s, 5m or 1h30m",
  choice: "one of the choices",
  toggle: "true or false",
};

/** Maximum values of the protobuf integer types. */
const LARGEST: ReadonlyMap<ScalarType, bigint> = new Map([
  [ScalarType.UINT32, 2n ** 32n - 1n],
  [ScalarType.FIXED32, 2n ** 32n - 1n],
  [ScalarType.INT32, 2n ** 31n - 1n],
  [ScalarType.SINT32, 2n ** 31n - 1n],
  [ScalarType.SFIXED32, 2n ** 31n - 1n],
  [ScalarType.UINT64, 2n ** 64n - 1n],
  [ScalarType.FIXED64, 2n ** 64n - 1n],
  [ScalarType.INT64, 2n ** 63n - 1n],
  [ScalarType.SINT64, 2n ** 63n - 1n],
  [ScalarType.SFIXED64, 2n ** 63n - 1n],
]);
const UNSIGNED: ReadonlySet<ScalarType> = new Set([ScalarType.UINT32, ScalarType.FIXED32, ScalarType.UINT64, ScalarType.FIXED64]);

function scalarOf(scalar: ScalarType, text: string): string | boolean | number | bigint | undefined {
  switch (controlOf(scalar)) {
    case "toggle":
      return text === "true" ? true : text === "false" ? false : undefined;
    case "number": {
      const value = Number(text);
      return Number.isFinite(value) ? value : undefined;
    }
    case "integer": {
      if (!/^-?\d+$/.test(text)) return undefined;
      const value = BigInt(text);
      const largest = LARGEST.get(scalar) ?? 0n;
      const smallest = UNSIGNED.has(scalar) ? 0n : -largest - 1n;
      if (value < smallest || value > largest) return undefined;
      return largest > 2n ** 32n ? value : Number(value);
    }
    default:
      return text;
  }
}

/** Values of a message. */
export function fromMessage(desc: DescMessage, message: Message): Values {
  return Object.fromEntries(flatten(desc, message));
}

/**
 * Path of a field in the form, from its path in the request; undefined if it is outside the form.
 */
export function pathInForm(field: string, root: string): string | undefined {
  if (field === root) return "";
  return field.startsWith(`${root}.`) ? field.slice(root.length + 1) : undefined;
}
