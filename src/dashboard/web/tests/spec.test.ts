import { create, toJson } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { TrainingSpecSchema } from "../src/gen/visage/v1/training_pb";
import { differences, flatten } from "../src/spec/describe";
import { formOf, fromMessage, pathInForm, rowCount, toMessage, withoutRow, type FieldNode, type Node } from "../src/spec/form";

const leaves = (nodes: Node[]): FieldNode[] => nodes.flatMap((node) => (node.kind === "field" ? [node] : node.kind === "group" ? leaves(node.children) : leaves(node.row(0).children)));
const leaf = (path: string): FieldNode | undefined => leaves(formOf(TrainingSpecSchema)).find((node) => node.path === path);
/** Message of the values in its JSON form. */
const json = (values: Record<string, string>) => toJson(TrainingSpecSchema, toMessage(TrainingSpecSchema, values).message);

describe("the form of a spec", () => {
  it("has every field of the proto, nested ones by path", () => {
    expect(leaf("max_epochs")).toMatchObject({ control: "integer", help: "Number of passes over the training images, 1 to 10,000. Default: 10." });
    expect(leaf("optimizer.learning_rate")?.control).toBe("number");
    expect(leaf("dataset.path")?.control).toBe("text");
    expect(leaf("augmentation.horizontal_flip")?.control).toBe("toggle");
    expect(leaf("max_duration")?.control).toBe("duration");
    expect(leaf("trainable")?.control).toBe("list");
    expect(leaf("optimizer.groups[0].prefix")?.control).toBe("text");
    const top = formOf(TrainingSpecSchema).map(({ name }) => name);
    expect(top).toEqual(TrainingSpecSchema.fields.map(({ name }) => name));
  });

  it("offers enum values with their comments, except the unspecified one", () => {
    expect(leaf("promote")?.options).toEqual([
      { value: "ALWAYS", help: "Always." },
      { value: "IF_BETTER", help: "If no version is live, or if the live version has a higher mean squared error on the validation images of the training, which are predicted with both. Images that either version was trained on are excluded, and at least 50 others are required." },
      { value: "NEVER", help: "Never." },
    ]);
  });
});

describe("typed values", () => {
  it("become a message with exactly the entered fields", () => {
    expect(json({ "dataset.path": " /data/faces ", max_epochs: "12", "optimizer.learning_rate": "3e-4", "optimizer.kind": "ADAMW", batch_size: "" })).toEqual({
      dataset: { path: "/data/faces" },
      maxEpochs: 12,
      optimizer: { learningRate: 0.0003, kind: "OPTIMIZER_KIND_ADAMW" },
    });
  });

  it("keep zeros and 64-bit integers", () => {
    expect(json({ "early_stopping.patience": "0", seed: "18446744073709551615", "augmentation.horizontal_flip": "false" })).toEqual({
      earlyStopping: { patience: 0 },
      seed: "18446744073709551615",
      augmentation: { horizontalFlip: false },
    });
  });

  it("become lists, rows and durations", () => {
    expect(json({ trainable: "layer4, fc,", max_duration: "1h30m", "optimizer.groups[0].prefix": "fc", "optimizer.groups[0].factor": "2", "optimizer.groups[1].prefix": "layer4" })).toEqual({
      trainable: ["layer4", "fc"],
      maxDuration: "5400s",
      optimizer: { groups: [{ prefix: "fc", factor: 2 }, { prefix: "layer4" }] },
    });
  });

  it("that are invalid are reported at their fields", () => {
    const { problems } = toMessage(TrainingSpecSchema, { max_epochs: "ten", "optimizer.learning_rate": "1e-4x", max_duration: "soon", batch_size: "-1", seed: "18446744073709551616" });
    expect(problems.map(({ field }) => field)).toEqual(["max_epochs", "batch_size", "optimizer.learning_rate", "seed", "max_duration"]);
    expect(problems[0]?.description).toBe("“ten” is not a whole number");
  });

  it("are recovered from their message", () => {
    const values = {
      "dataset.path": "/d",
      "dataset.test_fraction": "0.25",
      "init.kind": "STARTER",
      trainable: "layer3, layer4, fc",
      max_epochs: "3",
      "optimizer.groups[0].prefix": "fc",
      "optimizer.groups[0].factor": "0.5",
      max_duration: "1h1s",
      "augmentation.horizontal_flip": "true",
    };
    expect(fromMessage(TrainingSpecSchema, toMessage(TrainingSpecSchema, values).message)).toEqual(values);
  });

  it("lose a row, and those after it move up", () => {
    const values = { "g[0].a": "0", "g[1].a": "1", "g[2].a": "2", "g[10].a": "10", ga: "x" };
    expect(rowCount(values, "g")).toBe(11);
    expect(withoutRow(values, "g", 1)).toEqual({ "g[0].a": "0", "g[1].a": "2", "g[9].a": "10", ga: "x" });
  });

  it("map the path of a violation to the form", () => {
    expect(pathInForm("spec.optimizer.learning_rate", "spec")).toBe("optimizer.learning_rate");
    expect(pathInForm("training_id", "spec")).toBeUndefined();
    expect(pathInForm("special.x", "spec")).toBeUndefined();
  });
});

describe("the difference of specs", () => {
  const a = create(TrainingSpecSchema, { maxEpochs: 10, seed: 42n, optimizer: { learningRate: 1e-4, beta1: 0.9 }, trainable: ["layer4", "fc"] });
  const b = create(TrainingSpecSchema, { maxEpochs: 10, seed: 7n, optimizer: { learningRate: 3e-4, beta1: 0.9, maxGradientNorm: 1 }, trainable: ["layer4", "fc"] });

  it("has only differing fields, in declaration order", () => {
    expect(differences(TrainingSpecSchema, [a, b])).toEqual([
      { path: "optimizer.learning_rate", values: ["0.0001", "0.0003"] },
      { path: "optimizer.max_gradient_norm", values: ["", "1"] },
      { path: "seed", values: ["42", "7"] },
    ]);
  });

  it("is empty for equal specs and for a single one", () => {
    expect(differences(TrainingSpecSchema, [a, a, a])).toEqual([]);
    expect(differences(TrainingSpecSchema, [a])).toEqual([]);
  });

  it("writes durations, enums and lists in the input format", () => {
    const spec = create(TrainingSpecSchema, { promote: 1, maxDuration: { seconds: 90n, nanos: 500_000_000 }, trainable: ["ALL"] });
    expect([...flatten(TrainingSpecSchema, spec)]).toEqual([["trainable", "ALL"], ["promote", "ALWAYS"], ["max_duration", "1m30.5s"]]);
  });
});
