// Narrows the form to what is chosen. The server checks everything again; without this script all
// fields are shown.
(function () {
  "use strict";
  const form = document.getElementById("hpchub-form");
  const limits = JSON.parse(document.getElementById("hpchub-limits").textContent);
  const field = (name) => document.getElementById("hpchub-" + name);
  const words = (text) => (text || "").split(" ").filter(Boolean);
  const placements = Array.from(form.querySelectorAll("input[name=placement]"));
  const compute = field("compute");
  const typed = new Set();

  // What select lists hold is moved in and out: a hidden option is still shown by some browsers.
  const offers = {};
  ["partition", "account", "environment"].forEach(function (name) {
    if (field(name).tagName === "SELECT") {
      offers[name] = Array.from(field(name).options);
    }
  });

  // A long label is cut off in a narrow list; the line below it is not.
  offers.partition.forEach(function (option) {
    option.textContent = option.dataset.title || option.textContent;
  });

  function describe(name, key) {
    const chosen = field(name).selectedOptions[0];
    field(name + "-help").textContent = (chosen && chosen.dataset[key]) || "";
  }

  function offer(name, fits) {
    if (!offers[name]) {
      return;
    }
    const select = field(name);
    const chosen = select.selectedOptions[0];
    const fitting = offers[name].filter((option) => !option.dataset.cluster || fits(option.dataset));
    const wanted =
      fitting.find((option) => option === chosen) ||
      fitting.find((option) => chosen && option.value === chosen.value) ||
      fitting[0];
    select.replaceChildren(...fitting);
    if (wanted) {
      select.value = wanted.value;
    }
  }

  function seconds(text) {
    const match = /^(?:(\d+)-)?(\d+):(\d\d):(\d\d)$/.exec(text);
    return match ? ((+(match[1] || 0) * 24 + +match[2]) * 60 + +match[3]) * 60 + +match[4] : NaN;
  }

  function bytes(text) {
    const match = /^(\d+(?:\.\d+)?) ?([kmgt])(?:i?b)?$/i.exec(text);
    return match ? match[1] * Math.pow(1024, "kmgt".indexOf(match[2].toLowerCase()) + 1) : NaN;
  }

  function limit(name, measure, least, most, text) {
    const input = field(name);
    if (!input) {
      return;
    }
    form.querySelector(`[data-limit=${name}]`).textContent = text;
    if (input.type === "number") {
      input.max = most;
    }
    if (!typed.has(name) && !input.classList.contains("is-invalid") && measure(input.value) > measure(String(most))) {
      input.value = most;
    }
    const value = measure(input.value);
    const outside = value < measure(String(least)) || value > measure(String(most));
    input.setCustomValidity(outside ? `Allowed: ${least} to ${most}.` : "");
  }

  function update() {
    const cluster = field("cluster").value;
    placements.forEach(function (input) {
      input.disabled = "barred" in input.dataset || !words(input.dataset.clusters).includes(cluster);
    });
    if (!placements.some((input) => input.checked && !input.disabled)) {
      const first = placements.find((input) => !input.disabled);
      if (first) {
        first.checked = true;
      }
    }
    const placement = (placements.find((input) => input.checked) || {}).value;
    compute.hidden = compute.disabled = placement !== "compute";

    offer("partition", (data) => data.cluster === cluster);
    const partition = field("partition").value;
    offer("account", (data) => data.cluster === cluster && words(data.partitions).includes(partition));
    offer("environment", (data) => data.cluster === cluster && words(data.placements).includes(placement));
    describe("environment", "description");
    describe("partition", "summary");

    const most = (limits[cluster] || {})[partition];
    if (!most) {
      return;
    }
    const on = ` on ${partition}`;
    limit("time", seconds, "00:01:00", most.time, `up to ${most.time}${on}`);
    limit("cpus", Number, 1, most.cpus, `1 to ${most.cpus}${on}`);
    limit("memory", bytes, most.least_memory, most.memory, `${most.least_memory} to ${most.memory}${on}`);
    const gpus = field("gpus");
    if (gpus) {
      limit("gpus", Number, 0, most.gpus, `0 to ${most.gpus}${most.gpu_type ? " " + most.gpu_type : ""}${on}`);
      const useless = most.gpus === 0 && !gpus.classList.contains("is-invalid");
      gpus.closest(".col-sm-6").hidden = gpus.disabled = useless;
    }
  }

  form.querySelectorAll("[data-without-script]").forEach((element) => element.remove());
  function changed(event) {
    typed.add(event.target.name);
    form.querySelectorAll(`[name=${event.target.name}]`).forEach(function (input) {
      input.classList.remove("is-invalid");
      input.removeAttribute("aria-invalid");
    });
    const error = field(event.target.name + "-error");
    if (error) {
      error.remove();
    }
    update();
  }
  // A list that is set by a program, such as an assistive one, may say "change" alone.
  form.addEventListener("input", changed);
  form.addEventListener("change", changed);
  update();
  const refused = form.querySelector(".is-invalid");
  if (refused) {
    refused.focus();
  }
})();
