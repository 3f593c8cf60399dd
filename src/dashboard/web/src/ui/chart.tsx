/** A chart with its legend and, for accessibility, its values as a table. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { NOTHING, figure, sentence } from "../format";
import { shade } from "./theme";

/** A curve over the `x` values of the chart. */
export interface Curve {
  label: string;
  values: (number | null)[];
  /** Index in the palette, 1 to 8. */
  colour: number;
}

/** A vertical line at `x`; between two values it belongs to the later one. */
export interface Mark {
  x: number;
  label: string;
}

export interface ChartProps {
  title: string;
  /** Unit of the values. */
  unit: string;
  /** Label of `x`, such as `epoch`. */
  xLabel: string;
  x: number[];
  curves: Curve[];
  /** Vertical marks, such as the best epoch. */
  marks?: Mark[] | undefined;
  /** Values of the legend without a cursor, one per curve. Default: the last values. */
  resting?: { text: string; values: (number | undefined)[] } | undefined;
  height?: number;
  /** True if `x` is in seconds since 1970. */
  isTime?: boolean;
  /** True if the y axis starts at 0. */
  isFromZero?: boolean;
  /** Text shown without values. */
  emptyText?: string;
  format?: (value: number | undefined) => string;
}

/**
 * Maximum number of values for which points are drawn, so that curves of few epochs are visible.
 */
const POINTS_UP_TO = 40;
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];

export function Chart(props: ChartProps) {
  const { x, curves, marks, resting, height = 220, format = figure } = props;
  const holder = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const marking = useRef(marks);
  marking.current = marks;
  const [at, setAt] = useState<number | null>(null);
  const data = useMemo<uPlot.AlignedData>(() => [x, ...curves.map(({ values }) => values)], [x, curves]);
  const shape = JSON.stringify([curves.map(({ label, colour }) => [label, colour]), height, props.isTime, props.isFromZero, shade.value]);
  const hasValues = x.length > 0;

  useEffect(() => {
    const element = holder.current;
    if (!element || !hasValues) return;
    const style = getComputedStyle(document.documentElement);
    const colour = (name: string): string => style.getPropertyValue(name).trim();
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false }, font: `12px ${style.fontFamily}` };
    const chart = new uPlot(
      {
        width: Math.max(element.clientWidth, 50),
        height,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
        scales: {
          x: props.isTime ? { time: true } : { time: false, range: (_, low, high) => (low === high ? [low - 1, high + 1] : [low, high]) },
          y: { range: (_, low, high) => span(low, high, props.isFromZero ?? false) },
        },
        axes: [
          props.isTime ? { ...axis, space: 90, values: (_, ticks) => ticks.map(clock) } : { ...axis, incrs: WHOLE, values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? `${tick}` : "")) },
          { ...axis, size: 56, values: (_, ticks) => ticks.map((tick) => short(tick)) },
        ],
        series: [
          {},
          ...curves.map((curve) => ({
            label: curve.label,
            stroke: colour(`--series-${curve.colour}`),
            width: 2,
            spanGaps: false,
            points: { show: (_: uPlot, __: number, first: number, last: number) => last - first < POINTS_UP_TO, size: 5 },
          })),
        ],
        hooks: {
          setCursor: [(drawn) => setAt(drawn.cursor.idx ?? null)],
          draw: [(drawn) => marking.current?.forEach((one, index) => drawMark(drawn, one, index, colour("--text"), style.fontFamily))],
        },
      },
      data,
      element,
    );
    plot.current = chart;
    const watcher = new ResizeObserver(() => {
      if (element.clientWidth > 0 && element.clientWidth !== chart.width) chart.setSize({ width: element.clientWidth, height });
    });
    watcher.observe(element);
    return () => {
      watcher.disconnect();
      chart.destroy();
      plot.current = null;
    };
    // Later data is set by the next effect.
  }, [shape, hasValues]);

  useEffect(() => {
    plot.current?.setData(data);
  }, [data]);
  useEffect(() => {
    // Without rebuilding paths, because uPlot may not have computed the scales yet.
    plot.current?.redraw(false);
  }, [JSON.stringify(marks)]);

  // Curves of several trainings may end at different epochs; a time series without a current value
  // has none.
  const isRagged = !props.isTime && curves.some(({ values }) => (values.at(-1) ?? null) === null);
  const lastOf = (values: (number | null)[]): number | undefined => (isRagged ? values.findLast((one) => one !== null) : values.at(-1)) ?? undefined;
  const atRest = resting ?? { text: isRagged ? "last values" : "", values: curves.map(({ values }) => lastOf(values)) };
  const valueOf = ({ values }: Curve, index: number): number | undefined => (at === null ? atRest.values[index] : (values[at] ?? undefined));
  const xText = (value: number | undefined): string =>
    value === undefined ? "" : props.isTime ? clock(value) : `${props.xLabel} ${value}`;
  const restText = sentence(atRest.text || `last, at ${xText(x.at(-1))}`);
  const summary = `${props.title}${props.unit && ` in ${props.unit}`}. ${hasValues ? `${restText}: ` : "No values yet."}${
    hasValues ? curves.map(({ label }, index) => `${label} ${format(atRest.values[index])}`).join(", ") : ""
  }${hasValues ? (marks ?? []).map((mark) => `. ${sentence(mark.label)}: ${props.xLabel} ${Math.ceil(mark.x)}`).join("") : ""}.`;
  return (
    <figure class="chart">
      <figcaption>
        <span class="chart-title">
          {props.title} {props.unit && <span class="muted">{props.unit}</span>}
        </span>
        <span class="muted chart-at">{hasValues ? (at === null && atRest.text !== "" ? atRest.text : xText(x[at ?? x.length - 1])) : ""}</span>
        <ul class="legend">
          {curves.map((curve, index) => (
            <li key={index}>
              <span class="swatch" style={{ "--colour": `var(--series-${curve.colour})` } as never} aria-hidden="true" />
              <span class="legend-label">{curve.label}</span> <span class="number">{format(valueOf(curve, index))}</span>
            </li>
          ))}
        </ul>
      </figcaption>
      <div class="plot" style={{ height: `${height}px` }} ref={holder} role="img" aria-label={summary}>
        {!hasValues && <p class="plot-empty muted">{props.emptyText ?? "No values yet."}</p>}
      </div>
      <Figures {...props} xText={(value) => (props.isTime ? xText(value) : `${value}`)} format={format} />
    </figure>
  );
}

