import { describe, expect, it } from "vitest";
import { validationSets } from "../src/live/validation";

const member = (digest: string | undefined, error: number | undefined) => ({ digest, error });

describe("validation sets", () => {
  it("find the lowest error among trainings on the same images", () => {
    const sets = validationSets([member("aaaa11", 20.4), member("aaaa11", 13.5), member("aaaa11", undefined)]);
    expect([sets.count, sets.lowestOf("aaaa11")]).toEqual([1, 13.5]);
  });
  it("never compare errors on different images", () => {
    const sets = validationSets([member("aaaa11", 20.4), member("bbbb22", 3.1), member("aaaa11", 13.5)]);
    expect(sets.count).toBe(2);
    // The only training of its set is not compared with anything.
    expect(sets.lowestOf("bbbb22")).toBeUndefined();
    expect(sets.lowestOf("aaaa11")).toBe(13.5);
    expect([sets.nameOf("aaaa11"), sets.nameOf("bbbb22")]).toEqual(["aaaa", "bbbb"]);
  });
  it("do not compare trainings whose images are unknown", () => {
    const sets = validationSets([member(undefined, 1), member("", 2), member("aaaa11", 3)]);
    expect([sets.count, sets.lowestOf(undefined), sets.lowestOf(""), sets.nameOf(undefined)]).toEqual([1, undefined, undefined, ""]);
  });
});
