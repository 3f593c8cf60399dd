/**
 * Labels, help and choices of the settings of a training, for people who do not read the API. A
 * field without an entry here is shown with its name and its comment in the proto file.
 */

/** Text of a field. */
export interface FieldText {
  label: string;
  help: string;
  /** Names of the choices, by enum value. */
  choices?: Readonly<Record<string, string>>;
}

const FIELDS: Readonly<Record<string, FieldText>> = {
  display_name: { label: "Display name", help: "Shown in the lists instead of the id." },
  training_id: { label: "Training id", help: "1 to 63 characters of `a-z`, `0-9` and `-`, starting with a letter." },
  recipe: {
    label: "Recipe",
    help: "Values of all empty settings. Best: lowest error, takes longer. Fast: a first model within minutes. Reference: the last layers, 10 epochs, from ImageNet's weights.",
    choices: { REFERENCE: "Reference", BEST: "Best", FAST: "Fast" },
  },
  max_epochs: { label: "Epochs", help: "Passes over the training images." },
  batch_size: { label: "Batch size", help: "Images per step, 1 to 4,096. Halve it if memory runs out." },
  input_size: { label: "Input size", help: "Images are scaled to this width and height in pixels, 32 to 1,024." },
  trainable: { label: "Trained layers", help: "Layers to train, separated by commas, such as `layer4, fc`; `ALL` trains the whole network." },
  seed: { label: "Seed", help: "Same seed, same split and same result." },
  promote: {
    label: "Promotion",
    help: "Condition for making the new version `live`, so that Predict uses it.",
    choices: { IF_BETTER: "If it is better than the live version", ALWAYS: "Always", NEVER: "Never" },
  },
  create_version: { label: "Create a version", help: "With No, only the checkpoint is kept; a version can be created from it later." },
  head_bias: {
    label: "First guess",
    help: "Output of the new last layer before the first step.",
    choices: { MEAN_AGE: "Mean age of the training images", KEEP: "As in the initial weights" },
  },
  max_duration: { label: "Time limit", help: "The training stops after this time and keeps its best epoch, such as `2h` or `30m`." },
  feature_cache: {
    label: "Feature cache",
    help: "Place for the outputs of the frozen layers, which make later epochs faster. The result does not change.",
    choices: { AUTO: "Automatic", OFF: "None", MEMORY: "Memory", DISK: "Disk", DEVICE: "GPU memory" },
  },
  cache_budget_bytes: { label: "Cache limit", help: "Largest size of the feature cache in bytes." },
  precision: { label: "Precision", help: "Number format of the convolutions. Automatic is the fastest one that the processor supports.", choices: { AUTO: "Automatic", F32: "32 bits", BF16: "16 bits (bfloat16)" } },
  ema_decay: { label: "Weight averaging", help: "Decay of a moving average of the weights, such as 0.998; 0 is off." },
  target_scale: { label: "Age scale", help: "Scale of the ages during the training; predictions are always in years.", choices: { YEARS: "Years", STANDARDISED: "Standard deviations from the mean" } },
  batch_norm: { label: "Batch normalisation", help: "Statistics of trained layers.", choices: { UPDATE: "Update from the images", FROZEN: "Keep those of the initial weights" } },
  monitor: { label: "Best epoch by", help: "Validation error that selects the best epoch.", choices: { VAL_LOSS: "Mean squared error", VAL_RMSE: "Root mean squared error", VAL_MAE: "Mean absolute error" } },
  on_oom: { label: "When memory runs out", help: "", choices: { REDUCE_BATCH: "Halve the batch size and continue", FAIL: "Fail" } },
  shards: { label: "Shards", help: "Parts of each batch that processes can compute side by side: 1, 2, 4 up to 64." },
  checkpoint_interval: { label: "Checkpoint interval", help: "Largest amount of work that is repeated after a crash: 1 s to 1 day." },

  dataset: { label: "More about the dataset", help: "Shares of the split, accepted ages, and the place of the age." },
  "dataset.path": { label: "Directory or manifest", help: "On the server: a directory of images whose names start with the age (`34_anna.jpg`), or a CSV file with the columns `path` and `age`." },
  "dataset.name": { label: "Dataset", help: "A dataset of the Datasets page, or a directory on the server." },
  "dataset.validation_fraction": { label: "Validation share", help: "Share of images that measure each epoch, 0 to 0.9, unless the dataset defines its split." },
  "dataset.test_fraction": { label: "Test share", help: "Share of images for the final test, 0 to 0.9, unless the dataset defines its split." },
  "dataset.min_age": { label: "Lowest age", help: "Images of younger people are rejected." },
  "dataset.max_age": { label: "Highest age", help: "Images of older people are rejected." },
  "dataset.max_reject_share": { label: "Tolerated rejects", help: "The training fails if a larger share of the files is unusable, 0 to 1." },
  "dataset.split_grouping": { label: "Keep together", help: "Images that never end up in different splits.", choices: { EXACT: "Identical images", NEAR: "Similar images (slower scan)" } },
  "dataset.age_pattern": {
    label: "Age pattern",
    help: "For file names that do not start with the age: `agedb`, `morph`, `fgnet`, `cacd`, `afad`, `directory` (one directory per age), or a regular expression with a group `age`, such as `_(?<age>\\d+)\\.`.",
  },
  "dataset.columns": { label: "Columns of the manifest", help: "For other headings than `path`, `age` and `split`." },
  "dataset.columns.path": { label: "Column of the path", help: "Heading of the column with the image files." },
  "dataset.columns.age": { label: "Column of the age", help: "Heading of the column with the age in years." },
  "dataset.columns.split": { label: "Column of the split", help: "Heading of the column with `train`, `validation` or `test`." },

  init: { label: "Initial weights", help: "" },
  "init.kind": {
    label: "Start from",
    help: "ImageNet's weights need a file or a download; the built-in face model (STARTER) needs neither.",
    choices: { IMAGENET1K_V1: "ImageNet's weights", STARTER: "Built-in face model", PATH: "A version or a file", RANDOM: "Random weights" },
  },
  "init.version": { label: "Version", help: "Version to continue from." },
  "init.path": { label: "Weights file", help: "`.pth` or `.safetensors` file on the server, if no version is selected." },
  "init.key": { label: "Key in the file", help: "For a file with several networks, such as `model_ema`." },

  optimizer: { label: "Optimizer", help: "Learning rate, update rule and weight decay." },
  "optimizer.learning_rate": { label: "Learning rate", help: "Size of the steps, above 0. Too high diverges, too low learns slowly." },
  "optimizer.beta1": { label: "Beta 1", help: "Decay of Adam's first moment, 0 to below 1." },
  "optimizer.beta2": { label: "Beta 2", help: "Decay of Adam's second moment, 0 to below 1." },
  "optimizer.epsilon": { label: "Epsilon", help: "Added to Adam's denominator, above 0." },
  "optimizer.weight_decay": { label: "Weight decay", help: "Pulls weights towards 0, against overfitting; at least 0." },
  "optimizer.kind": { label: "Update rule", help: "", choices: { ADAM: "Adam", ADAMW: "AdamW", SGD: "SGD with momentum" } },
  "optimizer.momentum": { label: "Momentum", help: "For SGD only, 0 to below 1." },
  "optimizer.max_gradient_norm": { label: "Gradient limit", help: "Larger gradients are scaled down to this norm, above 0. Empty: no limit." },
  "optimizer.groups": { label: "Learning rates per layer", help: "Factors on the learning rate by prefix of the parameter name, such as `layer4`." },
  "optimizer.groups.prefix": { label: "Prefix", help: "Start of the parameter names, such as `layer4`." },
  "optimizer.groups.factor": { label: "Factor", help: "Multiplies the learning rate; 0 leaves it unchanged." },

  early_stopping: { label: "Early stopping", help: "Ends the training when the validation error no longer improves." },
  "early_stopping.patience": { label: "Patience", help: "Epochs without improvement before stopping; 0 is off." },
  "early_stopping.min_delta": { label: "Smallest improvement", help: "Smaller improvements do not count." },

  loss: { label: "Loss", help: "Error that the training minimises. Validation always reports the mean squared error." },
  "loss.kind": { label: "Loss", help: "", choices: { MSE: "Mean squared error", SMOOTH_L1: "Smooth L1: less weight on large errors", L1: "Mean absolute error" } },
  "loss.beta": { label: "Beta", help: "For smooth L1: errors below this are squared, above 0." },

  schedule: { label: "Learning rate schedule", help: "Course of the learning rate over the epochs." },
  "schedule.kind": { label: "Schedule", help: "", choices: { CONSTANT: "Constant", COSINE: "Cosine, falling to the end", PLATEAU: "Lowered when the error stops improving" } },
  "schedule.warmup_epochs": { label: "Warm-up", help: "Epochs in which the learning rate rises from near 0; fractions are allowed." },
  "schedule.min_factor": { label: "Final factor", help: "Learning rate at the end relative to the start, 0 to 1." },
  "schedule.plateau_factor": { label: "Plateau factor", help: "Multiplies the learning rate on a plateau, between 0 and 1." },
  "schedule.plateau_patience": { label: "Plateau patience", help: "Epochs without improvement before the learning rate is lowered." },

  augmentation: { label: "Augmentation", help: "Random changes of the training images, against overfitting." },
  "augmentation.horizontal_flip": { label: "Mirror", help: "Mirrors half of the images." },
  "augmentation.min_crop_area": { label: "Smallest crop", help: "Smallest share of the image that a random crop keeps, above 0 to 1; 1 is off." },
  "augmentation.brightness": { label: "Brightness", help: "Largest change, 0 to 1." },
  "augmentation.contrast": { label: "Contrast", help: "Largest change, 0 to 1." },
  "augmentation.saturation": { label: "Saturation", help: "Largest change, 0 to 1." },
  "augmentation.erasing": { label: "Erasing", help: "Share of images in which a rectangle is erased, 0 to 1." },

  target: { label: "Target", help: "Ends the training as soon as an error is small enough." },
  "target.metric": { label: "Error", help: "", choices: { VAL_LOSS: "Mean squared error", VAL_RMSE: "Root mean squared error", VAL_MAE: "Mean absolute error" } },
  "target.value": { label: "Target value", help: "In years, or squared years for the mean squared error." },

  restart_policy: { label: "After a crash", help: "A training continues from its last checkpoint after a crash of the server." },
  "restart_policy.max_restarts": { label: "Restarts", help: "Consecutive restarts without progress before it fails; 0 fails at once." },
};

/** Text of a field by its path, where `[n]` is ignored; undefined for fields without one. */
export function textOf(path: string): FieldText | undefined {
  return FIELDS[path.replace(/\[\d+\]/g, "")];
}

/** Label of a field, from its name if it has no text. */
export function labelOf(path: string): string {
  const known = textOf(path)?.label;
  if (known) return known;
  const name = path.slice(path.lastIndexOf(".") + 1).replaceAll("_", " ");
  return name.charAt(0).toUpperCase() + name.slice(1);
}

/** Paths with a text, for tests. */
export const textPaths = (): string[] => Object.keys(FIELDS);