/** Values of the chart as a table, rendered on demand. */
function Figures(props: ChartProps & { xText: (value: number) => string; format: (value: number | undefined) => string }) {
  const [isOpen, setOpen] = useState(false);
  const { x, curves, marks } = props;
  return (
    <details class="figures" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        Values <span class="unseen">of {props.title}</span>
      </summary>
      {isOpen && (
        <div class="scroll" role="region" aria-label={`Values of ${props.title}`} tabIndex={0}>
          <table>
            <thead>
              <tr>
                <th scope="col">{props.isTime ? "Time" : props.xLabel}</th>
                {curves.map(({ label }, index) => (
                  <th scope="col" key={index} class="right">
                    {label}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {x.map((value, row) => (
                <tr key={value}>
                  <th scope="row">
                    {props.xText(value)}
                    {marks?.filter((mark) => Math.ceil(mark.x) === value).map(({ label }) => (
                      <span key={label} class="muted">
                        {" "}
                        {label}
                      </span>
                    ))}
                  </th>
                  {curves.map(({ values }, index) => (
                    <td key={index} class="right">
                      {values[row] === null ? NOTHING : props.format(values[row] ?? undefined)}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </details>
  );
}

/** Time of day. */
function clock(seconds: number): string {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}

/** Range of an axis with a margin of a tenth; never empty. */
function span(low: number | null, high: number | null, isFromZero: boolean): [number, number] {
  if (low === null || high === null) return [0, 1];
  const bottom = isFromZero ? Math.min(low, 0) : low;
  const air = (high - bottom) * 0.1 || Math.abs(high) * 0.1 || 1;
  return [isFromZero ? bottom : Math.max(bottom - air, low >= 0 ? 0 : -Infinity), high + air];
}

/** Compact text of a tick. */
function short(value: number): string {
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toFixed(2)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toFixed(1)}k`;
  if (size !== 0 && size < 1e-3) return value.toExponential(0).replace("-", "−");
  return `${+value.toPrecision(6)}`;
}

/** Draws a mark; `row` moves its label down, so that the labels of neighbours do not overlap. */
function drawMark(plot: uPlot, mark: Mark, row: number, colour: string, font: string): void {
  const { ctx, bbox } = plot;
  const ratio = devicePixelRatio;
  const place = plot.valToPos(mark.x, "x", true);
  if (place < bbox.left - 1 || place > bbox.left + bbox.width + 1) return;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = colour;
  ctx.globalAlpha = 0.75;
  ctx.lineWidth = ratio;
  ctx.setLineDash([3 * ratio, 3 * ratio]);
  ctx.beginPath();
  ctx.moveTo(place, bbox.top);
  ctx.lineTo(place, bbox.top + bbox.height);
  ctx.stroke();
  ctx.globalAlpha = 1;
  ctx.font = `${11 * ratio}px ${font}`;
  const isRight = place > bbox.left + bbox.width * 0.8;
  ctx.textAlign = isRight ? "right" : "left";
  ctx.textBaseline = "top";
  ctx.fillText(mark.label, place + (isRight ? -4 : 4) * ratio, bbox.top + (2 + 13 * (row % 3)) * ratio);
  ctx.restore();
}

/** Minimum range of a sparkline relative to its maximum, so that noise is not seen as a trend. */
const SPARK_RANGE = 0.1;

/** A small curve without axes. */
export function Sparkline(props: { values: number[] }) {
  const { values } = props;
  if (values.length < 2) return <svg class="spark" viewBox="0 0 96 28" aria-hidden="true" />;
  const high = Math.max(...values);
  const low = Math.min(...values, high * (1 - SPARK_RANGE));
  const points = values.map((value, index) => `${(2 + (index / (values.length - 1)) * 92).toFixed(1)},${(25 - ((value - low) / (high - low || 1)) * 22).toFixed(1)}`);
  return (
    <svg class="spark" viewBox="0 0 96 28" aria-hidden="true">
      <polyline points={points.join(" ")} />
    </svg>
  );
}
