/** Arrangement of the fields of a new training: the important ones first, the others in groups. */
import { TrainingSpecSchema } from "../gen/visage/v1/training_pb";
import type { Role } from "../api/session";
import { type FieldNode, type GroupNode, type Node, type Values, formOf } from "../spec/form";

const NODES = formOf(TrainingSpecSchema);

/** Children of the group of a message. */
function childrenOf(name: string): Node[] {
  return NODES.flatMap((node) => (node.kind === "group" && node.name === name ? node.children : []));
}

function pick(nodes: Node[], paths: string[]): Node[] {
  return paths.flatMap((path) => nodes.filter((node) => node.path === path));
}

export const DATASET_NAME = "dataset.name";
export const DATASET_PATH = "dataset.path";
export const INIT_VERSION = "init.version";
/** Value of `promote`. */
const NEVER = "NEVER";

const DATASET = childrenOf("dataset");
const INIT = childrenOf("init");
const isField = (node: Node | undefined): node is FieldNode => node?.kind === "field";

export const datasetName = DATASET.filter(isField).find(({ path }) => path === DATASET_NAME);
export const datasetPath = DATASET.find(({ path }) => path === DATASET_PATH);
export const initKind = INIT.find(({ path }) => path === "init.kind");
export const initVersion = INIT.filter(isField).find(({ path }) => path === INIT_VERSION);
/** Further fields of the initial weights, for a file. */
export const initFile = INIT.filter(({ path }) => path !== "init.kind" && path !== INIT_VERSION);
export const basics = pick(NODES, ["recipe"]);
export const epochs = pick(NODES, ["max_epochs"]);

const group = (path: string, help: string, children: Node[]): GroupNode => ({ kind: "group", path, name: path, help, children });

export const datasetMore = group(
  "dataset",
  "",
  DATASET.filter(({ path }) => path !== DATASET_NAME && path !== DATASET_PATH),
);

/** Fields of the request beside the spec. */
export const displayName: FieldNode = { kind: "field", path: "display_name", name: "display_name", help: "At most 256 characters.", control: "text", options: [] };
export const trainingId: FieldNode = {
  kind: "field",
  path: "training_id",
  name: "training_id",
  help: "1 to 63 characters of `a-z`, `0-9` and `-`, starting with a letter. Empty: chosen by the server.",
  control: "text",
  options: [],
};

const NETWORK = ["batch_size", "shards", "input_size", "trainable", "head_bias", "batch_norm", "ema_decay", "target_scale", "monitor"];
const VERSION = ["promote", "create_version"];
const LIMITS = ["max_duration", "precision", "feature_cache", "cache_budget_bytes", "checkpoint_interval", "on_oom"];
const SHOWN = new Set(["dataset", "init", "recipe", "max_epochs", ...NETWORK, ...VERSION, ...LIMITS, "restart_policy"]);

/** Title and contents of the folded groups. A new field of the API appears under “Other”. */
export const folds: { title: string; node: GroupNode }[] = [
  { title: "Network and batches", node: group("network", "Batch size, input size and trained layers.", pick(NODES, NETWORK)) },
  ...["optimizer", "schedule", "early_stopping", "augmentation", "loss", "target"].flatMap((name) =>
    NODES.flatMap((node) => (node.kind === "group" && node.name === name ? [{ title: "", node }] : [])),
  ),
  { title: "New version", node: group("version", "Promotion to `live`.", pick(NODES, VERSION)) },
  { title: "Time, memory and restarts", node: group("limits", "Limits, precision, caches and crashes.", [...pick(NODES, LIMITS), ...childrenOf("restart_policy")]) },
  {
    title: "Other",
    node: group(
      "other",
      "Seed of the split.",
      NODES.filter((node) => !SHOWN.has(node.name) && (node.kind !== "group" || !["optimizer", "schedule", "early_stopping", "augmentation", "loss", "target"].includes(node.name))),
    ),
  },
];

/** Role that a start with these values requires, if the identity lacks it; `may` checks a role. */
export function missingRole(values: Values, may: (role: Role) => boolean): Role | undefined {
  const isSet = (path: string): boolean => (values[path] ?? "") !== "";
  const needed: Role[] = ["trainer"];
  if (isSet("promote") && values["promote"] !== NEVER) needed.push("deployer");
  if (isSet(DATASET_PATH) || isSet("init.path")) needed.push("admin");
  return needed.find((role) => !may(role));
}

/** Values without promotion, unless the identity may promote or chose otherwise. */
export function withoutPromotion(values: Values, mayPromote: boolean): Values {
  return mayPromote || (values["promote"] ?? "") !== "" ? values : { ...values, promote: NEVER };
}

/** True if the form has a field of this path, which then shows its violation. */
export function isShown(path: string): boolean {
  const plain = path.replace(/\[\d+\]/g, "[0]");
  const find = (nodes: Node[]): boolean =>
    nodes.some((node) => (node.kind === "field" ? node.path === plain : node.kind === "group" ? find(node.children) : find([node.row(0)])));
  return find(NODES) || [displayName, trainingId].some((node) => node.path === path);
}

/**
 * Path of the field that shows a violation of the request: a whole message is represented by its
 * first field.
 */
export function placeOf(field: string): string {
  const path = field.startsWith("spec.") ? field.slice("spec.".length) : field;
  if (path === "init") return "init.kind";
  if (path === "dataset") return DATASET_PATH;
  return path;
}
