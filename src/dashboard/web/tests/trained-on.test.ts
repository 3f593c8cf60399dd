import { describe, expect, it } from "vitest";
import { trainedOnText } from "../src/live/trained-on";

describe("images that were trained on", () => {
  it("are counted in a warning", () => {
    expect(trainedOnText({ images: 56n, trainedOnImages: 47n })).toEqual({ text: "47 of these 56 images were trained on, so the errors on new images are larger.", isWarning: true });
    expect(trainedOnText({ images: 56n, trainedOnImages: 1n }).text).toMatch(/^1 of these 56 images was trained on/);
  });
  it("are reported as none or as unknown", () => {
    expect(trainedOnText({ images: 56n, trainedOnImages: 0n })).toEqual({ text: "None of these 56 images were trained on.", isWarning: false });
    expect(trainedOnText({ images: 56n })).toEqual({ text: "The training images of this version are not recorded, so these images may include some of them.", isWarning: false });
  });
});
