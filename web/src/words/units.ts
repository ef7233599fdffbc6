// Sizes, rates and times as the rest of Windlass writes them: budgets are binary, rates decimal, three digits.

function scaled(value: number, base: number, names: readonly string[]): string {
  let place = 0;
  while (Math.abs(value) >= base - 0.5 && place < names.length - 1) {
    value /= base;
    place += 1;
  }
  return `${value.toFixed(place === 0 ? 0 : digits(value))} ${names[place]}`;
}

function digits(value: number): number {
  const size = Math.abs(value);
  return size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
}

/** `1.50 GiB` */
export function size(bytes: number): string {
  return scaled(bytes, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
}

/** `2.65 GB/s` */
export function rate(bytesPerSecond: number): string {
  return `${scaled(bytesPerSecond, 1000, ["B", "kB", "MB", "GB", "TB"])}/s`;
}

/** `420 ms`, `12.3 s`, `2 min 05 s`, `3 h 10 min`, `2 d 04 h`; a dash where nothing is known. */
export function seconds(value: number | null | undefined): string {
  if (value == null) return "–";
  if (value < 0.9995) return `${(value * 1000).toFixed(value < 0.00995 ? 1 : 0)} ms`;
  if (value < 59.95) return `${value.toFixed(value < 9.995 ? 2 : 1)} s`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
  return `${Math.floor(whole / 86400)} d ${two(Math.floor((whole % 86400) / 3600))} h`;
}

function two(value: number): string {
  return String(value).padStart(2, "0");
}

/** `1,234` */
export function count(value: number | null | undefined): string {
  return value == null ? "–" : value.toLocaleString("en-GB");
}

/** `12.3`, three digits; a dash where nothing is known. */
export function speed(value: number | null | undefined): string {
  return value == null ? "–" : value >= 999.5 ? count(Math.round(value)) : value.toFixed(digits(value));
}

/** `1 token`, `2 tokens` */
export function many(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** A share of a whole in [0, 1], whatever the two numbers are. */
export function share(part: number, whole: number): number {
  return whole > 0 ? Math.min(1, Math.max(0, part / whole)) : 0;
}

/** `87 %` */
export function percent(value: number): string {
  return `${Math.round(value * 100)} %`;
}
