// hpchub in JupyterLab 4: why a kernel's job waits, and the resources that it asks for.
//
// Written by hand as the container that JupyterLab expects of a prebuilt extension (module federation), so that
// nothing has to be built: JupyterLab loads this file, hands the modules that it shares to init(), and asks get()
// for the plugin. The requests are answered by hpchub/kernels/server.py.
"use strict";

(() => {
  const NAME = "hpchub-kernels";
  const LOOK_MS = 1000;
  // Between two questions to the server.
  const FIRST_PAUSE_MS = 2000;
  const LONGEST_PAUSE_MS = 10000;
  const HEARD_MS = 50;
  const HEARD_TRIES = 100;
  // Of a notification.
  const LONGEST_TEXT = 140;
  const STARTS = new Set(["initializing", "starting", "connecting"]);
  const PROVISIONER = "hpchub-slurm";
  const RESOURCES = "hpchub-kernels:resources";
  // How long the form waits for Slurm's partitions before it opens without a list of them.
  const LIST_MS = 1000;
  // Of the form: a setting in kernel.json, its label, and what may be typed.
  const FIELDS = [
    ["partition", "Partition", "Its name, or several: a,b. Empty: Slurm's default."],
    ["time", "Time", "Such as 02:00:00 or 1-12:00:00. Empty: the partition's default."],
    ["cpus", "CPUs", "A number. Empty: 1."],
    ["memory", "Memory", "Such as 500M or 8G. Empty: the partition's default."],
    ["gpus", "GPUs", "A number. Empty: none."],
    ["title", "Title", "What JupyterLab calls the kernel. Empty: made from the above."]
  ];
  // What a partition adds to that.
  const LIMITS = {
    partition: (one) => CLOSED[one.state] ?? "",
    time: (one) =>
      `${one.max_time ? `At most ${one.max_time}.` : "Such as 1-12:00:00; no limit."} ` +
      `Empty: ${one.default_time || "no limit"}.`,
    cpus: (one) => `At most ${one.cpus} on a node. Empty: 1.`,
    memory: (one) => `Such as 500M; at most ${one.memory} on a node. Empty: the partition's default.`,
    gpus: (one) => {
      const most = one.gpus.map(({ type, number }) => `${number} ${type}`.trim()).join(" or ");
      return most ? `At most ${most} on a node. Empty: none.` : "This partition has none.";
    }
  };
  // Of a partition that is not up: sinfo(1), AVAIL.
  const CLOSED = {
    down: "It is down: jobs wait until it is up.",
    drain: "It takes no new jobs.",
    inact: "It takes no jobs."
  };
  // In the list of partitions, where no partition has this name.
  const OTHER = " ";
  const STYLE = `
.hpchub-resources { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 12px;
  width: min(520px, 100vw - 100px); color: var(--jp-ui-font-color1); }
.hpchub-resources > p { grid-column: 1 / -1; margin: 0; white-space: pre-wrap; }
.hpchub-resources label { display: block; font-weight: 600; margin-bottom: 2px; }
.hpchub-resources input.jp-mod-styled { width: 100%; box-sizing: border-box; }
.hpchub-resources input[hidden] { display: none; }
.hpchub-resources .jp-select-wrapper { margin-bottom: 4px; }
.hpchub-resources > .hpchub-refused { border-left: 4px solid var(--jp-error-color1); padding-left: 8px; }
`;

  let shared = null;

  // A module that JupyterLab shares: the version that is in use.
  async function load(name) {
    const versions = Object.values(shared[name]);
    const version = versions.find((one) => one.loaded) ?? versions[0];
    return (await version.get())();
  }

  // Requests to our part of the notebook server: ask("/waiting"), ask("/waiting/ID", "DELETE").
  function asker(ServerConnection, settings) {
    return async (path, method = "GET", body = undefined) => {
      const init = { method, body: body && JSON.stringify(body), cache: "no-store" };
      const url = `${settings.baseUrl}hpchub/kernels${path}`;
      const response = await ServerConnection.makeRequest(url, init, settings);
      if (!response.ok) {
        throw await ServerConnection.ResponseError.create(response);
      }
      return response.status === 204 ? null : response.json();
    };
  }

  // -- Why a kernel waits ------------------------------------------------------------------------------------

  // What the notification says. JupyterLab cuts off what is longer; the reason is worth more than a long name.
  function told(one) {
    const file = one.notebook.split("/").pop();
    const room = Math.max(12, LONGEST_TEXT - one.reason.length - " waits for its kernel.\n".length);
    const name = file.length > room ? `${file.slice(0, room - 1)}…` : file;
    return `${name ? `${name} waits for its kernel` : `The kernel ${one.title} waits`}.\n${one.reason}`;
  }

  // A notification for each kernel that waits, which goes with the wait. The jobs that are given up are put into
  // `jobs`.
  class Notices {
    constructor(Notification, ask, jobs) {
      this.Notification = Notification;
      this.ask = ask;
      this.jobs = jobs;
      this.shown = new Map(); // a kernel's id -> its notification's id and text
    }

    // These wait, and no others.
    show(kernels) {
      for (const [kernel, notice] of this.shown) {
        if (!kernels.some((one) => one.id === kernel)) {
          this.Notification.dismiss(notice.id);
          this.shown.delete(kernel);
        }
      }
      for (const one of kernels.filter((one) => one.reason)) {
        const message = told(one);
        const notice = this.shown.get(one.id);
        const options = { autoClose: false, actions: [this.giveUp(one)] };
        if (!notice) {
          const id = this.Notification.emit(message, "in-progress", options);
          this.shown.set(one.id, { id, message });
        } else if (notice.message !== message) {
          this.Notification.update({ id: notice.id, message, type: "in-progress", ...options });
          notice.message = message;
        }
      }
    }

    giveUp(one) {
      return {
        label: "Give up",
        caption: `Cancel job ${one.job}`,
        callback: () => {
          this.jobs.add(one.job);
          this.ask(`/waiting/${one.id}`, "DELETE").catch((error) => {
            // 404: it no longer waits.
            if (error.response?.status !== 404) {
              this.Notification.error(`Job ${one.job} could not be given up: ${error.message}`);
            }
          });
        }
      };
    }
  }

  // Asks the server when the page is loaded, and while a kernel of this page starts or any waits, ever less often.
  // Ends where our part of the server is not there.
  async function watch(notices, ask, contexts, specs) {
    let starting = 0;
    let waiting = 1; // not known yet
    let pause = FIRST_PAUSE_MS;
    let next = 0;
    for (;;) {
      await new Promise((done) => setTimeout(done, LOOK_MS));
      const before = starting;
      starting = contexts().filter((context) => STARTS.has(context.kernelDisplayStatus)).length;
      if (starting !== before) {
        pause = FIRST_PAUSE_MS;
        // Most kernels are there at once; and one that is there waits no longer.
        next = starting > before ? Date.now() + pause : 0;
        contexts().forEach((context) => nameKernel(context, specs()));
      }
      if ((!starting && !waiting) || Date.now() < next) {
        continue;
      }
      try {
        const kernels = await ask("/waiting");
        waiting = kernels.length;
        notices.show(kernels);
      } catch (error) {
        if (error.response?.status === 404) {
          return;
        }
        // The server does not answer: JupyterLab itself says so.
      }
      next = Date.now() + pause;
      pause = Math.min(1.5 * pause, LONGEST_PAUSE_MS);
    }
  }

  // Where a change of kernels was given up the notebook has kept its kernel, and JupyterLab calls it by the other
  // one's title: until it changes to the one that it has.
  function nameKernel(context, specs) {
    const kernel = context.session?.kernel;
    const title = kernel && specs?.kernelspecs[kernel.name]?.display_name;
    if (title && !STARTS.has(context.kernelDisplayStatus) && context.kernelDisplayName !== title) {
      context.changeKernel({ id: kernel.id, name: kernel.name }).catch(() => {}); // which JupyterLab shows
    }
  }

  // -- A kernel that is wanted instead of one that waits -----------------------------------------------------

  // Whether a kernel that waits is this notebook's or console's. Consoles of two pages may have the same name, and
  // are told apart by the path under which JupyterLab asks for a session: for a new one, one made up for this.
  function isFor(one, context, asked) {
    if (context.type === "console" && one.session && asked !== undefined) {
      return one.session === asked || one.session === context.path;
    }
    return one.notebook === context.path.slice(0, context.path.lastIndexOf("/") + 1) + context.name;
  }

  // Gives up the kernels that this notebook or console waits for; their jobs are put into `jobs`.
  async function giveUpOthers(context, asked, ask, jobs) {
    const others = (await ask("/waiting")).filter((one) => isFor(one, context, asked));
    for (const one of others) {
      jobs.add(one.job);
      await ask(`/waiting/${one.id}`, "DELETE").catch((error) => {
        if (error.response?.status !== 404) {
          throw error;
        }
      });
    }
    // JupyterLab hears of it in the next moment, and would then take what it starts by now for failed.
    for (let left = others.length && HEARD_TRIES; left && STARTS.has(context.kernelDisplayStatus); left--) {
      await new Promise((done) => setTimeout(done, HEARD_MS));
    }
  }

  // Takes away the dialogs in which JupyterLab says that the kernel of one of these jobs did not start, and asks
  // which other one to start: that has been chosen, or none is wanted. It knows no answer of the server's to a start
  // that says so.
  function spareDialogs(tracker, jobs) {
    const never = Promise.resolve(false);
    let before = never; // whether the dialog that was made just before is such a one
    tracker.widgetAdded.connect((_, dialog) => {
      const follows = before;
      const tells = dialog.ready.then(() => {
        // Lines as the server breaks them, or as it writes them down within a sentence of its own.
        const found = /given up before its job (\d+) began/.exec(dialog.node.textContent.replace(/\s+|\\n/g, " "));
        return found !== null && jobs.has(found[1]);
      });
      before = tells;
      // JupyterLab makes both in one turn of the loop.
      setTimeout(() => {
        before = before === tells ? never : before;
      });
      void Promise.all([tells, follows]).then((ours) => {
        if (ours.includes(true)) {
          dialog.reject();
        }
      });
    });
  }

  // -- The resources of a kernel's job -----------------------------------------------------------------------

  // An element with these properties and children.
  function element(tag, properties = {}, ...children) {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  }

  // Where a partition is chosen: from Slurm's, or by typing. Without a list it is a text field alone.
  class PartitionField {
    constructor(id, value) {
      this.input = element("input", { id, className: "jp-mod-styled", value });
      this.select = null;
      this.limits = []; // of Slurm's partitions, once they are known
      this.changed = () => {};
      this.input.addEventListener("input", () => this.changed());
    }

    // Offers a list; the text field is for what is not in it.
    offer(partitions) {
      this.limits = partitions;
      const usual = partitions.find((one) => one.is_default)?.name;
      const options = [
        ["", usual ? `Slurm's default: ${usual}` : "Slurm's default (there is none)"],
        ...partitions.map((one) => [one.name, named(one)]),
        [OTHER, "Another, or several…"]
      ];
      this.select = element("select", { id: `${this.input.id}-list`, className: "jp-mod-styled" });
      this.select.append(...options.map(([value, words]) => element("option", { value }, words)));
      const typed = this.input.value.trim();
      this.select.value = options.some(([value]) => value === typed) ? typed : OTHER;
      this.input.hidden = this.select.value !== OTHER;
      this.input.setAttribute("aria-label", "Another partition, or several");
      this.input.placeholder = "a,b";
      this.select.addEventListener("change", () => {
        this.input.hidden = this.select.value !== OTHER;
        this.changed();
      });
    }

    get controls() {
      return this.select ? [this.select, this.input] : [this.input];
    }

    get value() {
      const chosen = this.select?.value ?? OTHER;
      return chosen === OTHER ? this.input.value : chosen;
    }

    // What Slurm says of the partition that is chosen; null where it is none, or several.
    get chosen() {
      const name = this.value.trim();
      return this.limits.find((one) => (name ? one.name === name : one.is_default)) ?? null;
    }
  }

  // A partition, as a list has it.
  function named(one) {
    const notes = [one.is_default ? "default" : "", one.state === "up" ? "" : one.state].filter((note) => note);
    return notes.length ? `${one.name} (${notes.join(", ")})` : one.name;
  }

  // The fields, filled with the settings of kernel.json, and a line for what the server says. `partitions` are null
  // where Slurm has not answered yet.
  class Form {
    constructor(spec, partitions) {
      const config = spec.metadata.kernel_provisioner.config ?? {};
      this.status = element("p");
      this.status.setAttribute("role", "status");
      this.inputs = new Map();
      this.hints = new Map();
      const rows = FIELDS.map(([name, label]) => {
        const id = `hpchub-resources-${name}`;
        const controls = this.makeControls(name, id, config[name] ?? "", partitions);
        const hint = element("small", { id: `${id}-hint` });
        this.hints.set(name, hint);
        for (const control of controls) {
          control.autocomplete = "off";
          control.setAttribute("aria-describedby", hint.id);
        }
        return element("div", {}, element("label", { htmlFor: controls[0].id }, label), ...controls, hint);
      });
      const what =
        `The kernel ${spec.display_name} runs in a Slurm job. Other resources make another kernel in a new job. This ` +
        "one ends, and its variables with it.";
      this.node = element("div", { className: "hpchub-resources" }, element("p", {}, what), ...rows, this.status);
      this.showLimits();
    }

    makeControls(name, id, value, partitions) {
      if (name !== "partition") {
        const input = element("input", { id, className: "jp-mod-styled", value });
        this.inputs.set(name, input);
        return [input];
      }
      this.partition = new PartitionField(id, value);
      this.partition.changed = () => this.showLimits();
      if (partitions) {
        this.partition.offer(partitions);
      }
      this.inputs.set(name, this.partition);
      return this.partition.controls;
    }

    // The partitions are known after all: nothing is exchanged under the hands of who fills in the form.
    learn(partitions) {
      this.partition.limits = partitions;
      this.showLimits();
    }

    showLimits() {
      const limits = this.partition.chosen;
      for (const [name, , words] of FIELDS) {
        this.hints.get(name).textContent = (limits && LIMITS[name]?.(limits)) || words;
      }
      const { limits: all, select } = this.partition;
      if (all.length && !select) {
        this.hints.get("partition").textContent += ` There are ${all.map(named).join(", ")}.`;
      } else if (limits && select && select.value !== OTHER) {
        this.hints.get("partition").textContent = LIMITS.partition(limits);
      }
    }

    say(text, isError = false) {
      this.status.textContent = text;
      this.status.classList.toggle("hpchub-refused", isError);
      this.status.scrollIntoView({ block: "nearest" });
    }

    get values() {
      const { title, ...settings } = Object.fromEntries([...this.inputs].map(([name, one]) => [name, one.value]));
      return { settings, title };
    }
  }

  // The form, after a moment for Slurm to say which partitions there are.
  async function makeForm(ask, spec) {
    const asked = ask("/partitions");
    const known = await Promise.race([asked.catch(() => null), new Promise((done) => setTimeout(done, LIST_MS, null))]);
    const form = new Form(spec, known);
    if (!known) {
      asked
        .then((partitions) => form.learn(partitions))
        .catch((error) => {
          if (!form.status.textContent) {
            form.say(`The partitions cannot be listed: ${error.message}`);
          }
        });
    }
    return form;
  }

  // Asks for other resources until the server has a kernel with them, or nobody wants it any more: that kernel's
  // name, or null.
  async function chooseResources({ Dialog, Widget }, ask, spec) {
    const form = await makeForm(ask, spec);
    let made = null;
    let asking = false;
    class ResourcesDialog extends Dialog {
      // Called for a button's number, and for Enter.
      resolve(index = 1) {
        if (index === 0) {
          super.resolve(index);
        } else if (!asking) {
          asking = true;
          form.say("Trying it, and asking Slurm…");
          ask("", "POST", { kernel: spec.name, ...form.values })
            .then((kernel) => {
              made = kernel.name;
              super.resolve(index);
            })
            .catch((error) => form.say(error.message, true))
            .finally(() => {
              asking = false;
            });
        }
      }
    }
    const dialog = new ResourcesDialog({
      title: "Resources of the kernel's job",
      body: new Widget({ node: form.node }),
      buttons: [Dialog.cancelButton(), Dialog.okButton({ label: "Use" })],
      focusNodeSelector: form.partition.select ? "select" : "input"
    });
    const result = await dialog.launch();
    return result.button.accept ? made : null;
  }

  // The kernel's specification where a notebook's or console's kernel runs in a job, or would; otherwise null.
  function jobSpec(panel, specs) {
    const context = panel.sessionContext;
    // A notebook that never had a kernel has an empty name in its metadata.
    const name =
      context.session?.kernel?.name ||
      panel.content?.model?.getMetadata?.("kernelspec")?.name ||
      context.kernelPreference.name;
    const spec = specs?.kernelspecs[name];
    return spec?.metadata?.kernel_provisioner?.provisioner_name === PROVISIONER ? spec : null;
  }

  // The command, in the menu and the palette; not to be had where `isServed` says no.
  function addResources(app, lab, ask, trackers, palette, menu, jobs, isServed) {
    const kernels = app.serviceManager.kernelspecs;
    let isOpen = false;
    const current = () =>
      trackers.map((tracker) => tracker.currentWidget).find((panel) => panel && panel === app.shell.currentWidget);
    const spec = () => (current() ? jobSpec(current(), kernels.specs) : null);
    app.commands.addCommand(RESOURCES, {
      label: "Resources of the Kernel's Job…",
      caption: "Change to a kernel whose job has another partition, time, or number of cores",
      isEnabled: () => isServed() && !isOpen && spec() !== null,
      execute: async () => {
        const context = current().sessionContext;
        isOpen = true;
        const name = await chooseResources(lab, ask, spec()).finally(() => {
          isOpen = false;
        });
        if (name !== null) {
          await kernels.refreshSpecs();
          try {
            // A session of its own: after a change within one JupyterLab 4.6 does not see the new kernel's end, and
            // a restart leads to the one before.
            const asked = context._pendingSessionRequest; // JupyterLab's own; it tells it nowhere else
            await context.shutdown();
            await giveUpOthers(context, asked, ask, jobs);
          } catch (error) {
            lab.Notification.error(`The kernel before could not be ended: ${error.message}`);
          }
          // JupyterLab itself shows why a kernel does not start.
          context.changeKernel({ name }).catch(() => {});
        }
      }
    });
    palette?.addItem({ command: RESOURCES, category: "Kernel Operations" });
    menu?.kernelMenu.addGroup([{ command: RESOURCES }], 30);
  }

  // -- The plugin --------------------------------------------------------------------------------------------

  async function makePlugin() {
    const { Dialog, ICommandPalette, Notification } = await load("@jupyterlab/apputils");
    const { ServerConnection } = await load("@jupyterlab/services");
    const { INotebookTracker } = await load("@jupyterlab/notebook");
    const { IConsoleTracker } = await load("@jupyterlab/console");
    const { IMainMenu } = await load("@jupyterlab/mainmenu");
    const { Widget } = await load("@lumino/widgets");
    return {
      id: `${NAME}:plugin`,
      description: "Says why a kernel's job waits, and lets its resources be chosen.",
      autoStart: true,
      optional: [INotebookTracker, IConsoleTracker, ICommandPalette, IMainMenu],
      activate: (app, notebooks, consoles, palette, menu) => {
        const trackers = [notebooks, consoles].filter((tracker) => tracker);
        const ask = asker(ServerConnection, app.serviceManager.serverSettings);
        const contexts = () => {
          const all = [];
          trackers.forEach((tracker) => tracker.forEach((panel) => all.push(panel.sessionContext)));
          return all;
        };
        document.head.append(element("style", {}, STYLE));
        let served = true;
        const jobs = new Set(); // given up by somebody at this page
        spareDialogs(Dialog.tracker, jobs);
        addResources(app, { Dialog, Notification, Widget }, ask, trackers, palette, menu, jobs, () => served);
        const specs = () => app.serviceManager.kernelspecs.specs;
        void watch(new Notices(Notification, ask, jobs), ask, contexts, specs).then(() => {
          served = false;
        });
      }
    };
  }

  window._JUPYTERLAB = window._JUPYTERLAB ?? {};
  window._JUPYTERLAB[NAME] = {
    init(scope) {
      shared = scope;
    },
    async get() {
      const plugin = await makePlugin();
      return () => plugin;
    }
  };
})();
