import { describe, expect, it } from "vitest";
import { comments } from "../src/gen/comments";
import { TrainingSpecSchema } from "../src/gen/visage/v1/training_pb";
import { basics, datasetMore, datasetName, datasetPath, epochs, folds, initFile, initKind, initVersion, isShown, missingRole, placeOf, withoutPromotion } from "../src/pages/start-form";
import { defaultsFor } from "../src/spec/defaults";
import { type Node, formOf } from "../src/spec/form";
import { textOf, textPaths } from "../src/spec/texts";

/** Paths of all fields below nodes, where rows stand for their first. */
function pathsOf(nodes: (Node | undefined)[]): string[] {
  return nodes.flatMap((node) => (node === undefined ? [] : node.kind === "field" ? [node.path] : node.kind === "group" ? pathsOf(node.children) : pathsOf([node.row(0)])));
}
const all = pathsOf(formOf(TrainingSpecSchema));

describe("the form of a new training", () => {
  it("shows each field of the API exactly once", () => {
    const shown = pathsOf([datasetName, datasetPath, datasetMore, ...basics, ...epochs, initKind, initVersion, ...initFile, ...folds.map(({ node }) => node)]);
    expect([...shown].sort()).toEqual([...all].sort());
  });
  it("has a text for people for each field", () => {
    expect(all.filter((path) => textOf(path) === undefined)).toEqual([]);
  });
  it("has no text for a field that does not exist", () => {
    const known = new Set([...all.map((path) => path.replace(/\[\d+\]/g, "")), "display_name", "training_id"]);
    const groups = new Set([...known].flatMap((path) => path.split(".").slice(0, -1).map((_, index, parts) => parts.slice(0, index + 1).join("."))));
    expect(textPaths().filter((path) => !known.has(path) && !groups.has(path))).toEqual([]);
  });
  it("places violations of a message at its first field", () => {
    expect(["spec.init", "spec.dataset", "spec.optimizer.learning_rate", "training_id"].map(placeOf)).toEqual(["init.kind", "dataset.path", "optimizer.learning_rate", "training_id"]);
    expect([isShown("optimizer.groups[3].factor"), isShown("init.kind"), isShown("request_id")]).toEqual([true, true, false]);
  });
});

describe("the roles that a start requires", () => {
  const lacking = (roles: string[], values: Record<string, string>) => missingRole(values, (role) => roles.includes(role));

  it("depend on the promotion and on paths of the server", () => {
    expect(lacking([], {})).toBe("trainer");
    expect(lacking(["trainer"], { "dataset.name": "datasets/a" })).toBeUndefined();
    expect(lacking(["trainer"], { "dataset.path": "/srv/faces" })).toBe("admin");
    expect(lacking(["trainer"], { "init.path": "/srv/w.pt" })).toBe("admin");
    expect(lacking(["trainer"], { promote: "ALWAYS", "dataset.path": "" })).toBe("deployer");
    expect(lacking(["trainer"], { promote: "NEVER" })).toBeUndefined();
    expect(lacking(["trainer", "deployer"], { promote: "IF_BETTER" })).toBeUndefined();
  });
  it("are met without a promotion by default", () => {
    expect(withoutPromotion({ recipe: "FAST" }, false)).toEqual({ recipe: "FAST", promote: "NEVER" });
    expect(withoutPromotion({ promote: "ALWAYS" }, false)).toEqual({ promote: "ALWAYS" });
    expect(withoutPromotion({ recipe: "FAST" }, true)).toEqual({ recipe: "FAST" });
    expect(new Set(formOf(TrainingSpecSchema).flatMap((node) => (node.kind === "field" && node.path === "promote" ? node.options.map(({ value }) => value) : [])))).toContain("NEVER");
  });
});

describe("defaults of the form", () => {
  it("are those in the comments of the API", () => {
    const defaults = defaultsFor({});
    for (const name of ["max_epochs", "batch_size", "input_size", "seed", "ema_decay", "promote", "target_scale", "monitor", "batch_norm", "on_oom", "precision"]) {
      const documented = /Default: ([A-Za-z0-9_]+)/.exec(comments[`visage.v1.TrainingSpec.${name}`] ?? "")?.[1];
      expect(defaults.get(name), name).toBe(documented);
    }
  });
  it("follow the recipe, the initial weights and the optimizer", () => {
    expect(defaultsFor({ recipe: "BEST" }).get("max_epochs")).toBe("15");
    expect(defaultsFor({ recipe: "FAST" }).get("init.kind")).toBe("STARTER");
    expect(defaultsFor({ recipe: "FAST" }).get("input_size")).toBe("192");
    expect(defaultsFor({ recipe: "FAST", "init.kind": "RANDOM" }).get("input_size")).toBe("224");
    expect(defaultsFor({ "init.kind": "STARTER" }).get("head_bias")).toBe("KEEP");
    expect(defaultsFor({ "optimizer.kind": "ADAMW" }).get("optimizer.weight_decay")).toBe("0.01");
    expect(defaultsFor({ recipe: "BEST", "optimizer.kind": "ADAMW" }).get("optimizer.weight_decay")).toBe("0.05");
    // The values of the file are unknown.
    expect(defaultsFor({ "init.kind": "PATH" }).has("input_size")).toBe(false);
  });
});
