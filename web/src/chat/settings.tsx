// What the conversation is asked with. An empty field leaves the choice to the server.

import type { Conversation, Parameters } from "./conversation";
import { opened, put } from "./shelf";

interface Field {
  name: keyof Parameters;
  label: string;
  min: number;
  max?: number;
  step: number;
}

const FIELDS: Field[] = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.1 },
  { name: "top_p", label: "Top p", min: 0, max: 1, step: 0.05 },
  { name: "max_tokens", label: "Most tokens", min: 1, step: 1 },
  { name: "seed", label: "Seed", min: 0, step: 1 },
];

export function Settings() {
  const conversation = opened.value;
  return (
    <details class="settings">
      <summary>
        Settings<small>{summaryOf(conversation)}</small>
      </summary>
      <label>
        System prompt
        <textarea
          rows={3}
          value={conversation.system}
          placeholder="None"
          onInput={(event) => put({ ...opened.value, system: event.currentTarget.value })}
        />
      </label>
      <div class="fields">
        {FIELDS.map((field) => (
          <NumberField key={`${conversation.id} ${field.name}`} field={field} value={conversation.parameters[field.name]} />
        ))}
      </div>
    </details>
  );
}

/** The browser keeps what is typed, so that a number half written is not drawn over. */
function NumberField({ field, value }: { field: Field; value: number | null }) {
  function take(event: { currentTarget: HTMLInputElement }) {
    const input = event.currentTarget;
    if (!input.checkValidity()) return;
    const number = input.value === "" ? null : input.valueAsNumber;
    put({ ...opened.value, parameters: { ...opened.value.parameters, [field.name]: number } });
  }
  return (
    <label>
      {field.label}
      <input
        type="number"
        name={field.name}
        min={field.min}
        max={field.max}
        step={field.step === 1 ? 1 : "any"}
        placeholder="server's"
        defaultValue={value ?? ""}
        onInput={take}
        onChange={(event) => event.currentTarget.reportValidity()}
      />
    </label>
  );
}

function summaryOf({ system, parameters }: Conversation): string {
  const set = FIELDS.filter(({ name }) => parameters[name] !== null);
  const words = set.map(({ name, label }) => `${label.toLowerCase()} ${parameters[name]}`);
  return [...(system.trim() ? ["system prompt"] : []), ...words].join(" · ");
}
