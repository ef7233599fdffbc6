// Reasoning models write what they think between two marks before they answer. It is shown apart.

const BEGIN = "<think>";
const END = "</think>";

export interface Parts {
  thought: string;
  answer: string;
}

/** An answer that has not come to the second mark yet is all thought. */
export function partsOf(text: string, thought = ""): Parts {
  const begun = text.trimStart();
  if (thought || !begun.startsWith(BEGIN)) return { thought, answer: text };
  const end = begun.indexOf(END);
  if (end < 0) return { thought: begun.slice(BEGIN.length).trim(), answer: "" };
  return { thought: begun.slice(BEGIN.length, end).trim(), answer: begun.slice(end + END.length).trimStart() };
}
