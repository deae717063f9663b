// Keeps what is told of the servers up to date. Without this script it is what it was when the page came.
(function () {
  "use strict";
  const box = document.getElementById("hpchub-servers");
  const told = box.querySelector("[data-told]");
  const stale = box.querySelector("[data-stale]");
  const ASK_AGAIN_S = 10;
  // How far the hub's clock is ahead of the browser's, in seconds.
  let ahead = 0;
  let last = "";
  // An administrator looks at somebody's page: what came with it must do.
  let others = false;

  function left(seconds) {
    const whole = Math.floor(seconds);
    if (whole <= 0) {
      return "no time";
    }
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
    return when.toLocaleString([], today ? style : { weekday: "short", day: "numeric", month: "short", ...style });
  }

  function tick() {
    for (const element of told.querySelectorAll("[data-until]")) {
      element.textContent = left(Number(element.dataset.until) - (Date.now() / 1000 + ahead));
    }
    for (const element of told.querySelectorAll("[data-at]")) {
      element.textContent = clock(Number(element.dataset.at));
    }
  }

  // The hub has escaped every value in it.
  function show(html) {
    if (html === last) {
      return;
    }
    const focused = told.contains(document.activeElement) ? document.activeElement.id : "";
    last = html;
    told.innerHTML = html;
    if (focused && document.getElementById(focused)) {
      document.getElementById(focused).focus();
    }
  }

  async function ask() {
    if (document.hidden || others) {
      return;
    }
    try {
      const answer = await fetch(box.dataset.url, {
        headers: { "X-XSRFToken": window.jhdata.xsrf_token },
        redirect: "error",
        cache: "no-store",
      });
      others = answer.status === 404;
      if (others) {
        return;
      }
      if (!answer.ok) {
        throw new Error(`the hub answered ${answer.status}`);
      }
      const date = Date.parse(answer.headers.get("Date"));
      if (date) {
        ahead = (date - Date.now()) / 1000;
      }
      show(await answer.text());
      stale.hidden = true;
    } catch (error) {
      console.info(`hpchub: ${error.message}`);
      stale.hidden = false;
    }
    tick();
  }

  tick();
  ask();
  setInterval(tick, 1000);
  setInterval(ask, ASK_AGAIN_S * 1000);
  document.addEventListener("visibilitychange", ask);
  document.addEventListener("hpchub-news", ask);
})();
