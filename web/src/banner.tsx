// What is wrong with the server as a whole, above whatever is looked at, and what the page does about it.

import { useEffect, useRef, useState } from "preact/hooks";
import { keyWanted, useKey } from "./server/key";
import { look, state, type Trouble, trouble } from "./server/watch";
import { seconds } from "./words/units";

export function Banner() {
  if (keyWanted.value) return <KeyForm />;
  if (trouble.value) return <TroubleBanner trouble={trouble.value} />;
  const now = state.value;
  if (now?.state === "loading") {
    return (
      <p class="banner" role="status">
        The model is being loaded, {seconds(now.uptime)} so far. Questions can be asked when it is there.
      </p>
    );
  }
  if (now?.state === "failed") {
    return (
      <p class="banner bad" role="alert">
        The model stopped working: {now.failure || "the terminal of windlass serve says why"}
      </p>
    );
  }
  if (now?.state === "closed") {
    return (
      <p class="banner" role="status">
        The server is stopping and takes no more questions.
      </p>
    );
  }
  return null;
}

function TroubleBanner({ trouble: { words, again } }: { trouble: Trouble }) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 250);
    return () => clearInterval(timer);
  }, []);
  const left = Math.ceil((again - now) / 1000);
  return (
    <div class="banner bad">
      <span role="alert">{words}</span>
      <span class="again">{left > 0 ? `Asking again in ${left} s.` : "Asking again…"}</span>
      <button type="button" class="quiet" onClick={() => void look()}>
        Ask now
      </button>
    </div>
  );
}

function KeyForm() {
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), []);
  function submit(event: Event) {
    event.preventDefault();
    const value = field.current?.value.trim();
    if (value) useKey(value);
  }
  return (
    <form class="banner" onSubmit={submit}>
      <label for="key">This server wants its API key. It is forgotten when the tab is closed.</label>
      <input id="key" ref={field} type="password" autocomplete="off" />
      <button type="submit">Use it</button>
    </form>
  );
}
