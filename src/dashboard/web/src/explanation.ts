/** Sums over the cells of an explanation. */
import type { Explanation } from "./gen/visage/v1/prediction_pb";

/** Largest contribution of a cell, which has the full colour. */
export function largestOf(contributions: Pick<Explanation, "years">): number {
  return contributions.years.reduce((largest, years) => Math.max(largest, Math.abs(years)), 0);
}

/** Contribution of the whole image: the sum of its cells. */
export function sumOf(contributions: Pick<Explanation, "years">): number {
  return contributions.years.reduce((sum, years) => sum + years, 0);
}
