// The frame: which model, how it is, what is looked at.

import { signal } from "@preact/signals";
import { Banner } from "./banner";
import { Chat } from "./chat/chat";
import { Machine } from "./machine/machine";
import { keyWanted } from "./server/key";
import { state, trouble } from "./server/watch";
import { THEMES, theme } from "./theme";

const VIEWS = { "#chat": Chat, "#machine": Machine };
type View = keyof typeof VIEWS;

const view = signal<View>(viewOf(location.hash));

window.addEventListener("hashchange", () => {
  view.value = viewOf(location.hash);
});

function viewOf(hash: string): View {
  return hash === "#machine" ? "#machine" : "#chat";
}

export function App() {
  const Shown = VIEWS[view.value];
  return (
    <>
      <header>
        <span class="name">Windlass</span>
        <nav aria-label="Views">
          <ViewLink to="#chat" words="Chat" />
          <ViewLink to="#machine" words="Machine" />
        </nav>
        <Health />
        <ThemeChoice />
      </header>
      <Banner />
      <Shown />
    </>
  );
}

function ViewLink({ to, words }: { to: View; words: string }) {
  return (
    <a href={to} aria-current={view.value === to ? "page" : undefined}>
      {words}
    </a>
  );
}

function Health() {
  const now = state.value;
  const health = keyWanted.value ? "locked" : trouble.value ? "away" : (now?.state ?? "asking");
  return (
    <p class="health" title={now?.model}>
      <span class="model">{now?.model}</span>
      <i class={`dot ${health}`} />
      {health}
    </p>
  );
}

function ThemeChoice() {
  return (
    <label class="theme">
      <span class="hidden">Colours</span>
      <select
        value={theme.value}
        onChange={(event) => {
          theme.value = THEMES.find((one) => one === event.currentTarget.value) ?? "system";
        }}
      >
        {THEMES.map((one) => (
          <option key={one} value={one}>
            {one}
          </option>
        ))}
      </select>
    </label>
  );
}
