/** Button that registers the starter, the model that is built into the server. */
import { brief, modelClient } from "../api/clients";
import { useAction } from "../ui/calls";
import { notify } from "../ui/notices";
import { BusyButton, FailureBox } from "../ui/parts";
import { Needs } from "../ui/permission";
import { LIVE, versionName } from "./versions";

/** Registers the starter, and makes it live if no version is. */
export function StarterButton(props: { hasLive: boolean; isPrimary?: boolean; onDone: () => void }) {
  const register = useAction(async () => {
    const { version } = await modelClient.registerVersion({ starter: true }, brief);
    if (!version) return;
    const isLive = version.aliases.includes(LIVE);
    if (!props.hasLive && !isLive) await modelClient.setAlias({ name: versionName(version.version), alias: LIVE, expectedVersion: 0n }, brief);
    notify(props.hasLive ? `Registered the starter as version ${version.version}.` : `Version ${version.version}, the starter, is live.`);
    props.onDone();
  });
  return (
    <>
      {/* The first version becomes live. */}
      <Needs role={props.hasLive ? "trainer" : "deployer"}>
        <BusyButton class={props.isPrimary ? "primary" : ""} isBusy={register.isRunning} busyText="Loading the starter…" onClick={() => void register.run()}>
          Register the starter
        </BusyButton>
      </Needs>
      <FailureBox failure={register.failure} />
    </>
  );
}
