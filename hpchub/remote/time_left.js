// A JupyterLab extension, written by hand and loaded as it is: it shows how much of the job's time is
// left, and warns before it is up. JupyterLab 3 and 4 and Notebook 7 load it as a prebuilt extension:
// https://jupyterlab.readthedocs.io/en/stable/extension/extension_dev.html#prebuilt-extensions
// The launcher lays it out beside end.json, which it writes whenever the bridge tells it of the end.
// Whatever fails in here is a line in the browser's console and nothing more.
(function () {
  "use strict";
  const here = new URL(".", document.currentScript.src);
  const scope = decodeURIComponent(here.pathname.split("/").slice(-3)[0]);
  const LOOK_AGAIN_S = 60;
  const SUCCESSOR = "hpchub:start-successor";

  // What end.json says, and how far the server's clock is ahead of the browser's, in seconds.
  let end = null;
  let ahead = 0;
  // The warning that stands, by its number of seconds ahead, and what takes it away again.
  let warned = Infinity;
  let takeAway = () => {};

  function option(name) {
    const element = document.getElementById("jupyter-config-data");
    return (element && JSON.parse(element.textContent)[name]) || "";
  }

  function left(seconds) {
    const whole = Math.max(0, Math.floor(seconds));
    if (whole < 120) {
      return `${whole} s`;
    }
    const hours = Math.floor(whole / 3600);
    const minutes = Math.floor(whole / 60) % 60;
    return hours ? `${hours} h ${minutes} min` : `${minutes} min`;
  }

  function clock(seconds) {
    const when = new Date(seconds * 1000);
    const today = when.toDateString() === new Date().toDateString();
    const style = { hour: "2-digit", minute: "2-digit" };
    return when.toLocaleString([], today ? style : { weekday: "short", ...style });
  }

  async function look() {
    const answer = await fetch(new URL("end.json", here), { cache: "no-store" });
    if (!answer.ok) {
      return; // not known yet, or the server is away: what was known still holds
    }
    const date = Date.parse(answer.headers.get("Date"));
    ahead = date ? (date - Date.now()) / 1000 : 0;
    end = await answer.json();
  }

  // A place in the status bar; where there is none, as in Notebook 7, only the warnings come.
  function showLeft(seconds, close) {
    const bar = document.getElementById("jp-main-statusbar");
    if (!bar) {
      return;
    }
    let item = document.getElementById("hpchub-time-left");
    if (!item) {
      item = document.createElement("div");
      item.id = "hpchub-time-left";
      item.className = "jp-StatusBar-TextItem";
      item.style.cssText = "align-self: center; padding: 0 8px; white-space: nowrap";
      (bar.querySelector(".jp-StatusBar-Left") || bar).append(item);
    }
    const text = `Time left: ${left(seconds)}`;
    if (item.textContent !== text) {
      item.textContent = text;
    }
    item.title = `The job of this server ends at ${clock(end.ends_at)}.`;
    item.style.fontWeight = close ? "bold" : "";
  }

  function offersSuccessor() {
    // Somebody else's server is not for a visitor to follow up.
    return end.successor && option("hubPrefix") && option("hubUser") === option("hubServerUser");
  }

  function openSuccessor() {
    const name = encodeURIComponent(option("hubServerName"));
    window.open(`${option("hubHost")}${option("hubPrefix")}hpchub/successor/${name}`, "_blank", "noopener");
  }

  // What takes the notification away again. JupyterLab before 3.6 has none; its status bar must do.
  async function notify(app, message) {
    if (!app.commands.hasCommand("apputils:notify")) {
      return () => {};
    }
    const caption = "Opens the hub's form with the same options";
    const actions = offersSuccessor() ? [{ label: "Start a successor", commandId: SUCCESSOR, caption }] : [];
    const options = { autoClose: false, actions };
    const id = await app.commands.execute("apputils:notify", { message, type: "warning", options });
    return () => app.commands.execute("apputils:dismiss-notification", { id });
  }

  async function warn(app, seconds) {
    const due = Math.min(...end.warn_before_s.filter((ahead_s) => seconds <= ahead_s));
    if (due === warned) {
      return;
    }
    // Nearer than before, or the job was extended: the old warning no longer holds.
    warned = due;
    takeAway();
    takeAway = () => {};
    if (due !== Infinity && seconds > 0) {
      takeAway = await notify(
        app,
        `This server ends at ${clock(end.ends_at)}, in ${left(seconds)}: its job's time is up then. ` +
          "Save your work. What is in memory only will be lost."
      );
    }
  }

  function guarded(act) {
    return () => Promise.resolve().then(act).catch((error) => console.warn(`hpchub: ${error}`));
  }

  function start(app) {
    app.commands.addCommand(SUCCESSOR, { label: "Start a Successor of This Server", execute: openSuccessor });
    const tick = guarded(async () => {
      if (end && typeof end.ends_at === "number") {
        const seconds = end.ends_at - (Date.now() / 1000 + ahead);
        showLeft(seconds, seconds <= Math.max(0, ...end.warn_before_s));
        await warn(app, seconds);
      }
    });
    // A page that nobody looks at asks for nothing: a question would count as activity.
    const ask = guarded(async () => {
      if (!document.hidden) {
        await look();
        await tick();
      }
    });
    ask();
    setInterval(tick, 1000);
    setInterval(ask, LOOK_AGAIN_S * 1000);
    document.addEventListener("visibilitychange", ask);
  }

  const plugin = {
    id: "hpchub:time-left",
    description: "Shows how much of the job's time is left, and warns before it is up.",
    autoStart: true,
    activate: (app) => {
      app.restored.then(() => start(app));
    },
  };

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB[scope] = {
    init: () => {},
    get: async () => () => ({ __esModule: true, default: plugin }),
  };
})();
