/** Images of an evaluation that the model was trained on. */
import { count } from "../format";
import type { Evaluation } from "../gen/visage/v1/training_pb";

/** Sentence about images of an evaluation that the version was trained on. */
export function trainedOnText(found: Pick<Evaluation, "images" | "trainedOnImages">): { text: string; isWarning: boolean } {
  const { images, trainedOnImages: trained } = found;
  if (trained === undefined) return { text: "The training images of this version are not recorded, so these images may include some of them.", isWarning: false };
  if (trained === 0n) return { text: images === 1n ? "This image was not trained on." : `None of these ${count(images)} images were trained on.`, isWarning: false };
  return { text: `${count(trained)} of these ${count(images)} images ${trained === 1n ? "was" : "were"} trained on, so the errors on new images are larger.`, isWarning: true };
}
