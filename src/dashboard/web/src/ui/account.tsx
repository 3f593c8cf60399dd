/** Menu of the identity: its name, its roles and the logout. */
import { useRef } from "preact/hooks";
import { ROLES } from "../api/session";
import { logOut, session } from "../live/session";
import { useAction } from "./calls";
import { BusyButton, FailureBox } from "./parts";

export function AccountMenu() {
  const element = useRef<HTMLDetailsElement>(null);
  const leave = useAction(logOut);
  const now = session.value;
  if (now.state !== "logged_in") return null;
  const { name, roles } = now.identity;
  const close = (): void => element.current?.removeAttribute("open");
  return (
    <details
      class="account"
      ref={element}
      onFocusOut={(event) => {
        // A click on text within the menu moves the focus to no element.
        if (event.relatedTarget instanceof Node && !element.current?.contains(event.relatedTarget)) close();
      }}
      onKeyDown={(event) => {
        if (event.key !== "Escape") return;
        close();
        element.current?.querySelector("summary")?.focus();
      }}
    >
      <summary>{name}</summary>
      <div class="account-menu">
        <p>
          Logged in as <strong class="wrap">{name}</strong>
        </p>
        <ul class="plain chips" aria-label="Roles">
          {ROLES.filter((role) => roles.has(role)).map((role) => (
            <li key={role} class="chip quiet">
              {role}
            </li>
          ))}
        </ul>
        <FailureBox failure={leave.failure} />
        <BusyButton class="small" isBusy={leave.isRunning} onClick={() => void leave.run()}>
          Log out
        </BusyButton>
      </div>
    </details>
  );
}
