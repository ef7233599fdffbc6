// Markdown of an answer as elements. The answer is a stranger's text: every element is made here, from a short list,
// and none from markup. HTML in an answer is shown as the text that it is, a picture as a link, since fetching it would
// tell another host that the answer was read.

import { lexer, type MarkedToken, type Token, type Tokens } from "marked";
import type { ComponentChildren } from "preact";
import { useMemo } from "preact/hooks";
import { CodeBlock } from "./code_block";
import { withoutEntities } from "./entities";

/** With tables, and a new line where the answer begins one: verse is not prose. */
const READING = { gfm: true, breaks: true };

const SAFE = /^(?:https?:\/\/|mailto:)/i;

export function Markdown({ text }: { text: string }) {
  const tokens = useMemo(() => lexer(text, READING), [text]);
  return (
    <div class="prose">
      {tokens.map((token, place) => (
        <Settled key={place} token={token as MarkedToken} />
      ))}
    </div>
  );
}

/** While an answer grows, only its last block changes: the others are not made again. */
function Settled({ token }: { token: MarkedToken }) {
  return useMemo(() => <Block token={token} />, [token.type, token.raw]);
}

function blocks(tokens: Token[]): ComponentChildren {
  return tokens.map((token, place) => <Block key={place} token={token as MarkedToken} />);
}

function Block({ token }: { token: MarkedToken }) {
  switch (token.type) {
    case "heading":
      return <Heading token={token} />;
    case "paragraph":
      return <p>{inline(token.tokens)}</p>;
    case "code":
      return <CodeBlock text={token.text} language={token.lang?.match(/^\S+/)?.[0] ?? ""} />;
    case "blockquote":
      return <blockquote>{blocks(token.tokens)}</blockquote>;
    case "list":
      return <List token={token} />;
    case "table":
      return <Table token={token} />;
    case "hr":
      return <hr />;
    case "html":
      return <p class="raw">{token.raw.trimEnd()}</p>;
    case "space":
    case "def":
      return null;
    default:
      return <Inline token={token} />;
  }
}

/** The page has a first and a second level of its own. */
function Heading({ token }: { token: Tokens.Heading }) {
  const Level = (["h3", "h4", "h5"] as const)[token.depth - 1] ?? "h6";
  return <Level>{inline(token.tokens)}</Level>;
}

function List({ token }: { token: Tokens.List }) {
  const items = token.items.map((item, place) => <li key={place}>{blocks(item.tokens)}</li>);
  return token.ordered ? <ol start={token.start || 1}>{items}</ol> : <ul>{items}</ul>;
}

function Table({ token }: { token: Tokens.Table }) {
  const cells = (row: Tokens.TableCell[], Cell: "th" | "td") =>
    row.map((cell, place) => (
      <Cell key={place} class={cell.align ? `align-${cell.align}` : undefined}>
        {inline(cell.tokens)}
      </Cell>
    ));
  return (
    <div class="scroll" tabIndex={0} role="group" aria-label="Table">
      <table>
        <thead>
          <tr>{cells(token.header, "th")}</tr>
        </thead>
        <tbody>
          {token.rows.map((row, place) => (
            <tr key={place}>{cells(row, "td")}</tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function inline(tokens: Token[] | undefined): ComponentChildren {
  return tokens?.map((token, place) => <Inline key={place} token={token as MarkedToken} />);
}

function Inline({ token }: { token: MarkedToken }) {
  switch (token.type) {
    case "strong":
      return <strong>{inline(token.tokens)}</strong>;
    case "em":
      return <em>{inline(token.tokens)}</em>;
    case "del":
      return <del>{inline(token.tokens)}</del>;
    case "codespan":
      return <code>{token.text}</code>;
    case "br":
      return <br />;
    case "link":
      return <Link address={token.href} raw={token.raw} words={inline(token.tokens)} />;
    case "image":
      return <Link address={token.href} raw={token.raw} words={`Picture: ${token.text || token.href}`} />;
    case "checkbox":
      return <span class="box">{token.checked ? "☑ " : "☐ "}</span>;
    case "text":
      return <>{"tokens" in token && token.tokens ? inline(token.tokens) : withoutEntities(token.text)}</>;
    case "escape":
      return <>{token.text}</>;
    default:
      return <>{token.raw}</>;
  }
}

/** A link that leads anywhere but to the web or a mailbox stays as it was written. */
function Link({ address, raw, words }: { address: string; raw: string; words: ComponentChildren }) {
  if (!SAFE.test(address)) return <>{raw}</>;
  return (
    <a href={address} target="_blank" rel="noopener noreferrer nofollow" referrerpolicy="no-referrer">
      {words}
    </a>
  );
}
