/**
 * Defaults of the settings, to show them before the server has resolved a spec. A test in `e2e`
 * compares them with the server's.
 */
import type { Values } from "./form";

const REFERENCE: Values = {
  recipe: "REFERENCE",
  max_epochs: "10",
  batch_size: "32",
  input_size: "224",
  trainable: "layer4, fc",
  seed: "42",
  promote: "IF_BETTER",
  create_version: "true",
  head_bias: "MEAN_AGE",
  feature_cache: "AUTO",
  precision: "AUTO",
  ema_decay: "0",
  target_scale: "YEARS",
  batch_norm: "UPDATE",
  monitor: "VAL_LOSS",
  on_oom: "REDUCE_BATCH",
  checkpoint_interval: "5m",
  shards: "1",
  "dataset.validation_fraction": "0.1",
  "dataset.test_fraction": "0.1",
  "dataset.min_age": "0",
  "dataset.max_age": "120",
  "dataset.max_reject_share": "0.2",
  "dataset.split_grouping": "EXACT",
  "init.kind": "IMAGENET1K_V1",
  "optimizer.learning_rate": "0.0001",
  "optimizer.beta1": "0.9",
  "optimizer.beta2": "0.999",
  "optimizer.epsilon": "1e-8",
  "optimizer.weight_decay": "0",
  "optimizer.kind": "ADAM",
  "optimizer.momentum": "0.9",
  "early_stopping.patience": "0",
  "early_stopping.min_delta": "0",
  "loss.kind": "MSE",
  "loss.beta": "1",
  "schedule.kind": "CONSTANT",
  "schedule.warmup_epochs": "0",
  "schedule.min_factor": "0",
  "schedule.plateau_factor": "0.1",
  "schedule.plateau_patience": "5",
  "augmentation.horizontal_flip": "false",
  "augmentation.min_crop_area": "1",
  "augmentation.brightness": "0",
  "augmentation.contrast": "0",
  "augmentation.saturation": "0",
  "augmentation.erasing": "0",
};

/** Values of the other recipes that differ from the reference. */
const RECIPES: Readonly<Record<string, Values>> = {
  BEST: {
    recipe: "BEST",
    max_epochs: "15",
    trainable: "layer3, layer4, fc",
    ema_decay: "0.998",
    target_scale: "STANDARDISED",
    monitor: "VAL_MAE",
    "init.kind": "STARTER",
    "optimizer.kind": "ADAMW",
    "optimizer.learning_rate": "0.0003",
    "optimizer.weight_decay": "0.05",
    "loss.kind": "SMOOTH_L1",
    "loss.beta": "0.1",
    "schedule.kind": "COSINE",
    "schedule.warmup_epochs": "1",
    "augmentation.horizontal_flip": "true",
    "augmentation.min_crop_area": "0.65",
    "augmentation.brightness": "0.2",
    "augmentation.contrast": "0.2",
    "augmentation.saturation": "0.2",
    "augmentation.erasing": "0.1",
  },
  FAST: {
    recipe: "FAST",
    max_epochs: "5",
    monitor: "VAL_MAE",
    "init.kind": "STARTER",
    "optimizer.kind": "ADAMW",
    "optimizer.learning_rate": "0.001",
    "schedule.kind": "COSINE",
    "augmentation.horizontal_flip": "true",
  },
};

/** Input size of the starter. */
const STARTER_SIZE = "192";
/** Weight decay of AdamW, as in torch.optim. */
const ADAMW_DECAY = "0.01";

/** Defaults of empty fields, given the values of the others. */
export function defaultsFor(values: Values): ReadonlyMap<string, string> {
  const recipe = RECIPES[values["recipe"] ?? ""] ?? {};
  const defaults = new Map(Object.entries({ ...REFERENCE, ...recipe }));
  const effective = (path: string): string => values[path] || defaults.get(path) || "";
  if (effective("init.kind") === "STARTER") {
    defaults.set("input_size", STARTER_SIZE);
    defaults.set("head_bias", "KEEP");
  } else if (effective("init.kind") === "PATH" || values["init.version"]) {
    // A version, or the file of one, has its own.
    defaults.delete("input_size");
    defaults.delete("head_bias");
  }
  if (effective("optimizer.kind") === "ADAMW" && recipe["optimizer.weight_decay"] === undefined) defaults.set("optimizer.weight_decay", ADAMW_DECAY);
  return defaults;
}
