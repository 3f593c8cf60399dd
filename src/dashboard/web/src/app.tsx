/** Frame of all pages: navigation, connection state and colour theme. */
import { effect } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { Role } from "./api/session";
import { sentence } from "./format";
import { may, session } from "./live/session";
import { link, reconnectNow } from "./live/store";
import { ComparePage } from "./pages/compare";
import { DatasetPage } from "./pages/dataset";
import { DatasetsPage } from "./pages/datasets";
import { LoginForm } from "./pages/login";
import { ModelPage } from "./pages/model";
import { ModelsPage } from "./pages/models";
import { PredictPage } from "./pages/predict";
import { ServerPage } from "./pages/server";
import { StartPage } from "./pages/start";
import { TrainingPage } from "./pages/training";
import { TrainingsPage } from "./pages/trainings";
import { AccountMenu } from "./ui/account";
import { Dialog } from "./ui/dialog";
import { Icon } from "./ui/icons";
import { Notices, announce } from "./ui/notices";
import { Empty, Loading, PageHead } from "./ui/parts";
import { type Page, PAGES, type Route, href, route } from "./ui/router";
import { type Theme, chooseTheme, theme } from "./ui/theme";

const NAMES: Readonly<Record<Page, string>> = {
  trainings: "Trainings",
  compare: "Compare",
  start: "New training",
  datasets: "Datasets",
  models: "Models",
  predict: "Predict",
  server: "Server",
};

/** Role that a page requires. */
const NEEDS: Readonly<Record<Page, Role>> = {
  trainings: "viewer",
  compare: "viewer",
  start: "trainer",
  datasets: "viewer",
  models: "viewer",
  predict: "predictor",
  server: "viewer",
};

function pageOf({ page, id, query }: Route): ComponentChildren {
  if (!may(NEEDS[page])) return <ForbiddenPage page={page} />;
  switch (page) {
    case "trainings":
      return id === "" ? <TrainingsPage /> : <TrainingPage key={id} id={id} />;
    case "compare":
      return <ComparePage />;
    case "start":
      return <StartPage key={query.toString()} />;
    case "datasets":
      return id === "" ? <DatasetsPage /> : <DatasetPage key={id} id={id} />;
    case "models":
      return id === "" ? <ModelsPage /> : <ModelPage key={id} id={id} />;
    case "predict":
      return <PredictPage />;
    case "server":
      return <ServerPage />;
  }
}

function ForbiddenPage({ page }: { page: Page }) {
  const permitted = PAGES.filter((one) => may(NEEDS[one]));
  return (
    <>
      <PageHead title={NAMES[page]} />
      <Empty title={`This page needs the role ${NEEDS[page]}`}>
        <p>An administrator of the server can add roles to your user or token.</p>
        <div class="actions">
          {permitted.map((one) => (
            <a key={one} class="button" href={href(one)}>
              {NAMES[one]}
            </a>
          ))}
        </div>
      </Empty>
    </>
  );
}

/** The current page, or the login. */
function Content({ current }: { current: Route }) {
  const now = session.value;
  if (now.state === "loading") return <Loading what="the page" />;
  if (now.state === "logged_out" && !now.before) {
    return (
      <section class="panel login-page">
        <h1 tabIndex={-1}>Log in</h1>
        <LoginForm />
      </section>
    );
  }
  return (
    <>
      {/* It stays below the login, and keeps what was entered. */}
      {pageOf(current)}
      {now.state === "logged_out" && (
        <Dialog title="Log in again" onClose={() => undefined}>
          <p>The session has ended. The page continues where it was.</p>
          <LoginForm />
        </Dialog>
      )}
    </>
  );
}

export function App() {
  const current = route.value;
  const main = useRef<HTMLElement>(null);
  const isFirst = useRef(true);
  useEffect(() => {
    document.title = `${current.id === "" ? NAMES[current.page] : `${current.id}, ${NAMES[current.page]}`} – Visage`;
    if (isFirst.current) {
      isFirst.current = false;
      return;
    }
    // Like a new page: scroll to the top and let screen readers read the heading.
    scrollTo(0, 0);
    main.current?.querySelector<HTMLElement>("h1")?.focus({ preventScroll: true });
  }, [current.page, current.id]);
  return (
    <>
      <a
        class="skip"
        href="#content"
        onClick={(event) => {
          event.preventDefault();
          main.current?.focus();
        }}
      >
        Skip to the content
      </a>
      <header class="top">
        <a class="brand" href={href("trainings")}>
          <svg viewBox="0 0 32 32" aria-hidden="true">
            <rect width="32" height="32" rx="8" />
            <path d="M8 20c2.5 4.5 13.5 4.5 16 0M11 12v1.5M21 12v1.5" />
          </svg>
          Visage
        </a>
        <nav class="pages" aria-label="Pages">
          <ul>
            {PAGES.filter((page) => may(NEEDS[page])).map((page) => (
              <li key={page}>
                <a href={href(page)} aria-current={page === current.page ? "page" : undefined}>
                  <Icon name={page} />
                  <span>{page === "start" ? <>New<span class="long"> training</span></> : NAMES[page]}</span>
                </a>
              </li>
            ))}
          </ul>
        </nav>
        <div class="top-end">
          {may("viewer") && <Connection />}
          <ThemeChoice />
          <AccountMenu />
        </div>
      </header>
      <main id="content" ref={main} tabIndex={-1}>
        <Content current={current} />
      </main>
      <Notices />
    </>
  );
}

const LINKS = { connecting: "Connecting…", live: "Connected", waiting: "Reconnecting…", resting: "Paused", failed: "Not connected" } as const;

/** Unobtrusive indicator of the connection state. */
function Connection() {
  const current = link.value;
  const detail = current.state === "waiting" || current.state === "failed" ? `${current.failure.call}: ${sentence(current.failure.message)}` : undefined;
  const canHurry = current.state === "waiting" || current.state === "failed";
  return (
    <span class={`link ${current.state}`} title={detail} data-link={current.state}>
      <span class="dot" aria-hidden="true" />
      <span class="link-name">{LINKS[current.state]}</span>
      {canHurry && (
        <button type="button" class="text-button" onClick={reconnectNow}>
          Try now
        </button>
      )}
    </span>
  );
}

let wasBroken = false;
effect(() => {
  const { state } = link.value;
  if (state === "waiting" && !wasBroken) announce("Connection to the server lost. Reconnecting.");
  if (state === "live" && wasBroken) announce("Reconnected.");
  wasBroken = state === "waiting" || (wasBroken && state !== "live");
});

const THEMES: Readonly<Record<Theme, string>> = { system: "System", light: "Light", dark: "Dark" };

function ThemeChoice() {
  return (
    <label class="theme">
      <span class="theme-name">Theme</span>
      <select value={theme.value} onChange={(event) => chooseTheme(event.currentTarget.value as Theme)}>
        {(Object.keys(THEMES) as Theme[]).map((value) => (
          <option key={value} value={value}>
            {THEMES[value]}
          </option>
        ))}
      </select>
    </label>
  );
}
