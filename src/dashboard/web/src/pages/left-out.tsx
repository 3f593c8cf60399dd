/** Columns of a dataset that are not used as labels. */
import { count } from "../format";
import type { LeftOutColumns } from "../gen/visage/v1/training_pb";

export function LeftOut(props: { columns?: LeftOutColumns | undefined }) {
  const { columns } = props;
  if (!columns || columns.count === 0n) return null;
  const more = columns.count - BigInt(columns.listed.length);
  return (
    <details>
      <summary>{columns.count === 1n ? "1 column is not a label" : `${count(columns.count)} columns are not labels`}</summary>
      <ul class="plain" aria-label="Columns that are not labels">
        {columns.listed.map((column) => (
          <li key={column.name}>
            <span class="wrap">{column.name}</span> <span class="muted">{column.description}</span>
          </li>
        ))}
        {more > 0n && <li class="muted">and {count(more)} more</li>}
      </ul>
    </details>
  );
}
