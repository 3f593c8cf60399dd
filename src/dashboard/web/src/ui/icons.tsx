/** Navigation icons in the text colour. */
const PATHS = {
  trainings: "M3 17l5-6 4 3 5-8 4 4M3 21h18",
  compare: "M4 20V9m5 11V4m6 16v-8m5 8V7",
  start: "M12 5v14M5 12h14",
  datasets: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
  models: "M12 3l8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9",
  predict: "M4 8V5a1 1 0 011-1h3m8 0h3a1 1 0 011 1v3m0 8v3a1 1 0 01-1 1h-3M8 20H5a1 1 0 01-1-1v-3m5-6v.5m6-.5v.5M9 14.5c1.6 1.8 4.4 1.8 6 0",
  server: "M5 4h14a1 1 0 011 1v5H4V5a1 1 0 011-1zm-1 10h16v5a1 1 0 01-1 1H5a1 1 0 01-1-1zM8 7h.01M8 17h.01",
} as const;

export function Icon(props: { name: keyof typeof PATHS }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[props.name]} />
    </svg>
  );
}
