// Light or dark: as the system has it, until the reader chooses.

import { effect, signal } from "@preact/signals";

export const THEMES = ["system", "light", "dark"] as const;
export type Theme = (typeof THEMES)[number];

const PLACE = "windlass.theme";

export const theme = signal<Theme>(THEMES.find((one) => one === localStorage.getItem(PLACE)) ?? "system");

export function applyTheme(): void {
  effect(() => {
    document.documentElement.dataset.theme = theme.value;
    localStorage.setItem(PLACE, theme.value);
  });
}
