/** Login with a name and a password, or with a token. */
import { Code } from "@connectrpc/connect";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { sentence } from "../format";
import { logIn } from "../live/session";
import { useAction } from "../ui/calls";
import { BusyButton } from "../ui/parts";

const KINDS = { password: "Password", token: "Token" } as const;
type Kind = keyof typeof KINDS;

export function LoginForm() {
  const id = useId();
  const [kind, setKind] = useState<Kind>("password");
  const [name, setName] = useState("");
  const [secret, setSecret] = useState("");
  const form = useRef<HTMLFormElement>(null);
  const action = useAction(() => logIn(kind === "token" ? { token: secret.trim() } : { name: name.trim(), password: secret }));
  const focus = (type: "text" | "password"): void => form.current?.querySelector<HTMLInputElement>(`input[type=${type}]`)?.focus();
  useEffect(() => focus(kind === "token" ? "password" : "text"), [kind]);
  const { failure } = action;
  const isEmpty = secret === "" || (kind === "password" && name.trim() === "");
  return (
    <form
      ref={form}
      class="stack"
      onSubmit={(event) => {
        event.preventDefault();
        if (isEmpty || action.isRunning) return;
        void action.run().then((isDone) => {
          if (isDone) return;
          setSecret("");
          focus("password");
        });
      }}
    >
      {!isSecureContext && (
        <p class="warnings" role="note">
          This page is not encrypted: others on the network can read what you enter. Use its https address.
        </p>
      )}
      <fieldset class="segments">
        <legend class="unseen">Credential</legend>
        {(Object.keys(KINDS) as Kind[]).map((key) => (
          <label key={key}>
            <input
              type="radio"
              name={`${id}-kind`}
              checked={kind === key}
              onChange={() => {
                setKind(key);
                setSecret("");
                action.clear();
              }}
            />
            <span>{KINDS[key]}</span>
          </label>
        ))}
      </fieldset>
      {kind === "password" && (
        <div class="field-stack">
          <label for={`${id}-name`}>Name</label>
          <input id={`${id}-name`} type="text" name="username" autocomplete="username" autocapitalize="none" spellcheck={false} value={name} onInput={(event) => setName(event.currentTarget.value)} />
        </div>
      )}
      <div class="field-stack">
        <label for={`${id}-secret`}>{KINDS[kind]}</label>
        <input
          // Another element, so that password managers do not store a token as a password.
          key={kind}
          id={`${id}-secret`}
          type="password"
          autocomplete={kind === "token" ? "off" : "current-password"}
          value={secret}
          aria-invalid={failure?.code === Code.Unauthenticated}
          aria-describedby={failure ? `${id}-wrong` : `${id}-help`}
          onInput={(event) => setSecret(event.currentTarget.value)}
        />
        {failure && (
          <p class="wrong" id={`${id}-wrong`} role="alert">
            {sentence(failure.message)}
          </p>
        )}
        <p class="muted small-text" id={`${id}-help`}>
          {kind === "token" ? <>Created by <code>visage token new</code> on the server.</> : "Of a user in the token file of the server."}
        </p>
      </div>
      <div class="actions">
        <BusyButton type="submit" class="primary" isBusy={action.isRunning} busyText="Logging in…" disabled={isEmpty}>
          Log in
        </BusyButton>
      </div>
    </form>
  );
}
