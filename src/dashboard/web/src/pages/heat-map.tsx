/** Explanation of an age: a heat map with its colour bar in years. */
import { useId } from "preact/hooks";
import { largestOf, sumOf } from "../explanation";
import { age as ageText, error } from "../format";
import type { Explanation } from "../gen/visage/v1/prediction_pb";
import { useAddress } from "./prediction-result";

export function HeatMap(props: { image: Blob | undefined; contributions: Explanation | undefined; of: string }) {
  const id = useId();
  const address = useAddress(props.image);
  const { contributions } = props;
  if (!address) return null;
  const largest = contributions ? largestOf(contributions) : 0;
  const sum = contributions ? sumOf(contributions) : 0;
  return (
    <figure class="heat">
      <img src={address} alt={`Heat map of ${props.of}`} aria-describedby={id} />
      <figcaption class="small-text" id={id}>
        {contributions && (
          <>
            <span class="heat-bar" aria-hidden="true" />
            <span class="heat-scale number">
              <span>−{error(largest)}</span>
              <span>0</span>
              <span>+{error(largest)} years per cell</span>
            </span>
            <span class="muted">
              {ageText(contributions.baseYears + sum)} = {ageText(contributions.baseYears)} for any face {sum < 0 ? "−" : "+"} {ageText(Math.abs(sum))} from this image. Warm colours increase the age, cool colours decrease it.
            </span>
          </>
        )}
      </figcaption>
    </figure>
  );
}
