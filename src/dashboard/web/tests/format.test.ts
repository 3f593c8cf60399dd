import { describe, expect, it } from "vitest";
import { create } from "@bufbuild/protobuf";
import { DurationSchema } from "@bufbuild/protobuf/wkt";
import { age, bytes, count, error, figure, parseDuration, pieces, plural, signed, span, typedDuration, yearsOld } from "../src/format";

describe("formatting", () => {
  it("shows numbers with decimals by magnitude", () => {
    expect([580.8863, 5.8863, 0.58863, 1e-4, 0, 12345.6, NaN, -3.456].map(figure)).toEqual(["580.9", "5.89", "0.5886", "1.00e−4", "0", "12,346", "–", "−3.46"]);
  });
  it("groups counts and shows sizes in units", () => {
    expect([count(999), count(1234567n)]).toEqual(["999", "1,234,567"]);
    expect([bytes(46_830_571), bytes(512), bytes(999_950n), bytes(1_500)]).toEqual(["44.7 MiB", "512 B", "976.5 KiB", "1.5 KiB"]);
  });
  it("shows errors with two decimals as on the command line, and ages with one", () => {
    expect([20.4416, 0.58863, -0.004, 1234.5, undefined, NaN].map(error)).toEqual(["20.44", "0.59", "0.00", "1,234.50", "–", "–"]);
    expect([4.126, -24.68, 0, -0.004].map(signed)).toEqual(["+4.13", "−24.68", "0.00", "0.00"]);
    expect([32.64, 0].map(age)).toEqual(["32.6", "0.0"]);
  });
  it("counts in the singular and the plural", () => {
    expect([plural(1, "image"), plural(2n, "image"), plural(0, "field"), yearsOld(1), yearsOld(34)]).toEqual(["1 image", "2 images", "0 fields", "1 year", "34 years"]);
  });
  it("shows durations in their two largest units", () => {
    expect([0.25, 5.24, 61, 3600, 7500, 90_061].map(span)).toEqual(["250 ms", "5.2 s", "1 min 1 s", "1 h", "2 h 5 min", "1 d 1 h"]);
  });
  it("splits long names between words", () => {
    expect(pieces("early_stopping.min_delta")).toEqual(["early_", "stopping.", "min_", "delta"]);
    expect(pieces("ModelService/SetAlias")).toEqual(["Model", "Service/", "Set", "Alias"]);
    expect(pieces("/tmp/a-b")).toEqual(["/", "tmp/", "a-", "b"]);
  });
});

describe("typed durations", () => {
  const duration = (seconds: bigint, nanos = 0) => create(DurationSchema, { seconds, nanos });
  it("are parsed from hours, minutes and seconds", () => {
    expect(["90", "90s", "1.5s", "5m", "1h30m", "2d", "soon", "", "-5s"].map(parseDuration)).toEqual([
      { seconds: 90n, nanos: 0 }, { seconds: 90n, nanos: 0 }, { seconds: 1n, nanos: 500_000_000 }, { seconds: 300n, nanos: 0 },
      { seconds: 5400n, nanos: 0 }, { seconds: 172_800n, nanos: 0 }, undefined, undefined, undefined,
    ]);
  });
  it("are written in the format that is parsed", () => {
    expect([duration(300n), duration(5400n), duration(90n), duration(0n), duration(1n, 500_000_000), duration(3601n)].map(typedDuration)).toEqual(["5m", "1h30m", "1m30s", "0s", "1.5s", "1h1s"]);
  });
});
