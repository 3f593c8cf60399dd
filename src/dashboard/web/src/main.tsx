import { render } from "preact";
import { App } from "./app";
import { logins, refreshSession } from "./live/session";
import { reconnectNow, startFollowing } from "./live/store";
import "./styles/index.css";

const root = document.getElementById("app");
if (root) {
  render(<App />, root);
  await refreshSession();
  startFollowing();
  logins.subscribe(reconnectNow);
}
