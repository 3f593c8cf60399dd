/** The folder that the page came from, without the last slash: behind a proxy it need not be the root. */
export function baseUrl(documentUri: string): string {
  const folder = new URL(".", documentUri);
  folder.hash = "";
  folder.search = "";
  return folder.href.replace(/\/$/, "");
}
