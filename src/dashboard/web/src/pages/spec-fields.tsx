/** Inputs of a form that is generated from the descriptor of a message. */
import { useEffect, useState } from "preact/hooks";
import { sentence } from "../format";
import { type FieldNode, type GroupNode, type Node, type RowsNode, type Values, hasValues, rowCount, withoutRow } from "../spec/form";
import { labelOf, textOf } from "../spec/texts";
import { Prose } from "../ui/parts";

/** State of the form that its fields use. */
export interface Form {
  id: string;
  values: Values;
  defaults: ReadonlyMap<string, string>;
  problems: ReadonlyMap<string, string>;
  set: (path: string, value: string) => void;
  replace: (values: Values) => void;
}

export function draw(node: Node, form: Form) {
  switch (node.kind) {
    case "field":
      return <Field key={node.path} node={node} form={form} />;
    case "group":
      return <Fold key={node.path} node={node} form={form} />;
    case "rows":
      return <Rows key={node.path} node={node} form={form} />;
  }
}

/** Help of a node: its text, or else its comment without the default, which the field shows. */
function helpOf(node: Node): string {
  return textOf(node.path)?.help ?? node.help.replace(/ Default: .*$/, "");
}

function hasProblem(form: Form, node: Node): boolean {
  if (node.kind === "field") return form.problems.has(node.path);
  if (node.kind === "rows") return [...form.problems.keys()].some((path) => path.startsWith(node.path));
  return node.children.some((child) => hasProblem(form, child));
}

/** A group of fields, collapsed unless a field is set or invalid. */
export function Fold({ node, form, title }: { node: Node; form: Form; title?: string }) {
  const isWrong = hasProblem(form, node);
  const isSet = node.kind === "group" ? node.children.some((child) => hasValues(form.values, child.path)) : hasValues(form.values, node.path);
  const [isOpen, setOpen] = useState(isSet);
  useEffect(() => {
    if (isWrong) setOpen(true);
  }, [isWrong]);
  return (
    <details class="fold" open={isOpen} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <span class="fold-name">{title ?? labelOf(node.path)}</span> <span class="muted"><Prose text={helpOf(node)} /></span>
        {isSet && <span class="chip busy">set</span>}
        {isWrong && <span class="chip bad">needs a change</span>}
      </summary>
      <div class="fold-body">{node.kind === "group" ? node.children.map((child) => draw(child, form)) : draw(node, form)}</div>
    </details>
  );
}

function Rows({ node, form }: { node: RowsNode; form: Form }) {
  const rows = rowCount(form.values, node.path);
  const add = (): void => {
    const first = firstField(node.row(rows));
    if (first) form.set(first.path, "");
  };
  return (
    <fieldset class="rows">
      <legend>{labelOf(node.path)}</legend>
      <p class="muted small-text">
        <Prose text={helpOf(node)} />
      </p>
      {Array.from({ length: rows }, (_, index) => (
        <div key={index} class="row">
          {node.row(index).children.map((child) => draw(child, form))}
          <button type="button" class="small" onClick={() => form.replace(withoutRow(form.values, node.path, index))}>
            Remove <span class="unseen">row {index + 1}</span>
          </button>
        </div>
      ))}
      <button type="button" class="small" onClick={add}>
        Add <span class="unseen">a row of {labelOf(node.path)}</span>
      </button>
    </fieldset>
  );
}

function firstField(group: GroupNode): FieldNode | undefined {
  return group.children.find((child) => child.kind === "field");
}

/** Name of a choice, or else its value. */
function choiceText(path: string, value: string): string {
  if (value === "true") return "Yes";
  if (value === "false") return "No";
  return textOf(path)?.choices?.[value] ?? value;
}

export function Field({ node, form, none }: { node: FieldNode; form: Form; none?: string }) {
  const id = `${form.id}-${node.path}`;
  const value = form.values[node.path] ?? "";
  const fallback = form.defaults.get(node.path) ?? "";
  const problem = form.problems.get(node.path);
  const help = helpOf(node);
  const described = [help && `${id}-help`, problem !== undefined && `${id}-wrong`].filter(Boolean).join(" ");
  const common = { id, name: node.path, "aria-invalid": problem !== undefined, "aria-describedby": described || undefined };
  const listed = node.control === "toggle" ? ["true", "false"] : node.options.map((option) => option.value);
  return (
    <div class={`field ${problem === undefined ? "" : "is-wrong"}`}>
      <div class="field-input">
        <label for={id}>{labelOf(node.path)}</label>
        {node.control === "choice" || node.control === "toggle" ? (
          <select {...common} value={value} onChange={(event) => form.set(node.path, event.currentTarget.value)}>
            <option value="">{none ?? (fallback === "" ? "Default" : `Default: ${choiceText(node.path, fallback)}`)}</option>
            {listed.map((option) => (
              <option key={option} value={option}>
                {node.options.find((one) => one.value === option)?.label ?? choiceText(node.path, option)}
              </option>
            ))}
          </select>
        ) : (
          <input
            {...common}
            type="text"
            inputMode={node.control === "integer" ? "numeric" : node.control === "number" ? "decimal" : undefined}
            autocomplete="off"
            spellcheck={false}
            placeholder={fallback}
            value={value}
            onInput={(event) => form.set(node.path, event.currentTarget.value)}
          />
        )}
        {problem !== undefined && (
          <p class="wrong" id={`${id}-wrong`}>
            {sentence(problem)}
          </p>
        )}
      </div>
      {help && (
        <p class="help muted" id={`${id}-help`}>
          <Prose text={help} />
        </p>
      )}
    </div>
  );
}
