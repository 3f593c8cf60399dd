/** Messages as flat lists of field paths and texts. */
import { type DescEnum, type DescField, type DescMessage, type Message } from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import { type Duration, DurationSchema } from "@bufbuild/protobuf/wkt";
import { typedDuration } from "../format";
import { comments } from "../gen/comments";

/** Short name of an enum value: `IF_BETTER` for `PROMOTE_IF_BETTER`. */
export function enumName(desc: DescEnum, number: number): string {
  return desc.value[number]?.localName ?? number.toString();
}

/** Comment of a field, message or enum value in the proto files; may be empty. */
export function commentOf(fullName: string): string {
  return comments[fullName] ?? "";
}

/** Full name of a field. */
export function fieldName(field: DescField): string {
  return `${field.parent.typeName}.${field.name}`;
}

/**
 * Set fields by path, such as `optimizer.learning_rate`, in declaration order, without unspecified
 * enums.
 */
export function flatten(desc: DescMessage, message: Message): Map<string, string> {
  const texts = new Map<string, string>();
  collect(desc, message, "", texts);
  return texts;
}

function collect(desc: DescMessage, message: Message, prefix: string, texts: Map<string, string>): void {
  const reflected = reflect(desc, message);
  for (const field of desc.fields) {
    if (!reflected.isSet(field)) continue;
    const path = prefix + field.name;
    switch (field.fieldKind) {
      case "message": {
        const inner = reflected.get(field).message;
        if (field.message.typeName === DurationSchema.typeName) texts.set(path, typedDuration(inner as Duration));
        else collect(field.message, inner, `${path}.`, texts);
        break;
      }
      case "list": {
        const list = reflected.get(field);
        if (field.listKind === "message") {
          [...list].forEach((item, index) => {
            collect(field.message, (item as { message: Message }).message, `${path}[${index}].`, texts);
          });
        } else {
          texts.set(path, [...list].map((item) => (field.listKind === "enum" ? enumName(field.enum, item as number) : String(item))).join(", "));
        }
        break;
      }
      case "map":
        for (const [key, value] of reflected.get(field)) texts.set(`${path}.${String(key)}`, String(value));
        break;
      case "enum":
        texts.set(path, enumName(field.enum, reflected.get(field)));
        break;
      case "scalar":
        texts.set(path, String(reflected.get(field)));
        break;
    }
  }
}

/** A field in which messages differ. */
export interface Difference {
  path: string;
  /** One per message; empty if unset. */
  values: string[];
}

/** Fields in which messages of one type differ, in declaration order. */
export function differences(desc: DescMessage, messages: Message[]): Difference[] {
  const flat = messages.map((message) => flatten(desc, message));
  const paths = [...new Set(flat.flatMap((texts) => [...texts.keys()]))].sort(byDeclaration(desc));
  return paths
    .map((path) => ({ path, values: flat.map((texts) => texts.get(path) ?? "") }))
    .filter(({ values }) => values.some((value) => value !== values[0]));
}

/** Compares paths by declaration order, including fields that only one message has. */
function byDeclaration(desc: DescMessage): (a: string, b: string) => number {
  const place = (path: string): number[] => {
    const places: number[] = [];
    let message: DescMessage | undefined = desc;
    for (const part of path.split(".")) {
      const [name = "", index = ""] = part.replace("]", "").split("[");
      const at: number = message ? message.fields.findIndex((field) => field.name === name) : -1;
      places.push(at, Number(index));
      const field: DescField | undefined = message?.fields[at];
      message = field && "message" in field ? field.message : undefined;
    }
    return places;
  };
  return (a, b) => {
    const [left, right] = [place(a), place(b)];
    for (let at = 0; at < Math.min(left.length, right.length); at += 1) {
      const step = (left[at] ?? 0) - (right[at] ?? 0);
      if (step !== 0) return step;
    }
    return left.length - right.length || (a < b ? -1 : a > b ? 1 : 0);
  };
}
