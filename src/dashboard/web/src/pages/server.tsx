/** Server page: readiness, load, information and limits. */
import { useEffect, useMemo, useState } from "preact/hooks";
import { brief, fetchPage, systemClient } from "../api/clients";
import { type Failure, failureOf } from "../api/errors";
import { bytes, count, exactMoment, millis, seconds, shortName, span } from "../format";
import { type Point, methodsOf, useMetrics } from "../metrics/watch";
import { may } from "../live/session";
import { useLoaded } from "../ui/calls";
import { Chart, type Curve } from "../ui/chart";
import { FailureBox, Facts, Loading, Name, PageHead, Panel, Scroll } from "../ui/parts";
import { Lacks } from "../ui/permission";
import { href } from "../ui/router";

const MIB = 1 << 20;

/** Response of `/readyz`. */
interface Readiness {
  ready: boolean;
  /** Absent without the role `metrics`. */
  components?: { name: string; ready: boolean; detail: string }[];
}
const READINESS_EVERY_MS = 5_000;

function useReadiness(): { readiness: Readiness | undefined; failure: Failure | undefined } {
  const [state, setState] = useState<{ readiness: Readiness | undefined; failure: Failure | undefined }>({ readiness: undefined, failure: undefined });
  useEffect(() => {
    const abort = new AbortController();
    const read = async (): Promise<void> => {
      try {
        // A 503 has the same body.
        const response = await fetchPage("readyz", abort.signal);
        setState({ readiness: (await response.json()) as Readiness, failure: undefined });
      } catch (error) {
        if (!abort.signal.aborted) setState({ readiness: undefined, failure: failureOf(error, "Reading ./readyz") });
      }
    };
    void read();
    const timer = setInterval(() => void read(), READINESS_EVERY_MS);
    return () => {
      abort.abort();
      clearInterval(timer);
    };
  }, []);
  return state;
}

