import { describe, expect, it } from "vitest";
import { parseMetrics, quantile, rate, total, type Reading } from "../src/metrics/prometheus";

const reading = (time: number, text: string): Reading => ({ time, samples: parseMetrics(text) });

describe("Prometheus' text format", () => {
  // One line for each rule of https://prometheus.io/docs/instrumenting/exposition_formats/.
  const text = [
    "# HELP calls_total Calls that ended.",
    "# TYPE calls_total counter",
    'calls_total{method="Predict",code="ok"} 1027 1395066363000',
    'calls_total{method="Predict",code="not_found"}    3 1395066363000',
    "",
    'file_seconds{path="C:\\\\DIR",said="no file:\\n\\"A.TXT\\""} 1.5e9',
    "plain 12.47",
    'odd{why="a sum over zero"} +Inf -3982045',
    'a_gauge{braces="}{",} NaN',
  ].join("\n");

  it("is read with escapes, time stamps and infinities", () => {
    expect(parseMetrics(text)).toEqual([
      { name: "calls_total", labels: { method: "Predict", code: "ok" }, value: 1027 },
      { name: "calls_total", labels: { method: "Predict", code: "not_found" }, value: 3 },
      { name: "file_seconds", labels: { path: "C:\\DIR", said: 'no file:\n"A.TXT"' }, value: 1500000000 },
      { name: "plain", labels: {}, value: 12.47 },
      { name: "odd", labels: { why: "a sum over zero" }, value: Infinity },
      { name: "a_gauge", labels: { braces: "}{" }, value: NaN },
    ]);
  });

  it("is summed over the selected series", () => {
    const now = reading(0, text);
    expect(total(now, "calls_total")).toBe(1030);
    expect(total(now, "calls_total", ({ code }) => code === "not_found")).toBe(3);
    expect(total(now, "absent")).toBeUndefined();
  });

  it("skips malformed lines", () => {
    expect(parseMetrics('open{a="1" 3\n{} 4\nname\nfine 1')).toEqual([{ name: "fine", labels: {}, value: 1 }]);
  });
});

describe("two scrapes", () => {
  it("give a rate, also across a restart of the server", () => {
    const before = reading(10_000, 'calls{m="a"} 100\ncalls{m="b"} 50');
    const after = reading(20_000, 'calls{m="a"} 120\ncalls{m="b"} 10\ncalls{m="new"} 5');
    // 20 more of a; b was reset and has 10; 5 of a new series: 35 in 10 s.
    expect(rate(before, after, "calls")).toBe(3.5);
    expect(rate(after, after, "calls")).toBe(0);
  });

  it("give linearly interpolated quantiles, as histogram_quantile does", () => {
    const before = reading(0, 't_bucket{le="0.1"} 5\nt_bucket{le="0.5"} 5\nt_bucket{le="1"} 5\nt_bucket{le="+Inf"} 5');
    const after = reading(1, 't_bucket{le="0.1"} 9\nt_bucket{le="0.5"} 13\nt_bucket{le="1"} 13\nt_bucket{le="+Inf"} 15');
    // 4 observations up to 0.1, 4 more up to 0.5, 2 beyond 1. The median is the fifth: a quarter of
    // the way from 0.1 to 0.5.
    expect(quantile(0.5, before, after, "t")).toBeCloseTo(0.2, 10);
    expect(quantile(0.2, before, after, "t")).toBeCloseTo(0.05, 10);
    expect(quantile(0.99, before, after, "t")).toBe(1);
    expect(quantile(0.5, after, after, "t")).toBeUndefined();
  });

  it("sum the buckets of several series", () => {
    const before = reading(0, "");
    const after = reading(1, 't_bucket{m="a",le="1"} 2\nt_bucket{m="a",le="+Inf"} 2\nt_bucket{m="b",le="1"} 0\nt_bucket{m="b",le="+Inf"} 2');
    expect(quantile(0.25, before, after, "t")).toBeCloseTo(0.5, 10);
    expect(quantile(0.25, before, after, "t", ({ m }) => m === "a")).toBeCloseTo(0.25, 10);
  });
});
