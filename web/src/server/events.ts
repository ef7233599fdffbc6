// Server-sent events out of pieces of text that may be cut anywhere. EventSource cannot post a question, so the stream
// is read by hand.

export interface ServerEvent {
  name: string;
  data: string;
}

export class EventReader {
  private rest = "";

  /** The events that end in this piece. Comments, which keep the line open, are none. */
  feed(piece: string): ServerEvent[] {
    // A carriage return at the end may be half of a line's end: it waits for what follows.
    const text = this.rest + piece;
    const whole = text.endsWith("\r") ? text.slice(0, -1) : text;
    const blocks = whole.replaceAll("\r\n", "\n").replaceAll("\r", "\n").split("\n\n");
    this.rest = (blocks.pop() ?? "") + text.slice(whole.length);
    return blocks.map(eventOf).filter((event) => event !== null);
  }
}

function eventOf(block: string): ServerEvent | null {
  let name = "message";
  const data: string[] = [];
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon === 0) continue;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") data.push(value);
    if (field === "event") name = value;
  }
  return data.length ? { name, data: data.join("\n") } : null;
}
