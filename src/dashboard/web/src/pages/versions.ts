/** Shared functions of the pages about model versions. */
import { brief, modelClient } from "../api/clients";
import { shortName } from "../format";
import { type ModelVersion, VersionOrigin } from "../gen/visage/v1/model_pb";
import { views } from "../live/store";

export const MODEL = "models/age";
export const LIVE = "live";
export const PREVIOUS = "previous";

export const versionName = (version: string | bigint): string => `${MODEL}/versions/${version}`;

/** Reads all pages of the list. */
export async function allVersions(signal: AbortSignal): Promise<ModelVersion[]> {
  const versions: ModelVersion[] = [];
  let pageToken = "";
  do {
    const page = await modelClient.listModelVersions({ parent: MODEL, pageSize: 1000, pageToken }, { ...brief, signal });
    versions.push(...page.versions);
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  return versions;
}

/** Changes with every new version, so that lists are refreshed. */
export function versionsMade(): string {
  return (views.value ?? []).map(({ modelVersion }) => modelVersion).join();
}

export const holder = (versions: ModelVersion[] | undefined, alias: string): ModelVersion | undefined => versions?.find(({ aliases }) => aliases.includes(alias));

/** Training that created a version; empty for others. */
export function trainingOf(version: ModelVersion): string {
  return version.checkpoint.split("/")[1] ?? "";
}

export function originText(version: ModelVersion): string {
  if (version.origin === VersionOrigin.STARTER) return "the starter";
  const training = trainingOf(version);
  return training === "" ? "a training of another server" : `training ${shortName(training)}`;
}

/** Size of the files of a version in bytes. */
export function sizeOf(version: ModelVersion): bigint {
  return version.files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0n);
}
