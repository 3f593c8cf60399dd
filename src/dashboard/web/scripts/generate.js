// Makes `src/gen` of the proto directory, without a network: the client's code, and the comments of the API's files by full name, which the generated descriptors
// do not have and the form shows as help.
import { execFileSync } from "node:child_process";
import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";

const MESSAGE = 4, FIELD = 2, NESTED = 3, ENUM = 5, VALUE = 2, NESTED_ENUM = 4;
const COPY = "build/proto";
const IMAGE = "build/image.json";

/** The full name of what a path of source code info stands for; undefined for what has no name of its own, such as a type. */
function nameAt(file, path) {
  let scope = [file.package];
  let container = { messages: file.messageType ?? [], enums: file.enumType ?? [] };
  let keys = { message: MESSAGE, enum: ENUM };
  for (let at = 0; at + 1 < path.length; at += 2) {
    const [key, index] = [path[at], path[at + 1]];
    if (key === keys.message && container.messages?.[index]) {
      const message = container.messages[index];
      scope = [...scope, message.name];
      container = { messages: message.nestedType, enums: message.enumType, fields: message.field };
      keys = { message: NESTED, enum: NESTED_ENUM, field: FIELD };
    } else if (key === keys.enum && container.enums?.[index]) {
      scope = [...scope, container.enums[index].name];
      container = { fields: container.enums[index].value };
      keys = { field: VALUE };
    } else if (key === keys.field && container.fields?.[index] && at + 2 === path.length) {
      scope = [...scope, container.fields[index].name];
    } else {
      return undefined;
    }
  }
  return path.length % 2 === 0 ? scope.join(".") : undefined;
}

rmSync(COPY, { recursive: true, force: true });
cpSync("../../../proto/visage/v1", `${COPY}/visage/v1`, { recursive: true });
execFileSync("buf", ["generate"], { stdio: "inherit" });
execFileSync("buf", ["build", "-o", IMAGE], { stdio: "inherit" });

const comments = {};
for (const file of JSON.parse(readFileSync(IMAGE, "utf8")).file) {
  // The form is about trainings; comments of everything would only make the page larger.
  if (file.name !== "visage/v1/training.proto") continue;
  for (const { path, leadingComments } of file.sourceCodeInfo.location) {
    const name = leadingComments && nameAt(file, path);
    if (name) comments[name] = leadingComments.split("\n").map((line) => line.trim()).join(" ").trim();
  }
}
if (!comments["visage.v1.TrainingSpec.max_epochs"]) throw new Error("the comments of TrainingSpec were not found in " + IMAGE);
writeFileSync("src/gen/comments.ts",
  "// Made by scripts/generate.js.\nexport const comments: Readonly<Record<string, string>> = " + JSON.stringify(comments, null, 1) + ";\n");
