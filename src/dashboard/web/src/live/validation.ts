/** Comparability of validation errors: only errors on the same validation images are comparable. */

/** Length of the shown prefix of a digest. */
const SHOWN = 4;

/** Validation sets of several trainings or versions, by the digests of their images. */
export interface ValidationSets {
  /** Number of different sets. */
  count: number;
  /** Name of a set such as `3f2a`; empty if its digest is unknown. */
  nameOf: (digest: string | undefined) => string;
  /** Lowest error of a set with at least two members; undefined for others. */
  lowestOf: (digest: string | undefined) => number | undefined;
}

/** Groups errors by validation set; members without a digest are not comparable with any other. */
export function validationSets(members: { digest: string | undefined; error: number | undefined }[]): ValidationSets {
  const errors = new Map<string, number[]>();
  for (const { digest, error } of members) {
    if (!digest) continue;
    const known = errors.get(digest) ?? [];
    if (error !== undefined) known.push(error);
    errors.set(digest, known);
  }
  return {
    count: errors.size,
    nameOf: (digest) => (digest ?? "").slice(0, SHOWN),
    lowestOf: (digest) => {
      const known = errors.get(digest ?? "") ?? [];
      return known.length > 1 ? Math.min(...known) : undefined;
    },
  };
}

/** Explanation of the marks of several sets. */
export const SETS_TEXT = "Errors are comparable only within the same validation set, which is named after the digest of its images.";
