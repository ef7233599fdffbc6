// The API key lives as long as the tab: it is kept where no other tab and no later visit finds it.

import { signal } from "@preact/signals";

const PLACE = "windlass.key";

export const key = signal(sessionStorage.getItem(PLACE) ?? "");

/** The server answered 401, and no other key was given since. */
export const keyWanted = signal(false);

export function useKey(value: string): void {
  sessionStorage.setItem(PLACE, value);
  key.value = value;
  keyWanted.value = false;
}
