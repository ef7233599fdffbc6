// Markdown may write a character by its name or number. Elements made by hand take text as it is, so these are read
// here; a name that is not on the list stays as it was written.

const NAMES: Record<string, string> = {
  amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", copy: "©", hellip: "…", ndash: "–", mdash: "—",
  times: "×", middot: "·", deg: "°", rarr: "→", larr: "←", le: "≤", ge: "≥", ne: "≠",
};

const ENTITY = /&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|([A-Za-z]{2,8}));/g;
const LAST = 0x10ffff;

export function withoutEntities(text: string): string {
  return text.replace(ENTITY, (whole, decimal?: string, hex?: string, name?: string) => {
    if (name) return NAMES[name] ?? whole;
    const code = decimal ? Number.parseInt(decimal, 10) : Number.parseInt(hex ?? "", 16);
    return code > 0 && code <= LAST ? String.fromCodePoint(code) : "\ufffd";
  });
}
