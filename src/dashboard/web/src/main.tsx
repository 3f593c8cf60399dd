import { render } from "preact";
import { App } from "./app";
import { startFollowing } from "./live/store";
import "./styles/index.css";

const root = document.getElementById("app");
if (root) {
  render(<App />, root);
  startFollowing();
}
