/** Transient notices, and announcements to screen readers. */
import { signal } from "@preact/signals";

interface Notice {
  id: number;
  text: string;
}

const notices = signal<Notice[]>([]);
const spoken = signal("");
let count = 0;
const STAY_MS = 6_000;

/** Shows a notice. */
export function notify(text: string): void {
  count += 1;
  const id = count;
  // A repeated text replaces the earlier one.
  notices.value = [...notices.value.filter((notice) => notice.text !== text).slice(-2), { id, text }];
  setTimeout(() => {
    notices.value = notices.value.filter((notice) => notice.id !== id);
  }, STAY_MS);
}

/** Announces a visible change to screen readers. */
export function announce(text: string): void {
  spoken.value = text;
}

/**
 * Live regions of both; always present, since screen readers may ignore regions that are added
 * later.
 */
export function Notices() {
  return (
    <>
      <div class="notices" role="status" aria-live="polite">
        {notices.value.map(({ id, text }) => (
          <p key={id} class="notice">
            {text}
          </p>
        ))}
      </div>
      <p class="unseen" aria-live="polite">
        {spoken.value}
      </p>
    </>
  );
}
