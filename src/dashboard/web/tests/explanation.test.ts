import { expect, it } from "vitest";
import { largestOf, sumOf } from "../src/explanation";

it("scales an explanation by its largest contribution of either sign", () => {
  const years = [1.5, -2.5, 0.25, 0];
  expect([largestOf({ years }), sumOf({ years }), largestOf({ years: [] }), sumOf({ years: [] })]).toEqual([2.5, -0.75, 0, 0]);
});
