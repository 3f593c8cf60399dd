/** Hash-based routing, which works at any path of a proxy. */
import { signal } from "@preact/signals";

export const PAGES = ["trainings", "compare", "start", "datasets", "models", "predict", "server"] as const;
export type Page = (typeof PAGES)[number];

export interface Route {
  page: Page;
  /** Id of a training, dataset or version; empty for the list. */
  id: string;
  query: URLSearchParams;
}

/** Parses an address such as `#/compare?t=a,b`; unknown ones lead to the trainings. */
export function parseRoute(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [name = "", id = ""] = path.split("/");
  const page = PAGES.find((known) => known === name) ?? "trainings";
  return { page, id: decode(id), query: new URLSearchParams(query) };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function href(page: Page, id = "", query: Record<string, string> = {}): string {
  const search = new URLSearchParams(query).toString().replaceAll("%2C", ",");
  return `#/${page}${id === "" ? "" : `/${encodeURIComponent(id)}`}${search === "" ? "" : `?${search}`}`;
}

export const route = signal(parseRoute(location.hash));

addEventListener("hashchange", () => {
  route.value = parseRoute(location.hash);
});

/** Navigates to a page; `replace` replaces the current history entry. */
export function go(address: string, replace = false): void {
  if (replace) {
    history.replaceState(null, "", address);
    route.value = parseRoute(address);
  } else {
    location.hash = address;
  }
}
