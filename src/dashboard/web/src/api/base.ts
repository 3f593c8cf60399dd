/**
 * Directory that the page was loaded from, without a trailing slash; behind a proxy it may be a
 * sub-path.
 */
export function baseUrl(documentUri: string): string {
  const directory = new URL(".", documentUri);
  directory.hash = "";
  directory.search = "";
  return directory.href.replace(/\/$/, "");
}
