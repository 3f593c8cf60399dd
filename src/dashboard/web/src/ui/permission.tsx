/** Controls that require a role. */
import type { ComponentChildren } from "preact";
import type { Role } from "../api/session";
import { may } from "../live/session";

/** Disables or hides its controls, unless the identity has the role. */
export function Needs(props: { role: Role; hide?: boolean; children: ComponentChildren }) {
  if (may(props.role)) return <>{props.children}</>;
  if (props.hide) return null;
  return (
    <>
      <fieldset class="needs" disabled>
        {props.children}
      </fieldset>
      <p class="muted small-text" data-needs={props.role}>
        This needs the role {props.role}.
      </p>
    </>
  );
}

/** Sentence in place of controls that are hidden, such as “Downloads need the role trainer.” */
export function Lacks(props: { role: Role; what: string }) {
  if (may(props.role)) return null;
  return (
    <p class="muted small-text" data-needs={props.role}>
      {props.what} the role {props.role}.
    </p>
  );
}
