/** The directory that the page came from, without the last slash: behind a proxy it need not be the root. */
export function baseUrl(documentUri: string): string {
  const directory = new URL(".", documentUri);
  directory.hash = "";
  directory.search = "";
  return directory.href.replace(/\/$/, "");
}
