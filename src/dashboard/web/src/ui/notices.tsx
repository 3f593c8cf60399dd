/** Short messages that come and go, and what screen readers are told. */
import { signal } from "@preact/signals";

interface Notice {
  id: number;
  text: string;
}

const notices = signal<Notice[]>([]);
const spoken = signal("");
let count = 0;
const STAY_MS = 6_000;

/** Tells that something was done. */
export function notify(text: string): void {
  count += 1;
  const id = count;
  notices.value = [...notices.value.slice(-2), { id, text }];
  setTimeout(() => {
    notices.value = notices.value.filter((notice) => notice.id !== id);
  }, STAY_MS);
}

/** Tells screen readers of a change that others see. */
export function announce(text: string): void {
  spoken.value = text;
}

/** Where both appear; there from the beginning, since what is added to a live region later may not be read. */
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