export function ServerPage() {
  const info = useLoaded((signal) => systemClient.getServerInfo({}, { ...brief, signal }), []);
  const { readiness, failure } = useReadiness();
  const metrics = useMetrics();
  const { value } = info;
  const methods = useMemo(() => (metrics.latest ? methodsOf(metrics.latest) : []), [metrics.latest]);
  const started = metrics.latest?.samples.find(({ name }) => name === "process_start_time_seconds")?.value;
  useEffect(() => {
    // After a restart, version and limits may have changed.
    if (started !== undefined && value?.startTime && Math.abs(started * 1000 - millis(value.startTime)) > 5_000) info.again();
  }, [started]);
  return (
    <>
      <PageHead title="Server" lead={value && `Visage ${value.version} on ${value.device}, since ${exactMoment(value.startTime)}`} />
      <Panel title="Readiness">
        <FailureBox failure={failure} />
        {!readiness && !failure && <Loading what="readiness" />}
        {readiness && !readiness.components && (
          <p>
            <span class={`chip ${readiness.ready ? "good" : "bad"}`}>{readiness.ready ? "ready" : "not ready"}</span>
          </p>
        )}
        {readiness && !readiness.components && <Lacks role="metrics" what="Details need" />}
        {readiness?.components && (
          <ul class="plain readiness">
            {readiness.components.map(({ name, ready, detail }) => (
              <li key={name}>
                <span class={`chip ${ready ? "good" : "bad"}`}>{ready ? "ready" : "not ready"}</span> <strong>{name}</strong> <span class="muted">{detail}</span>
              </li>
            ))}
          </ul>
        )}
      </Panel>
      {may("metrics") ? (
        <Busyness points={metrics.points} failure={metrics.failure} />
      ) : (
        <Panel title="Load">
          <Lacks role="metrics" what="Metrics need" />
        </Panel>
      )}
      <Panel title="Details">
        <FailureBox failure={info.failure} retry={info.again} />
        {!value && !info.failure && <Loading what="the server’s description" />}
        {value && (
          <Facts
            items={[
              ["Version", value.version],
              ["libtorch", value.libtorchVersion],
              ["Device", value.device],
              ["Compute threads", count(value.threads)],
              ["Live model", value.liveModel ? <a href={href("models", shortName(value.liveModel))}>version {shortName(value.liveModel)}</a> : "none"],
              ["Features", value.features.join(", ")],
              ["Data roots", <Paths paths={value.dataRoots} />],
              ["Weights roots", <Paths paths={value.weightsRoots} />],
            ]}
          />
        )}
      </Panel>
      {value?.disk && (
        <Panel title="Disk">
          <Facts
            items={[
              ["Free", bytes(value.disk.freeBytes)],
              ["Checkpoints and versions", bytes(value.disk.artifactsBytes)],
              ["Uploaded datasets", bytes(value.disk.datasetsBytes)],
              ["Uploads not yet used", bytes(value.disk.uploadsBytes)],
            ]}
          />
          <p class="muted">
            Space becomes free when <a href={href("models")}>versions</a>, ended <a href={href("trainings")}>trainings</a> or uploaded <a href={href("datasets")}>datasets</a> are deleted.
          </p>
        </Panel>
      )}
      {value?.limits && (
        <Panel title="Limits">
          <Facts
            items={[
              ["Largest request", bytes(value.limits.maxMessageBytes)],
              ["Largest upload", bytes(value.limits.maxUploadBytes)],
              ["Largest image", `${bytes(value.limits.maxImageBytes)}, ${count(value.limits.maxImagePixels)} pixels`],
              ["Images per request", count(value.limits.maxImagesPerRequest)],
              ["Queued images", count(value.limits.maxQueuedImages)],
              ["Queued trainings", count(value.limits.maxQueuedTrainings)],
              ["Heartbeat interval", value.limits.heartbeatInterval && span(seconds(value.limits.heartbeatInterval))],
            ]}
          />
        </Panel>
      )}
      {methods.length > 0 && (
        <Panel title="Calls since the start">
          <Scroll label="Calls by method">
            <table>
              <thead>
                <tr>
                  <th scope="col">Method</th>
                  <th scope="col" class="right">Calls</th>
                  <th scope="col" class="right">Failed</th>
                  <th scope="col" class="right">Running</th>
                </tr>
              </thead>
              <tbody>
                {methods.map((one) => (
                  <tr key={one.method}>
                    <th scope="row">
                      <Name text={one.method.replace("visage.v1.", "")} />
                    </th>
                    <td class="right">{count(one.calls)}</td>
                    <td class="right">{count(one.faults)}</td>
                    <td class="right">{count(one.inFlight)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Scroll>
          <p class="muted">
            All metrics for Prometheus are at <a href="./metrics">./metrics</a>.
          </p>
        </Panel>
      )}
    </>
  );
}

function Paths({ paths }: { paths: string[] }) {
  return (
    <>
      {paths.map((path) => (
        <code key={path} class="path">
          {path}
        </code>
      ))}
    </>
  );
}

function Busyness(props: { points: Point[]; failure: Failure | undefined }) {
  const { points } = props;
  const charts = useMemo(() => {
    const curve = (label: string, colour: number, of: (point: Point) => number | undefined): Curve => ({ label, colour, values: points.map((point) => of(point) ?? null) });
    const scaled = (value: number | undefined, factor: number) => (value === undefined ? undefined : value * factor);
    return {
      x: points.map(({ time }) => time),
      calls: [curve("Calls", 1, ({ calls }) => calls), curve("Failed", 6, ({ faults }) => faults)],
      latency: [curve("Median", 1, ({ p50 }) => scaled(p50, 1000)), curve("99 %", 2, ({ p99 }) => scaled(p99, 1000))],
      images: [curve("Images", 4, ({ images }) => images), curve("Waiting", 5, ({ queued }) => queued)],
      memory: [curve("Server", 3, ({ memory }) => scaled(memory, 1 / MIB))],
    };
  }, [points]);
  const common = { xLabel: "time", x: charts.x, height: 140, isTime: true, isFromZero: true, emptyText: "Waiting for the first values." };
  return (
    <Panel title="Load" actions={<span class="muted">last five minutes at most</span>}>
      <FailureBox failure={props.failure} />
      <div class="charts four">
        <Chart {...common} title="Calls" unit="per second" curves={charts.calls} />
        <Chart {...common} title="Latency" unit="ms, unary calls" curves={charts.latency} />
        <Chart {...common} title="Predictions" unit="images/s, images" curves={charts.images} />
        <Chart {...common} title="Memory" unit="MiB" curves={charts.memory} />
      </div>
    </Panel>
  );
}
