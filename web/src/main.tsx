import { options, render } from "preact";
import { App } from "./app";
import { keepOnLeaving } from "./chat/answering";
import { listen } from "./chat/shelf";
import { watch } from "./server/watch";
import "./style/colours.css";
import "./style/page.css";
import "./style/chat.css";
import "./style/prose.css";
import "./style/machine.css";
import { applyTheme } from "./theme";

// What comes within a frame is drawn once, however many pieces of an answer it is.
options.debounceRendering = requestAnimationFrame;

applyTheme();
listen();
keepOnLeaving();
watch();
render(<App />, document.body);
