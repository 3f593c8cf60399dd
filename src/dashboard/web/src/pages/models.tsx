/** List of model versions and the history of their aliases. */
import { brief, modelClient } from "../api/clients";
import { bytes, error, exactMoment, moment } from "../format";
import { type AliasEvent, type ModelVersion, VersionOrigin } from "../gen/visage/v1/model_pb";
import { SETS_TEXT, validationSets } from "../live/validation";
import { useAction, useLoaded } from "../ui/calls";
import { notify } from "../ui/notices";
import { BusyButton, Empty, FailureBox, Loading, PageHead, Panel, Scroll } from "../ui/parts";
import { Lacks, Needs } from "../ui/permission";
import { href } from "../ui/router";
import { StarterButton } from "./starter-button";
import { Aliases } from "./version-aliases";
import { LIVE, MODEL, PREVIOUS, allVersions, holder, originText, sizeOf, versionName, versionsMade } from "./versions";

export function ModelsPage() {
  const made = versionsMade();
  const versions = useLoaded(allVersions, [made]);
  const history = useLoaded(async (signal) => (await modelClient.listAliasEvents({ parent: MODEL, pageSize: 100 }, { ...brief, signal })).events, [made]);
  const live = holder(versions.value, LIVE);
  const previous = holder(versions.value, PREVIOUS);
  const sets = validationSets((versions.value ?? []).map(({ valDigest, metrics }) => ({ digest: valDigest, error: metrics?.valMae })));
  const hasStarter = versions.value?.some(({ origin }) => origin === VersionOrigin.STARTER) ?? true;
  const again = (): void => {
    versions.again();
    history.again();
  };
  const rollBack = useAction(async () => {
    // Fails if `live` was moved concurrently.
    const { version, fromVersion } = await modelClient.setAlias({ name: versionName(PREVIOUS), alias: LIVE, expectedVersion: live?.version ?? 0n }, brief);
    notify(`Rolled back: live is version ${version?.version}, previous is version ${fromVersion || live?.version}.`);
    again();
  });
  return (
    <>
      <PageHead title="Models" lead={live ? `Version ${live.version} is live: Predict uses it by default.` : versions.value ? "No version is live: Predict has no model." : undefined}>
        <Needs role="deployer" hide>
          <BusyButton isBusy={rollBack.isRunning} disabled={!previous || previous === live} title={previous ? undefined : "There is no previous live version"} onClick={() => void rollBack.run()}>
            Roll back{previous && previous !== live ? ` to version ${previous.version}` : ""}
          </BusyButton>
        </Needs>
        {!hasStarter && versions.value && versions.value.length > 0 && <StarterButton hasLive={live !== undefined} onDone={again} />}
      </PageHead>
      <Lacks role="deployer" what="Promotion, rollback and changes of aliases need" />
      <FailureBox failure={rollBack.failure} />
      <FailureBox failure={versions.failure} retry={versions.again} />
      {!versions.value && !versions.failure && <Loading what="model versions" />}
      {versions.value?.length === 0 && (
        <Empty title="No model versions yet">
          <p>
            Predictions need a version. The starter is a face model that is built into the server; the best epoch of a training becomes a version of your own.
          </p>
          <div class="actions">
            <StarterButton hasLive={false} isPrimary onDone={again} />
            <Needs role="trainer" hide>
              <a class="button" href={href("start")}>
                New training
              </a>
            </Needs>
          </div>
        </Empty>
      )}
      {versions.value && versions.value.length > 0 && (
        <>
          {sets.count > 1 && <p class="muted small-text">{SETS_TEXT}</p>}
          <ul class="cards">
            {versions.value.map((version) => (
              <VersionCard key={version.name} version={version} live={live} set={sets.count > 1 ? sets.nameOf(version.valDigest) : ""} onChange={again} />
            ))}
          </ul>
        </>
      )}
      {history.failure && <FailureBox failure={history.failure} retry={history.again} />}
      {history.value && history.value.length > 0 && (
        <Panel title="Alias history">
          <History events={history.value} />
        </Panel>
      )}
    </>
  );
}

function VersionCard(props: { version: ModelVersion; live: ModelVersion | undefined; set: string; onChange: () => void }) {
  const { version } = props;
  return (
    <li class="card version" data-version={String(version.version)}>
      <div class="card-name">
        <a href={href("models", String(version.version))}>Version {String(version.version)}</a>
        <span class="muted small-text">
          {moment(version.createTime)}, from {originText(version)}
        </span>
        <span class="muted small-text">{bytes(sizeOf(version))}</span>
      </div>
      <Aliases version={version} live={props.live} onChange={props.onChange} />
      <Figure label="Validation MAE" value={version.metrics?.valMae} set={props.set} />
      <Figure label="Validation RMSE" value={version.metrics?.valRmse} />
      <Figure label="Test MAE" value={version.test?.mae} />
    </li>
  );
}

function Figure(props: { label: string; value: number | undefined; set?: string }) {
  return (
    <div class="card-figure">
      <span class="muted small-text">{props.label}</span>
      <span class="number">
        {error(props.value)} {props.value !== undefined && <span class="muted small-text">years</span>}
      </span>
      {props.set && props.value !== undefined && (
        <span class="muted small-text" title="Validation set">
          set {props.set}
        </span>
      )}
    </div>
  );
}

function History({ events }: { events: AliasEvent[] }) {
  const version = (number: bigint) => (number === 0n ? <span class="muted">none</span> : String(number));
  return (
    <Scroll label="Alias history">
      <table>
        <thead>
          <tr>
            <th scope="col">Time</th>
            <th scope="col">Alias</th>
            <th scope="col" class="right">From</th>
            <th scope="col" class="right">To</th>
            <th scope="col">Cause</th>
          </tr>
        </thead>
        <tbody>
          {events.map((event, index) => (
            <tr key={index}>
              <td class="number">{exactMoment(event.eventTime)}</td>
              <td>{event.alias}</td>
              <td class="right">{version(event.fromVersion)}</td>
              <td class="right">{version(event.toVersion)}</td>
              <td>{event.cause}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}
